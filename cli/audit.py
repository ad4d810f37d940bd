"""`dermadetect audit`: what was done, and whether the logs still say so."""

import json
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.output import Json, err, show, warn
from cli.run import FAILED, admin_database, fail, in_control, in_tenant, read_file, run, settings

if TYPE_CHECKING:
    from tenants.audit.service import EventFilter
    from tenants.audit.verification import Verdict

app = typer.Typer(no_args_is_help=True, help="Read the audit logs, and verify their seals.")

_PAGE = 1000

Tenant = Annotated[str | None, typer.Option(help="The log of this tenant, by slug or key.")]
Action = Annotated[str | None, typer.Option(help="Only this act, such as case.read or tenant.suspended.")]
Actor = Annotated[str | None, typer.Option(help="Only acts of this one: a user's id, or cli:NAME.")]
Since = Annotated[
    datetime | None,
    typer.Option(formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"], help="Only from then on, in UTC."),
]


@app.command("list")
def list_newest(
    tenant: Tenant = None,
    action: Action = None,
    actor: Actor = None,
    since: Since = None,
    limit: Annotated[int, typer.Option(min=1, max=_PAGE, help="How many.")] = 50,
    as_json: Json = False,
) -> None:
    """List the newest acts: of the platform's log, or with --tenant of a tenant's own.

    dermadetect audit list --action tenant.suspended
    dermadetect audit list --tenant acme --action sign-in.refused --since 2026-03-01
    """
    show(_page(tenant, _filter(action, actor, since), limit, None), as_json=as_json)


@app.command()
def export(tenant: Tenant = None, action: Action = None, actor: Actor = None, since: Since = None) -> None:
    """Write a whole log as JSON, one act a line, newest first: the platform's, or with --tenant a tenant's own.

    dermadetect audit export --tenant acme --since 2026-01-01 > acme.jsonl
    """
    wanted, after = _filter(action, actor, since), None
    while page := _page(tenant, wanted, _PAGE, after):
        sys.stdout.writelines(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in page)
        after = page[-1]["id"]


def _filter(action: str | None, actor: str | None, since: datetime | None) -> "EventFilter":
    from tenants.audit.service import EventFilter

    return EventFilter(action, actor, None, since and since.replace(tzinfo=UTC))


def _page(tenant: str | None, wanted: "EventFilter", limit: int, after: Any) -> list[dict[str, Any]]:
    from tenants.audit.service import list_events, list_platform_events

    if tenant is None:
        return [
            {
                "id": row.id,
                "time": row.created_at,
                "actor": row.actor,
                "action": row.action,
                "tenant_id": row.tenant_id,
                "detail": row.detail,
                "seal": row.seal,
            }
            for row in in_control(lambda session: list_platform_events(session, wanted, limit, after))
        ]
    return [
        {
            "id": row.id,
            "time": row.created_at,
            "actor": row.actor,
            "action": row.action,
            "subject": row.subject,
            "request_id": row.request_id,
            "detail": row.detail,
            "seal": row.seal,
        }
        for row in in_tenant(tenant, lambda session: list_events(session, wanted, limit, after))
    ]


@app.command()
def verify(
    tenant: Annotated[str | None, typer.Option(help="Only the log of this tenant.")] = None,
    platform: Annotated[bool, typer.Option("--platform", help="Only the platform's log.")] = False,
    against: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="An earlier result of --json, kept elsewhere."),
    ] = None,
    overdue_after: Annotated[
        int, typer.Option(min=1, help="Seconds after which a row without a seal counts as a fault.")
    ] = 60,
    as_json: Json = False,
) -> None:
    """Compute all seals anew, of every log unless one is named. Exit code 1 when a log is not as it was sealed.

    A row that was changed, removed or added, and a seal that was changed, replaced or removed, are found at the
    first seal they break. That the newest seals were cut off, or a whole chain was written anew, only a result
    that was kept elsewhere can show.

      dermadetect audit verify --json > heads-monday.json
      dermadetect audit verify --against heads-monday.json
    """
    if tenant and platform:
        raise typer.BadParameter("name one log, or none for all", param_hint="--platform")
    known = _known(against) if against else {}

    async def work() -> list[dict[str, Any]]:
        found = []
        async for log, schema, verdict in _verdicts(
            tenant, platform, known, timedelta(seconds=overdue_after)
        ):
            found.append({"log": log, "schema": schema, "intact": verdict.wrong is None, **vars(verdict)})
        return found

    with err.status("Verifying"):
        found = run(work)
    show(found, as_json=as_json)
    broken = [row for row in found if not row["intact"]]
    for row in broken:
        where = f"{row['log']}, seal {row['seal']}" if row["seal"] is not None else row["log"]
        warn("Not as it was sealed", f"{where}: {row['wrong']}")
    if broken:
        raise typer.Exit(FAILED)


def _known(path: Path) -> dict[str, tuple[int, str]]:
    try:
        rows = json.loads(read_file(path, at_most=100_000_000))
        return {row["schema"]: (int(row["seals"]), str(row["head"])) for row in rows if row["seals"]}
    except (ValueError, KeyError, TypeError):
        fail("Not a result of `dermadetect audit verify --json`", str(path))


async def _verdicts(
    slug: str | None, platform: bool, known: dict[str, tuple[int, str]], overdue_after: timedelta
) -> "AsyncIterator[tuple[str, str, Verdict]]":
    from core.cells import HOME
    from tenants.audit.verification import verify
    from tenants.directory.service import find_tenant, list_tenants

    async with admin_database(settings()) as database:
        async with database.control() as session:
            tenants = [await find_tenant(session, slug)] if slug else await list_tenants(session)
        logs = {} if slug else {(HOME, "platform"): "control"}
        if not platform:
            logs |= {(t.cell, t.slug): t.scope.schema for t in tenants if t.schema_revision is not None}
        for cell in sorted({cell for cell, _ in logs}, key=lambda cell: (cell != HOME, cell)):
            async with database.connection(cell) as connection:
                await connection.execute("SET TimeZone = 'UTC'")
                for (_, log), schema in ((each, s) for each, s in logs.items() if each[0] == cell):
                    verdict = await verify(
                        connection, schema, overdue_after=overdue_after, known=known.get(schema)
                    )
                    yield log, schema, verdict
