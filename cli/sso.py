"""`dermadetect sso`: how a tenant's people sign in."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.output import Json, show, tell
from cli.run import in_control, read_file, settings
from cli.tenants import Slug

if TYPE_CHECKING:
    from auth.connections.models import Connection
    from auth.saml.models import SamlConnection
    from core.database import ControlSession
    from tenants.directory.models import Tenant

app = typer.Typer(no_args_is_help=True, help="Connect a tenant to its identity provider.")
saml = typer.Typer(no_args_is_help=True, help="SAML 2.0.")
app.add_typer(saml, name="saml")

Named = Annotated[str, typer.Option("--connection", help="Which of the tenant's connections.")]


@saml.command("set")
def set_connection(
    slug: Slug,
    metadata: Annotated[
        Path,
        typer.Option(exists=True, dir_okay=False, help="The identity provider's metadata, an XML file."),
    ],
    role: Annotated[
        list[str],
        typer.Option(help="GROUP=ROLE: what people of a group may do. Repeat for several."),
    ],
    connection: Named = "main",
    as_json: Json = False,
) -> None:
    """Connect a tenant to its SAML identity provider, or replace the connection.

    Everything the provider must know in return is printed. Roles: tenant_admin, coordinator, physician,
    referrer, patient, auditor.

      dermadetect sso saml set acme --metadata entra.xml --role derma-doctors=physician --role gps=referrer
    """
    from auth.saml import service
    from auth.saml.idp_metadata import MAX_BYTES, read_idp_metadata

    pairs = [each.rpartition("=") for each in role]
    if not all(group and name for group, _, name in pairs):
        raise typer.BadParameter("write GROUP=ROLE, such as derma-doctors=physician", param_hint="--role")

    async def work(session: "ControlSession") -> "Connection":
        idp = read_idp_metadata(read_file(metadata, at_most=MAX_BYTES))
        return await service.set_connection(
            session,
            slug,
            name=connection,
            idp_entity_id=idp.entity_id,
            sso_url=idp.sso_url,
            certificates=list(idp.certificates),
            role_mapping={group: name for group, _, name in pairs},
        )

    in_control(work)
    _show(slug, connection, as_json)


@saml.command("show")
def show_connection(slug: Slug, connection: Named = "main", as_json: Json = False) -> None:
    """Show what to tell the identity provider, and what is known of it.

    dermadetect sso saml show acme
    """
    _show(slug, connection, as_json)


def _show(slug: str, name: str, as_json: bool) -> None:
    from auth.saml.service import entity_id, find_saml, service_provider
    from tenants.directory.service import find_tenant

    async def work(session: "ControlSession") -> "tuple[Tenant, tuple[Connection, SamlConnection] | None]":
        tenant = await find_tenant(session, slug)
        return tenant, await find_saml(session, tenant, name)

    tenant, found = in_control(work)
    origin = settings().origin_of(tenant.home_host)
    ours = service_provider(origin, "", "")
    shown: dict[str, Any] = {
        "connection": name,
        "metadata_url": entity_id(origin),
        "entity_id": ours.entity_id,
        "acs_url": ours.acs_url,
        "idp_entity_id": found and found[1].idp_entity_id,
        "idp_sso_url": found and found[1].sso_url,
        "idp_certificates": len(found[1].certificates) if found else 0,
        "roles": found[0].role_mapping if found else {},
    }
    show(shown, as_json=as_json, title=f"{tenant.name}: SAML")
    if found is None:
        tell(
            f"No identity provider yet: dermadetect sso saml set {slug} --metadata IDP.xml --role GROUP=ROLE"
        )
