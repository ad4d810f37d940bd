"""`dermadetect migrate`: bring the shared tables and every tenant's schema to the newest revision."""

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from cli.output import Json, err, show, tell, warn
from cli.run import PARTLY_FAILED, admin_database, run, settings

if TYPE_CHECKING:
    from migrations.runner import Migrated, Pending


def migrate(
    plan: Annotated[bool, typer.Option("--plan", help="Show what would run, and change nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Bring the shared tables and every tenant's schema to the newest revision.

    Only what is behind is touched. A tenant that fails is reported and does not stop the others (exit code 3);
    running it again takes up what is left. New code may be started before or after: revisions expand first and
    contract in a later release.

      dermadetect migrate --plan
      dermadetect migrate
    """
    if plan:
        _show_plan(as_json)
        return
    done = run(_migrate)
    before, after = done.control
    shown: dict[str, Any] = {
        "control": {"from": before, "to": after},
        "migrated": done.tenants,
        "failed": done.failed,
    }
    show(shown, as_json=as_json, title="Migrated")
    if done.failed:
        for slug, reason in done.failed.items():
            warn(f"{slug} was not migrated", reason)
        tell("The other tenants are served; mend the cause and run `dermadetect migrate` again.")
        raise typer.Exit(PARTLY_FAILED)


async def _migrate() -> "Migrated":
    from gateway.assembly import database_url
    from migrations.runner import login_of, migrate

    login = login_of(database_url(settings()))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    async with admin_database(settings()) as database:
        with Progress(*columns, console=err, transient=True) as bar:
            task = bar.add_task("shared tables", total=None)

            def progress(slug: str, done: int, of: int) -> None:
                bar.update(task, description=slug, completed=done, total=of)

            return await migrate(database, login, progress)


def _show_plan(as_json: bool) -> None:
    from migrations.runner import pending

    async def work() -> "Pending":
        async with admin_database(settings()) as database:
            return await pending(database)

    found = run(work)
    shown: dict[str, Any] = {
        "control": {"from": found.control[0], "to": found.control[1]},
        "tenants": found.tenants,
        "head": found.head,
    }
    show(shown, as_json=as_json, title="To be migrated")
