"""`dermadetect sso oidc`: a tenant's OpenID providers."""

import sys
from contextlib import aclosing
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.output import Json, show, tell
from cli.run import FAILED, at_tenant, fail, in_control, read_file, run, settings
from cli.sso_saml import Named, forget, named, roles_of
from cli.tenants import Slug
from cli.trying import DryRun, KeepSignIns, try_change

if TYPE_CHECKING:
    from auth.connections.models import Connection
    from auth.keys.service import DataKey
    from auth.oidc.models import OidcConnection
    from auth.oidc.settings import Check
    from core.database import ControlSession, Database, TenantScope
    from tenants.directory.models import Tenant

oidc = typer.Typer(no_args_is_help=True, help="OpenID Connect.")

MOST_SECRET = 4_000


class ClientAuth(StrEnum):
    """How we prove ourselves at the provider's token endpoint."""

    basic = "client_secret_basic"
    post = "client_secret_post"
    private_key_jwt = "private_key_jwt"
    none = "none"


class Audience(StrEnum):
    """Who signs in."""

    staff = "staff"
    patients = "patients"


class Provision(StrEnum):
    """Who becomes known at a first sign-in."""

    create = "create"
    invited = "invited"


@oidc.command("set")
def set_connection(
    slug: Slug,
    issuer: Annotated[
        str, typer.Option(help="The provider's issuer, to the letter: https://login.example/tenant.")
    ],
    client_id: Annotated[str, typer.Option(help="What the provider calls us.")],
    client_auth: Annotated[ClientAuth, typer.Option(help="How we prove ourselves to it.")] = ClientAuth.basic,
    secret_file: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="A file with the client secret; else it is asked for."
        ),
    ] = None,
    keep_secret: Annotated[
        bool, typer.Option("--keep-secret", help="Leave the client secret as it is.")
    ] = False,
    scope: Annotated[
        list[str] | None, typer.Option(help="What to ask for beside `openid`. Repeat for several.")
    ] = None,
    role: Annotated[
        list[str] | None,
        typer.Option(help="GROUP=ROLE: what people of a group may do. Repeat for several."),
    ] = None,
    default_role: Annotated[
        list[str] | None, typer.Option(help="What everybody may do who signs in. Repeat for several.")
    ] = None,
    email_domain: Annotated[
        list[str] | None, typer.Option(help="Whose addresses are sent here. Repeat for several.")
    ] = None,
    groups_claim: Annotated[
        str | None, typer.Option(help="What the provider calls the groups, or a path: realm_access.roles.")
    ] = None,
    email_claim: Annotated[str | None, typer.Option(help="What it calls the e-mail address.")] = None,
    name_claim: Annotated[str | None, typer.Option(help="What it calls the name that people read.")] = None,
    audience: Annotated[Audience | None, typer.Option(help="Who signs in by it.")] = None,
    provision: Annotated[
        Provision | None,
        typer.Option(help="Who becomes known at a first sign-in: anybody, or the invited."),
    ] = None,
    enable: Annotated[
        bool | None, typer.Option("--enable/--disable", help="Whether people can sign in by it.")
    ] = None,
    keep_sign_ins: KeepSignIns = None,
    connection: Named = "main",
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Connect a tenant to an OpenID provider, or change the connection: what is not named stays.

    The address to register at the provider is printed. The client secret is asked for, or
    read from standard input, or from a file. With private_key_jwt there is none: the tenant's
    token key signs, which the provider finds at the printed JWKS address.

      dermadetect sso oidc set acme --issuer https://login.acme.example --client-id derma --role doctors=physician
      dermadetect sso oidc set acme --connection patients --audience patients --default-role patient \\
        --issuer https://id.example --client-id derma --client-auth private_key_jwt
    """
    terms = named(
        role_mapping=roles_of(role),
        default_roles=default_role,
        email_domains=email_domain,
        groups_attribute=groups_claim,
        email_attribute=email_claim,
        name_attribute=name_claim,
        audience=audience and str(audience),
        provision=provision and str(provision),
        enabled=enable,
        scopes=scope,
        keep_sign_ins=keep_sign_ins,
    )
    wanted = client_auth in (ClientAuth.basic, ClientAuth.post) and not keep_secret
    secret = _secret(secret_file) if wanted else None

    data_key = _data_key(slug) if secret else None

    async def work(session: "ControlSession") -> "Connection":
        from auth.oidc.settings import set_connection as put

        return await put(
            session,
            slug,
            name=connection,
            issuer=issuer,
            client_id=client_id,
            client_auth=str(client_auth),
            secret=secret,
            data_key=data_key,
            **terms,
        )

    if dry_run:
        try_change(slug, connection, "oidc", work, as_json)
        return
    in_control(work)
    _show(slug, connection, as_json)


@oidc.command("show")
def show_connection(slug: Slug, connection: Named = "main", as_json: Json = False) -> None:
    """Show what to register at the provider, and what is known of it. The secret is not shown.

    dermadetect sso oidc show acme
    """
    _show(slug, connection, as_json)


@oidc.command("remove")
def remove_connection(slug: Slug, connection: Named = "main") -> None:
    """Forget a connection. Its people stay known here, and cannot sign in by it any more.

    dermadetect sso oidc remove acme --connection old
    """
    forget(slug, connection, "oidc")


@oidc.command("test")
def examine_connection(slug: Slug, connection: Named = "main", as_json: Json = False) -> None:
    """Ask the provider what a sign-in would ask, and tell by check what is wrong. Nobody signs in.

    Ends with exit code 1 if a sign-in would fail.

      dermadetect sso oidc test acme
    """
    _, found = _find(slug, connection)
    if found is None:
        fail("No such connection", f"`dermadetect sso list {slug}` shows those there are")

    async def work() -> "list[Check]":
        from auth.connections.fetching import Fetcher
        from auth.oidc.provider import Providers
        from auth.oidc.settings import examine

        return await examine(Providers(Fetcher(settings().sso_fetch_allow)), found[1])

    checks = run(work)
    words = {True: "ok", False: "wrong", None: "could be better"}
    show(
        [{"check": each.check, "result": words[each.ok], "says": each.says} for each in checks],
        as_json=as_json,
    )
    if any(each.ok is False for each in checks):
        raise typer.Exit(FAILED)


def _data_key(slug: str) -> "DataKey":
    async def work(database: "Database", scope: "TenantScope") -> "DataKey":
        from auth.keys.service import KeyRing
        from gateway.assembly import master_keys
        from tenants.directory.cache import Directory

        async with aclosing(master_keys(settings(), database.control)) as masters:
            return await KeyRing(database, masters, Directory(database)).data_key(scope)

    return at_tenant(slug, work)


def _secret(file: Path | None) -> str:
    if file is not None:
        secret = read_file(file, at_most=MOST_SECRET).decode().strip()
    elif sys.stdin.isatty():
        secret = typer.prompt("Client secret", hide_input=True, err=True).strip()
    else:
        secret = sys.stdin.readline(MOST_SECRET).strip()
    if not secret:
        fail("There is no client secret", "type it, send it to standard input, or name a --secret-file")
    return secret


def _find(slug: str, name: str) -> "tuple[Tenant, tuple[Connection, OidcConnection] | None]":
    async def work(
        session: "ControlSession",
    ) -> "tuple[Tenant, tuple[Connection, OidcConnection] | None]":
        from auth.oidc.settings import find_oidc
        from tenants.directory.service import find_tenant

        tenant = await find_tenant(session, slug)
        return tenant, await find_oidc(session, tenant, name)

    return in_control(work)


def _show(slug: str, name: str, as_json: bool) -> None:
    from auth.oidc.service import callback_url

    tenant, found = _find(slug, name)
    origin = settings().origin_of(tenant.home_host)
    shown: dict[str, Any] = {
        "connection": name,
        "redirect_uri": callback_url(origin, name),
        "backchannel_logout_uri": f"{origin}/auth/oidc/logout/{name}",
        "jwks_uri": f"{origin}/.well-known/jwks.json",
        **(_known(*found) if found else {"issuer": None}),
    }
    show(shown, as_json=as_json, title=f"{tenant.name}: OpenID Connect")
    if found is None:
        tell(f"No provider yet: dermadetect sso oidc set {slug} --issuer URL --client-id ID")


def _known(connection: "Connection", row: "OidcConnection") -> dict[str, Any]:
    return {
        "issuer": row.issuer,
        "client_id": row.client_id,
        "client_auth": row.client_auth,
        "scopes": row.scopes,
        "roles": connection.role_mapping,
        "default_roles": connection.default_roles,
        "email_domains": connection.email_domains,
        "groups_claim": connection.groups_attribute,
        "email_claim": connection.email_attribute,
        "name_claim": connection.name_attribute,
        "audience": connection.audience,
        "provision": connection.provision,
        "keep_sign_ins": connection.keep_sign_ins,
        "enabled": connection.enabled,
    }
