"""`dermadetect sso`: how a tenant's people sign in."""

from typing import TYPE_CHECKING

import typer

from cli.attack_test import attack_test
from cli.output import Json, show
from cli.refusals import refusals
from cli.run import in_control
from cli.sso_oidc import oidc
from cli.sso_saml import saml
from cli.sso_test import look_at_connection
from cli.tenants import Slug

if TYPE_CHECKING:
    from collections.abc import Sequence

    from auth.connections.models import Connection
    from core.database import ControlSession

app = typer.Typer(no_args_is_help=True, help="Connect a tenant to its identity provider.")
saml.command("test")(look_at_connection)
app.add_typer(saml, name="saml")
app.add_typer(oidc, name="oidc")
app.command("attack-test")(attack_test)
app.command()(refusals)


@app.command("list")
def list_all(slug: Slug, as_json: Json = False) -> None:
    """List a tenant's connections to identity providers.

    dermadetect sso list acme
    """

    async def work(session: "ControlSession") -> "Sequence[Connection]":
        from auth.connections.settings import list_connections
        from tenants.directory.service import find_tenant

        return await list_connections(session, await find_tenant(session, slug))

    rows = [
        {
            "connection": each.name,
            "kind": each.kind,
            "audience": each.audience,
            "email_domains": each.email_domains,
            "roles": each.role_mapping,
            "default_roles": each.default_roles,
            "provision": each.provision,
            "enabled": each.enabled,
        }
        for each in in_control(work)
    ]
    show(rows, as_json=as_json)
