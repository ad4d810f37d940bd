"""`dermadetect clients`: the apps that may sign people in at a tenant."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.output import Json, show
from cli.run import in_tenant
from cli.tenants import Slug

if TYPE_CHECKING:
    from auth.oauth.models import OAuthClient

app = typer.Typer(no_args_is_help=True, help="Register client apps of a tenant, and list them.")


@app.command()
def add(
    slug: Slug,
    client_id: Annotated[str, typer.Argument(help="2 to 63 lowercase letters, digits and hyphens.")],
    name: Annotated[str, typer.Option(help="What people know the app by.")],
    redirect_uri: Annotated[
        list[str], typer.Option(help="Where codes may be sent, compared to the letter. Repeat for several.")
    ],
    as_json: Json = False,
) -> None:
    """Register a client app, or replace the name and redirect URIs of one.

    dermadetect clients add acme nurse-tablet --name "Nurse tablet" --redirect-uri https://tablet.acme.example/cb
    """
    from auth.oauth.service import register_client

    client = in_tenant(slug, lambda session: register_client(session, client_id, name, redirect_uri))
    show(_row(client), as_json=as_json)


@app.command("list")
def list_all(slug: Slug, as_json: Json = False) -> None:
    """List the client apps of a tenant.

    dermadetect clients list acme
    """
    from auth.oauth.service import list_clients

    show([_row(each) for each in in_tenant(slug, list_clients)], as_json=as_json)


def _row(client: "OAuthClient") -> dict[str, Any]:
    return {"client_id": client.client_id, "name": client.name, "redirect_uris": client.redirect_uris}
