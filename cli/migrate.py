"""`dermadetect migrate`: bring the shared tables and every tenant's schema to the newest revision."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from cli.output import Json, err, show, tell, warn
from cli.run import PARTLY_FAILED, STOPPED, admin_database, fail, in_control, run, settings

if TYPE_CHECKING:
    from migrations.fleet import Migrated, Pace, Pending

app = typer.Typer(invoke_without_command=True, subcommand_metavar="[pause|resume|status|retry]")

_WHY_STOPPED = {
    "paused": "migrations are paused; `dermadetect migrate resume` ends that",
    "canary": "a canary did not reach the newest revision",
    "failures": "as many tenants have failed as --max-failures allows",
    "waves": "all waves that were asked for are done",
}


@app.callback()
def migrate(
    context: typer.Context,
    plan: Annotated[bool, typer.Option("--plan", help="Show what would run, and change nothing.")] = False,
    workers: Annotated[int, typer.Option(min=1, max=64, help="How many connections work at once.")] = 4,
    lock_timeout: Annotated[
        float, typer.Option(min=0.01, help="Seconds to wait for a table that somebody else has locked.")
    ] = 3.0,
    canary: Annotated[
        list[str] | None,
        typer.Option(
            help="A tenant to migrate first; unless it succeeds no other is touched. May be repeated."
        ),
    ] = None,
    wave_size: Annotated[
        int | None, typer.Option(min=1, help="Tenants in a wave; all, if not given.")
    ] = None,
    waves: Annotated[int | None, typer.Option(min=1, help="Stop after so many waves.")] = None,
    max_failures: Annotated[int | None, typer.Option(min=1, help="Stop once so many tenants failed.")] = None,
    as_json: Json = False,
) -> None:
    """Bring the shared tables and every tenant's schema to the newest revision.

    Only what is behind is touched. A tenant that fails is set aside, in quarantine, and the others go on; running
    it again takes up what is left. It may run several times at once. New code may be started before or after:
    revisions expand first and contract in a later release.

      dermadetect migrate --plan
      dermadetect migrate --canary acme --wave-size 100 --max-failures 5

    Exit codes: 0 all are at the newest revision · 3 all but those in quarantine · 5 stopped before the end.
    """
    if context.invoked_subcommand:
        return
    if plan:
        _show_plan(as_json)
        return
    from migrations.fleet import Pace

    pace = Pace(
        workers=workers,
        lock_timeout_ms=round(1000 * lock_timeout),
        canaries=tuple(canary or ()),
        wave_size=wave_size,
        waves=waves,
        max_failures=max_failures,
    )
    done = run(lambda: _migrate(pace, quiet=as_json))
    shown: dict[str, Any] = {
        "control": {"from": done.control[0], "to": done.control[1]},
        "migrated": done.tenants,
        "quarantined": done.quarantined,
        "left": done.left,
        "stopped": done.stopped,
    }
    show(shown, as_json=as_json, title="Migrated")
    _judge(done)


def _judge(done: "Migrated") -> None:
    """Say what is not at the newest revision, and why, and end with the code that tells."""
    for slug, reason in done.quarantined.items():
        warn(f"{slug} is in quarantine", reason)
    if done.quarantined:
        tell(
            "The tenants in quarantine are served as before. Mend the cause, then `dermadetect migrate retry` "
            "and `dermadetect migrate` (docs/operations.md)."
        )
    if done.stopped:
        fail(
            "Stopped before the end",
            f"{_WHY_STOPPED[done.stopped]}; {len(done.left)} tenants are left",
            STOPPED,
        )
    for slug, revision in done.left.items():
        warn(f"{slug} was not touched", f"its revision {revision} is not of this release")
    if done.quarantined or done.left:
        raise typer.Exit(PARTLY_FAILED)


async def _migrate(pace: "Pace", *, quiet: bool) -> "Migrated":
    from gateway.assembly import database_url
    from migrations.fleet import migrate
    from migrations.rendering import UnknownRevision
    from migrations.runner import login_of

    login = login_of(database_url(settings()))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    async with admin_database(settings()) as database:
        with Progress(*columns, console=err, transient=True, disable=quiet) as bar:
            task = bar.add_task("shared tables", total=None)

            def progress(slug: str, done: int, of: int) -> None:
                bar.update(task, description=slug, completed=done, total=of)

            try:
                return await migrate(database, login, pace=pace, progress=progress)
            except UnknownRevision as error:
                fail("The shared tables are a newer release's", str(error))


def _show_plan(as_json: bool) -> None:
    from migrations.fleet import pending

    async def work() -> "Pending":
        async with admin_database(settings()) as database:
            return await pending(database)

    found = run(work)
    shown: dict[str, Any] = {
        "control": {"from": found.control[0], "to": found.control[1]},
        "revisions": [
            f"{each.id} {each.title}" + (" (in Python)" if each.in_python else "") for each in found.revisions
        ],
        "tenants": found.tenants,
        "quarantined": found.quarantined,
    }
    show(shown, as_json=as_json, title="To be migrated")


@app.command()
def status(as_json: Json = False) -> None:
    """Show how far the fleet has come: who is behind or in quarantine, who works on it, and whether it is paused.

    dermadetect migrate status
    """
    from migrations import ledger
    from migrations.rendering import head

    found = in_control(lambda session: ledger.status(session, head("tenant")))
    show(asdict(found), as_json=as_json, title="Tenants' schemas")


@app.command()
def pause(
    reason: Annotated[str, typer.Option(help="Why; shown by `dermadetect migrate status`.")],
    as_json: Json = False,
) -> None:
    """Let no further tenant be migrated, by any running or later `migrate`, until `resume`.

    What a running one has begun is finished within a second, or when its statement ends; then it stops with exit
    code 5. The shared tables are not concerned.

      dermadetect migrate pause --reason "clinics open at eight"
    """
    from migrations import ledger

    in_control(lambda session: ledger.pause(session, reason))
    show({"paused": reason}, as_json=as_json)


@app.command()
def resume(as_json: Json = False) -> None:
    """End a pause; `dermadetect migrate` then takes up what is left.

    dermadetect migrate resume && dermadetect migrate
    """
    from migrations import ledger

    in_control(ledger.resume)
    show({"paused": None}, as_json=as_json)


@app.command()
def retry(
    slugs: Annotated[list[str] | None, typer.Argument(metavar="SLUG", help="All, if none is named.")] = None,
    as_json: Json = False,
) -> None:
    """Let tenants out of quarantine, once what made them fail is mended; `dermadetect migrate` then takes them up.

    dermadetect migrate retry acme && dermadetect migrate
    """
    from migrations import ledger

    show({"released": in_control(lambda session: ledger.retry(session, slugs or []))}, as_json=as_json)
