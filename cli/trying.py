"""`sso saml set --dry-run` and `sso oidc set --dry-run`: what a change would have made of the last thirty days' sign-ins."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

from cli.output import err, show, tell
from cli.run import PARTLY_FAILED, run
from cli.sign_in import SignInParts, sign_in_parts

if TYPE_CHECKING:
    from auth.connections.models import Connection
    from auth.connections.trying import Difference, Way
    from auth.oidc.models import OidcConnection
    from auth.saml.models import SamlConnection
    from core.database import ControlSession

    Rows = tuple[Connection, SamlConnection | OidcConnection]

DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Change nothing: show what it would have made of the last 30 days' sign-ins."
    ),
]

KeepSignIns = Annotated[
    bool | None,
    typer.Option(help="Keep everybody's last sign-in for 30 days, encrypted, to try changes on (--dry-run)."),
]

Change = Callable[["ControlSession"], Awaitable["Connection"]]


def try_change(slug: str, name: str, kind: str, change: Change, as_json: bool) -> None:
    """Show what `change` makes of everybody's last sign-in by the connection. Ends with exit code 3 if somebody loses by
    it."""
    found = run(lambda: _differences(slug, name, kind, change))
    losers = [each for each in found if each.loses]
    refused = [each for each in losers if each.after.refused_by]
    unproven = [each for each in found if each.before.refused_by and each.after.refused_by]
    if as_json:
        people = [_row(each) for each in found]
        counts = {
            "tried": len(found),
            "lose": len(losers),
            "refused": len(refused),
            "unproven": len(unproven),
        }
        show({"connection": name, **counts, "people": people}, as_json=True)
    elif changed := [each for each in found if each.loses or each.gains]:
        show([_row(each) for each in changed], as_json=False)
    _summarize(found, losers, refused, unproven)
    if losers:
        raise typer.Exit(PARTLY_FAILED)


def _row(each: "Difference") -> dict[str, Any]:
    return {
        "person": each.person,
        "user_id": each.user_id,
        "signed_in_at": f"{each.signed_in_at:%Y-%m-%d %H:%M}",
        "roles": list(each.before.roles),
        "loses": each.loses,
        "gains": each.gains,
        "refused_by": each.after.refused_by,
    }


def _summarize(
    found: "list[Difference]",
    losers: "list[Difference]",
    refused: "list[Difference]",
    unproven: "list[Difference]",
) -> None:
    from auth.connections.checks import explain

    if not found:
        tell(
            "Nobody's sign-in of the last 30 days is kept for this connection: there is nothing to try it on."
        )
        return
    tell(
        f"{len(found)} people's last sign-ins were tried, and nothing was changed: {len(losers)} would lose "
        f"a role, {len(refused)} of them could not sign in any more."
    )
    for check in sorted({each.after.refused_by or "" for each in refused}):
        tell(f"{check}: {explain(check)}")
    if unproven:
        tell(
            f"Of {len(unproven)} it cannot be told: their sign-ins would be refused by the connection as it is, too, "
            "such as after a certificate has changed."
        )


async def _differences(slug: str, name: str, kind: str, change: Change) -> "list[Difference]":
    from auth.connections.keeping import kept_sign_ins
    from auth.connections.trying import differences

    columns = (SpinnerColumn(), TextColumn("Trying sign-ins"), MofNCompleteColumn())
    found = []
    async with sign_in_parts(slug) as parts:
        before, after = await _both(parts, name, kind, change)
        if before is None:
            return []
        tenant = parts.where.tenant
        kept = kept_sign_ins(parts.database, parts.keys, tenant, before[0].id)
        ways = _way(before, parts), _way(after, parts)
        with Progress(*columns, console=err, transient=True) as bar:
            task = bar.add_task("", total=None)
            async for each in differences(parts.database, tenant, kept, *ways):
                found.append(each)
                bar.advance(task)
    return found


async def _both(parts: SignInParts, name: str, kind: str, change: Change) -> "tuple[Rows | None, Rows]":
    """The connection as it is, if there is one, and as it would be; nothing is changed, and nothing stays locked."""
    from auth.oidc.models import OidcConnection
    from auth.oidc.settings import find_oidc
    from auth.saml.models import SamlConnection
    from auth.saml.settings import find_saml

    async with parts.admin.control() as session:
        before: Rows | None = await (find_saml if kind == "saml" else find_oidc)(session, parts.tenant, name)
    async with parts.admin.control() as session:
        connection = await change(session)
        key = (connection.tenant_id, connection.id)
        row: SamlConnection | OidcConnection
        if kind == "saml":
            row = await session.get_one(SamlConnection, key)
        else:
            row = await session.get_one(OidcConnection, key)
        session.expunge_all()  # as they would be, they outlive what is undone now
        await session.rollback()
    return before, (connection, row)


def _way(rows: "Rows", parts: SignInParts) -> "Way":
    from auth.connections.trying import Way
    from auth.oidc.service import recall as recall_claims
    from auth.saml.models import SamlConnection
    from auth.saml.service import recall as recall_response

    connection, row = rows
    if isinstance(row, SamlConnection):
        recall = partial(recall_response, parts.jail, parts.keys, parts.where, connection, row)
        return Way(connection, recall)
    return Way(connection, partial(recall_claims, connection, row))
