"""`dermadetect tenants rename`, `move`, `close`, `reopen`, `purge` and `certificate`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.output import Json, err, show, tell
from cli.run import admin_database, in_control, read_file, run, settings, span
from cli.tenants import Slug, shown

if TYPE_CHECKING:
    from core.database import ControlSession
    from tenants.directory.models import Tenant


def rename(
    slug: Slug,
    new: Annotated[str, typer.Argument(help="The new first label of the tenant's host; never reused.")],
    as_json: Json = False,
) -> None:
    """Give a tenant another slug, in force in every running gateway within a second.

    The hosts it had go on answering. Signing in stays at the first one, so the
    identity provider need not be told.

      dermadetect tenants rename acme acme-health
    """
    from tenants.directory import service

    base = settings().base_domain
    tenant = in_control(lambda session: service.rename(session, slug, new, base))
    show(shown(tenant), as_json=as_json, title=tenant.name)


def move(
    slug: Slug,
    to_cell: Annotated[
        str | None, typer.Option(help="Where to: a name in DERMADETECT_CELLS, or `default`.")
    ] = None,
    to_node: Annotated[
        str | None, typer.Option(help="Where to within the cell's Citus cluster: HOST:PORT of a node.")
    ] = None,
    rollback: Annotated[
        bool, typer.Option("--rollback", help="Give up a move that has not switched yet.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Move a tenant's schema and photographs to another cell, and delete them where they were.

    While rows are copied its requests are answered 503. Rows and photographs are
    compared by hash before the switch. Running it again finishes what was
    interrupted; --rollback serves the tenant where it was.

    With --to-node only the schema moves, within the Citus cluster that it is in,
    and the tenant is served all the time.

      dermadetect tenants move acme --to-cell eu-2
      dermadetect tenants move acme --to-node worker-2:5432
      dermadetect tenants move acme --rollback
    """
    if [to_cell is not None, to_node is not None, rollback].count(True) != 1:
        raise typer.BadParameter("name one of --to-cell, --to-node and --rollback")
    from gateway.assembly import blob_stores
    from gateway.lifecycle import move_tenant
    from tenants.moving.nodes import move_to_node
    from tenants.moving.service import roll_back

    configured = settings()

    async def work() -> "Tenant":
        stores = blob_stores(configured)
        try:
            async with admin_database(configured) as database:
                with err.status(f"Moving {slug}"):
                    if to_node is not None:
                        return await move_to_node(database, slug, to_node)
                    if to_cell is None:
                        return await roll_back(
                            database, stores, slug, progress=lambda step: tell(f"✓ {step}")
                        )
                    return await move_tenant(
                        configured, database, stores, slug, to_cell, progress=lambda step: tell(f"✓ {step}")
                    )
        finally:
            await stores.close()

    tenant = run(work)
    show(shown(tenant), as_json=as_json, title=tenant.name)


def close(
    slug: Slug,
    reason: Annotated[str, typer.Option(help="Why; kept in the audit log and in the deletion certificate.")],
    grace: Annotated[str, typer.Option(help="How long the data stays at least: days or hours.")] = "30d",
    as_json: Json = False,
) -> None:
    """Stop serving a tenant for good, in every running gateway within a second. Its data stays for the grace period.

    dermadetect tenants close acme --reason "contract ended" --grace 30d
    """
    from tenants.lifecycle import service

    wait = span(grace, "--grace")
    tenant = in_control(lambda session: service.close(session, slug, reason, wait))
    show(shown(tenant), as_json=as_json, title=tenant.name)
    tell(
        f"Next: dermadetect tenants purge {slug} --confirm {tenant.slug}, from {tenant.purge_after:%Y-%m-%d %H:%M} UTC on"
    )


def reopen(slug: Slug, as_json: Json = False) -> None:
    """Serve a closing tenant again, as long as nothing of it is purged.

    dermadetect tenants reopen acme
    """
    from tenants.lifecycle import service

    tenant = in_control(lambda session: service.reopen(session, slug))
    show(shown(tenant), as_json=as_json, title=tenant.name)


def purge(
    slug: Slug,
    confirm: Annotated[
        str, typer.Option(help="The tenant's slug once more: nothing brings it back but an export.")
    ],
    now: Annotated[bool, typer.Option("--now", help="Do not wait for the end of the grace period.")] = False,
    certificate: Annotated[
        Path | None, typer.Option(help="Write the signed certificate to this file too.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Destroy a closing tenant's data: role, schema, photographs and keys. A signed certificate remains.

    Running it again finishes what was interrupted.

      dermadetect tenants purge acme --confirm acme --certificate acme.jws
    """
    from gateway.assembly import blob_stores
    from gateway.lifecycle import purge_tenant
    from tenants.directory.service import find_tenant

    configured = settings()

    async def work() -> str:
        stores = blob_stores(configured)
        try:
            async with admin_database(configured) as database:
                async with database.control() as session:
                    if (await find_tenant(session, slug)).slug != confirm:
                        raise typer.BadParameter("it is not the tenant's slug", param_hint="--confirm")
                with err.status(f"Purging {slug}"):
                    return await purge_tenant(
                        configured, database, stores, slug, now=now, progress=lambda step: tell(f"✓ {step}")
                    )
        finally:
            await stores.close()

    signed = run(work)
    if certificate:
        certificate.write_text(signed + "\n")
    _show(slug, signed, as_json)


def certificate(
    slug: Slug,
    verify: Annotated[
        Path | None, typer.Option(help="Check the certificate in this file instead of the one we keep.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what the platform signed about a purged tenant's data; fails unless the signature holds.

    dermadetect tenants certificate acme
    dermadetect tenants certificate acme --verify acme.jws
    """
    from tenants.lifecycle import service

    if verify:
        signed = read_file(verify, at_most=1_000_000).decode("utf-8", "replace").strip()
    else:
        signed = in_control(lambda session: service.certificate(session, slug))
    _show(slug, signed, as_json)


def _show(slug: str, signed: str, as_json: bool) -> None:
    from auth.keys import platform
    from tenants.directory.service import find_tenant
    from tenants.lifecycle.errors import NoCertificate
    from tenants.lifecycle.purge import CERTIFICATE_TYPE

    async def work(session: "ControlSession") -> dict[str, Any]:
        told = await platform.verify(session, signed, CERTIFICATE_TYPE)
        if told["tenant"]["key"] != (await find_tenant(session, slug)).key:
            raise NoCertificate(f"It is about {told['tenant']['slug']}, not about {slug}.")
        return told

    show(in_control(work) | {"signed": signed}, as_json=as_json)
