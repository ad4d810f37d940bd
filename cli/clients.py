"""`dermadetect clients`: the apps that may sign people in at a tenant, and the machines that sign in by themselves."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.output import Json, show, tell
from cli.run import at_tenant, in_tenant
from cli.tenants import Slug

if TYPE_CHECKING:
    from collections.abc import Sequence

    from auth.oauth.models import ClientSecret, OAuthClient
    from core.database import TenantSession

app = typer.Typer(no_args_is_help=True, help="Client apps and machine clients of a tenant.")

ClientId = Annotated[str, typer.Argument(help="2 to 63 lowercase letters, digits and hyphens.")]


@app.command()
def add(
    slug: Slug,
    client_id: ClientId,
    name: Annotated[str, typer.Option(help="What people know it by.")],
    redirect_uri: Annotated[
        list[str] | None,
        typer.Option(help="For an app: where codes may be sent, compared to the letter. Repeat for several."),
    ] = None,
    refresh: Annotated[bool, typer.Option("--refresh", help="For an app: it gets refresh tokens.")] = False,
    scope: Annotated[
        list[str] | None, typer.Option(help="For a machine: what it may do. Repeat for several.")
    ] = None,
    for_patients: Annotated[
        bool, typer.Option("--for-patients", help="For a machine: it may act on behalf of patients.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Register a client app or a machine client, or replace what is known of one.

    An app has redirect URIs and no secret. A machine has scopes and a secret, which is shown this once.

      dermadetect clients add acme nurse-tablet --name "Nurse tablet" --redirect-uri https://tablet.acme.example/cb
      dermadetect clients add acme records --name "Patient records" --scope cases:create --scope cases:read
    """
    from auth.oauth.clients import register_machine
    from auth.oauth.service import register_client

    if bool(redirect_uri) == bool(scope) or (for_patients and not scope) or (refresh and not redirect_uri):
        raise typer.BadParameter(
            "give --redirect-uri (and --refresh) for an app, or --scope (and --for-patients) for a machine"
        )

    async def work(session: "TenantSession") -> "tuple[OAuthClient, str | None]":
        if scope:
            return await register_machine(session, client_id, name, scope, for_patients=for_patients)
        return await register_client(session, client_id, name, redirect_uri or [], refresh=refresh), None

    client, secret = in_tenant(slug, work)
    _show_with_secret(_row(client), secret, as_json)


@app.command("list")
def list_all(slug: Slug, as_json: Json = False) -> None:
    """List the clients of a tenant.

    dermadetect clients list acme
    """
    from auth.oauth.service import list_clients

    show([_row(each) for each in in_tenant(slug, list_clients)], as_json=as_json)


@app.command("show")
def show_one(slug: Slug, client_id: ClientId, as_json: Json = False) -> None:
    """Show a client, and of a machine since when it has its secrets and when each was last used.

    dermadetect clients show acme records
    """
    from auth.oauth.clients import get_client, list_secrets

    async def work(session: "TenantSession") -> "tuple[OAuthClient, Sequence[ClientSecret]]":
        client = await get_client(session, client_id)
        return client, await list_secrets(session, client)

    client, kept = in_tenant(slug, work)
    secrets = [
        {"since": each.created_at.isoformat(), "last_used_at": each.last_used_at and str(each.last_used_at)}
        for each in kept
    ]
    show(_row(client) | {"secrets": secrets}, as_json=as_json)


@app.command()
def rotate(
    slug: Slug,
    client_id: ClientId,
    at_once: Annotated[
        bool, typer.Option("--at-once", help="The secret before, and all its tokens, end now.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Give a machine another secret, shown this once. The one before holds until the next rotation.

    dermadetect clients rotate acme records
    """
    from auth.oauth import clients

    secret = at_tenant(
        slug, lambda database, tenant: clients.rotate(database, tenant, client_id, at_once=at_once)
    )
    _show_with_secret({"client_id": client_id}, secret, as_json)


@app.command()
def disable(slug: Slug, client_id: ClientId) -> None:
    """Refuse a client, its secrets, its people's sign-ins and all tokens, in every process within a second.

    dermadetect clients disable acme records
    """
    from auth.oauth import clients

    at_tenant(slug, lambda database, tenant: clients.disable(database, tenant, client_id))
    tell(f"{client_id} is refused; `dermadetect clients enable {slug} {client_id}` admits it again.")


@app.command()
def enable(slug: Slug, client_id: ClientId, as_json: Json = False) -> None:
    """Admit a disabled client again; a machine gets a new secret, shown this once.

    dermadetect clients enable acme records
    """
    from auth.oauth import clients

    secret = at_tenant(slug, lambda database, tenant: clients.enable(database, tenant, client_id))
    _show_with_secret({"client_id": client_id}, secret, as_json)


@app.command()
def remove(slug: Slug, client_id: ClientId) -> None:
    """Disable a client and forget it. What it has made stays.

    dermadetect clients remove acme records
    """
    from auth.oauth import clients

    at_tenant(slug, lambda database, tenant: clients.remove(database, tenant, client_id))
    tell(f"{client_id} is forgotten.")


def _row(client: "OAuthClient") -> dict[str, Any]:
    columns = (
        "client_id",
        "name",
        "kind",
        "redirect_uris",
        "refresh",
        "scopes",
        "for_patients",
        "disabled_at",
    )
    return {column: getattr(client, column) for column in columns}


def _show_with_secret(row: dict[str, Any], secret: str | None, as_json: bool) -> None:
    show(row | ({"client_secret": secret} if secret else {}), as_json=as_json)
    if secret:
        tell("Keep the secret now: only its hash is stored.")
