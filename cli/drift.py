"""`dermadetect tenants drift`: whether tenants' schemas are what the migrations make."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from cli.output import Json, err, show, tell
from cli.run import FAILED, admin_database, run, settings

if TYPE_CHECKING:
    from migrations.drift import Drift


def drift(
    tenant: Annotated[str | None, typer.Option(help="Look at this one only, by its slug.")] = None,
    as_json: Json = False,
) -> None:
    """Compare every tenant's schema with what the migrations make, and name what differs.

    Tables, columns, indexes, constraints, triggers, functions, types, owners, rights and row security are compared;
    nothing is changed. A tenant that is behind is compared with what its revision makes. Exit code 1 when something
    differs.

      dermadetect tenants drift
      dermadetect tenants drift --tenant acme --json
    """

    async def work() -> "Drift":
        from migrations.drift import find_drift

        with err.status("Comparing schemas"):
            async with admin_database(settings()) as database:
                return await find_drift(database, tenant)

    found = run(work)
    if as_json:
        show(asdict(found), as_json=True)
    elif found.differences:
        show([asdict(each) for each in found.differences], as_json=False)
    for slug, revision in found.behind.items():
        tell(f"{slug} is behind, at revision {revision}; `dermadetect migrate` brings it to the newest.")
    tell(f"{found.checked} schemas compared, {len(found.differences)} differences.")
    if found.differences:
        raise typer.Exit(FAILED)
