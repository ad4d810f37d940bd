"""`dermadetect keys`: the keys of tenants, and the master key that wraps them."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from cli.output import Json, show, tell, warn
from cli.run import PARTLY_FAILED, admin_database, in_control, run, settings, span
from cli.tenants import Slug

if TYPE_CHECKING:
    from collections.abc import Sequence

    from auth.keys.models import TenantKey
    from auth.keys.rewrapping import Outcome
    from core.database import ControlSession

app = typer.Typer(
    no_args_is_help=True, help="Look at keys, rotate them, and wrap them by another master key."
)

KeyId = Annotated[UUID, typer.Argument(help="The key's id: the `kid` of what it signs.")]


class Purpose(StrEnum):
    """What a key is for."""

    token = "token"  # noqa: S105  # no password
    saml = "saml"
    data = "data"


@app.command("list")
def list_all(slug: Slug, as_json: Json = False) -> None:
    """List a tenant's keys: what each is for, its state, and how many days old it is.

    dermadetect keys list acme
    """
    _show(slug, as_json)


@app.command("show")
def show_one(slug: Slug, key_id: KeyId, as_json: Json = False) -> None:
    """Show a key with its public part: a token key's JWK, a SAML key's certificate.

    dermadetect keys show acme 01980000-0000-7000-8000-000000000001
    """
    from auth.keys.rotation import find_key

    key, state = in_control(lambda session: find_key(session, slug, key_id))
    show(_row(key, state) | {"public": key.public.get("certificate", key.public)}, as_json=as_json)


@app.command()
def rotate(
    slug: Slug,
    purpose: Annotated[Purpose, typer.Option(help="Which key.")] = Purpose.token,
    use_after: Annotated[
        str | None,
        typer.Option(
            help="How long the new key is published before it is used; 10m, for saml 7d, for data 0s."
        ),
    ] = None,
    retire_after: Annotated[
        str | None,
        typer.Option(help="How long the old key holds from then on; 1h, for saml 7d, for data 0s."),
    ] = None,
    revoke_now: Annotated[
        bool,
        typer.Option("--revoke-now", help="Replace all keys of the purpose at once: one has leaked."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Give a tenant a new key. Nobody is signed out: the old one holds until what it signed has expired.

    With --revoke-now everything that the old keys signed is refused, in every running gateway within a second; only
    reports still verify. After a rotation of `saml` give the identity provider the metadata anew before the new
    key is used. A rotation of `data` wraps the keys of all patients anew.

      dermadetect keys rotate acme
      dermadetect keys rotate acme --purpose saml --use-after 14d
      dermadetect keys rotate acme --revoke-now
    """
    if revoke_now and (use_after or retire_after):
        raise typer.BadParameter("leaves no time to --use-after or --retire-after", param_hint="--revoke-now")

    async def work() -> "TenantKey":
        from auth.keys.rotation import OVERLAP, PUBLISHED_FIRST
        from gateway.keys import rotate_key

        configured = settings()
        async with admin_database(configured) as database:
            return await rotate_key(
                configured,
                database,
                slug,
                purpose,
                use_after=span(use_after, "--use-after") if use_after else PUBLISHED_FIRST[purpose],
                retire_after=span(retire_after, "--retire-after") if retire_after else OVERLAP[purpose],
                revoke_now=revoke_now,
            )

    made = run(work)
    _show(slug, as_json)
    if revoke_now:
        tell(f"Only {made.id} holds now. Whoever was signed in signs in again.")
    if purpose is Purpose.saml:
        tell(f"Give the identity provider the metadata anew: dermadetect sso saml show {slug}")


@app.command()
def retire(slug: Slug, key_id: KeyId, as_json: Json = False) -> None:
    """Have done with a key before its time: with an old one that the identity provider knows no more, or with the one
    in use, so that the next takes over at once. Retiring the next key calls the rotation off.

      dermadetect keys retire acme 01980000-0000-7000-8000-000000000001
    """
    from auth.keys.rotation import retire as verb

    in_control(lambda session: verb(session, slug, key_id))
    _show(slug, as_json)


@app.command()
def rewrap(
    batch: Annotated[int, typer.Option(min=1, max=10_000, help="Keys in one transaction.")] = 200,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count what is to be done, and change nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Wrap all keys by the master key in DERMADETECT_MASTER_KEY, opened by the one in DERMADETECT_MASTER_KEY_PREVIOUS.

    It may be killed at any point and run again; gateways and workers that know both go on.

      dermadetect keys rewrap --dry-run
      dermadetect keys rewrap

    Exit codes: 0 all are wrapped by it · 3 all but those of other master keys, or that do not open.
    """

    async def work() -> "Outcome":
        from gateway.keys import rewrap_keys

        configured = settings()
        async with admin_database(configured) as database:
            return await rewrap_keys(
                configured, database, batch=batch, dry_run=dry_run, progress=lambda left: tell(f"{left} left")
            )

    outcome = run(work)
    show(vars(outcome), as_json=as_json, title="Keys")
    for kek_id, count in outcome.locked.items():
        warn(
            f"{count} keys stay locked",
            f"the master key {kek_id} wraps them: set it as DERMADETECT_MASTER_KEY_PREVIOUS and run this again",
        )
    for broken in outcome.broken:
        warn("A key does not open", f"{broken}: restore its row in the control tables from a backup")
    if outcome.locked or outcome.broken:
        raise typer.Exit(PARTLY_FAILED)


def _show(slug: str, as_json: bool) -> None:
    from auth.keys.rotation import list_keys
    from tenants.directory.service import find_tenant

    async def work(session: "ControlSession") -> "Sequence[tuple[TenantKey, str]]":
        return await list_keys(session, await find_tenant(session, slug))

    show([_row(key, state) for key, state in in_control(work)], as_json=as_json)


def _row(key: "TenantKey", state: str) -> dict[str, Any]:
    from core.clock import utcnow

    return {
        "id": str(key.id),
        "purpose": key.purpose,
        "state": state,
        "age_days": (utcnow() - key.created_at).days,
        "created_at": key.created_at,
        "active_from": key.active_from,
        "retires_at": key.retires_at,
        "wrapped_by": key.kek_id,
    }
