"""`dermadetect quotas`: what a tenant may use."""

from typing import TYPE_CHECKING, Annotated

import typer

from cli.output import Json, show
from cli.run import in_control, in_tenant
from cli.tenants import Slug

if TYPE_CHECKING:
    from core.database import TenantSession

app = typer.Typer(no_args_is_help=True, help="Show and override what a tenant may use.")


@app.command("show")
def show_all(slug: Slug, as_json: Json = False) -> None:
    """Show every limit of a tenant, where it comes from, and this month's use.

    dermadetect quotas show acme
    """
    _show(slug, as_json)


@app.command("set")
def set_one(
    slug: Slug,
    metric: Annotated[str, typer.Argument(help="Such as requests, ai_calls, storage_bytes or seats.")],
    limit: Annotated[str, typer.Argument(help="A number, or `plan` to return to the plan's limit.")],
    as_json: Json = False,
) -> None:
    """Give one tenant a limit of its own, in force in every running gateway within a second.

    dermadetect quotas set acme requests 1000000
    dermadetect quotas set acme requests plan
    """
    from tenants.plans.service import set_quota

    if limit != "plan" and not (limit.isascii() and limit.isdigit()):
        raise typer.BadParameter(f"{limit!r} is neither a whole number nor `plan`", param_hint="LIMIT")
    number = None if limit == "plan" else int(limit)
    in_control(lambda session: set_quota(session, slug, metric, number))
    _show(slug, as_json)


def _show(slug: str, as_json: bool) -> None:
    from tenants.directory.service import find_tenant
    from tenants.plans import seats, service, storage

    tenant = in_control(lambda session: find_tenant(session, slug))

    async def inside(session: "TenantSession") -> tuple[int, int]:
        return await storage.used(session), await seats.used(session)

    # What is stored and who has a seat, the tenant's own schema knows; one that is still being made has none.
    stored, seated = in_tenant(slug, inside) if tenant.schema_revision else (None, None)
    quotas = in_control(lambda session: service.list_quotas(session, tenant, stored, seated))
    show([vars(quota) for quota in quotas], as_json=as_json)
