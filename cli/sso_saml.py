"""`dermadetect sso saml`: a tenant's SAML identity provider."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.output import Json, show, tell, warn
from cli.run import in_control, read_file, run, settings
from cli.tenants import Slug
from cli.trying import DryRun, KeepSignIns, try_change

if TYPE_CHECKING:
    from auth.connections.models import Connection
    from auth.saml.idp_metadata import IdpMetadata
    from auth.saml.models import SamlConnection
    from core.database import ControlSession
    from tenants.directory.models import Tenant

saml = typer.Typer(no_args_is_help=True, help="SAML 2.0.")

Named = Annotated[str, typer.Option("--connection", help="Which of the tenant's connections.")]

_SOAP = "http://schemas.xmlsoap.org/ws/2005/05/identity/claims"
_MICROSOFT = "http://schemas.microsoft.com"
# What providers call e-mail address, name and groups unless told otherwise.
PRESETS = {
    "entra": (
        f"{_SOAP}/emailaddress",
        f"{_MICROSOFT}/identity/claims/displayname",
        f"{_MICROSOFT}/ws/2008/06/identity/claims/groups",
    ),
    "adfs": (f"{_SOAP}/emailaddress", f"{_SOAP}/name", "http://schemas.xmlsoap.org/claims/Group"),
    "okta": ("email", "displayName", "groups"),
    "google": ("email", "displayName", "groups"),
    "keycloak": ("email", "name", "Role"),
}


@saml.command("set")
def set_connection(
    slug: Slug,
    metadata: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="The identity provider's metadata, an XML file."),
    ] = None,
    metadata_url: Annotated[
        str | None, typer.Option(help="Where the provider publishes it; the worker reads it again daily.")
    ] = None,
    metadata_signer: Annotated[
        list[Path] | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="Who must have signed the metadata: a certificate, PEM. Repeat for several.",
        ),
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
    preset: Annotated[
        str | None,
        typer.Option(help=f"Attribute names as these providers have them: {', '.join(PRESETS)}."),
    ] = None,
    email_attribute: Annotated[
        str | None, typer.Option(help="What the provider calls the e-mail address.")
    ] = None,
    name_attribute: Annotated[
        str | None, typer.Option(help="What it calls the name that people read.")
    ] = None,
    groups_attribute: Annotated[str | None, typer.Option(help="What it calls the groups.")] = None,
    provision: Annotated[
        str | None,
        typer.Option(help="Who becomes known at a first sign-in: `create` anybody, `invited` the invited."),
    ] = None,
    require_encryption: Annotated[
        bool | None, typer.Option(help="Refuse assertions that are not encrypted.")
    ] = None,
    allow_cbc: Annotated[
        bool | None, typer.Option(help="Admit assertions encrypted with AES-CBC besides AES-GCM.")
    ] = None,
    refuse_expired_certificates: Annotated[
        bool | None, typer.Option(help="Refuse what a certificate past its date signed.")
    ] = None,
    allow_idp_initiated: Annotated[
        bool | None, typer.Option(help="Let sign-ins begin at the identity provider.")
    ] = None,
    start_url: Annotated[
        str | None, typer.Option(help="The client app's page that starts its sign-in, for those.")
    ] = None,
    keep_sign_ins: KeepSignIns = None,
    connection: Named = "main",
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Connect a tenant to its SAML identity provider, or change the connection: what is not named stays.

    Everything the provider must know in return is printed. Roles: tenant_admin, coordinator, physician,
    referrer, patient, auditor.

      dermadetect sso saml set acme --metadata entra.xml --preset entra --role 6f1c…=physician
      dermadetect sso saml set acme --metadata-url https://idp.acme.example/metadata --role gps=referrer
      dermadetect sso saml set acme --require-encryption
      dermadetect sso saml set acme --metadata new.xml --dry-run
    """
    if metadata and metadata_url:
        raise typer.BadParameter("give --metadata or --metadata-url, not both")
    if metadata_signer and not metadata_url:
        raise typer.BadParameter("is for --metadata-url", param_hint="--metadata-signer")
    common: dict[str, Any] = {
        "role_mapping": roles_of(role),
        "default_roles": default_role,
        "email_domains": email_domain,
        "provision": provision,
        "keep_sign_ins": keep_sign_ins,
    }
    common |= _attributes(preset, email_attribute, name_attribute, groups_attribute)
    particulars = named(
        require_encryption=require_encryption,
        allow_cbc=allow_cbc,
        refuse_expired_certificates=refuse_expired_certificates,
        allow_idp_initiated=allow_idp_initiated,
        start_url=start_url,
    )
    idp = None
    if metadata or metadata_url:
        signers = [read_file(path, at_most=100_000).decode() for path in metadata_signer or ()]
        idp, published = _metadata(metadata, metadata_url, signers)
        particulars |= published

    async def work(session: "ControlSession") -> "Connection":
        from auth.saml import settings as saml_settings

        if idp is None:
            return await saml_settings.change_connection(
                session, slug, connection, common=common, particulars=particulars
            )
        return await saml_settings.set_connection(
            session,
            slug,
            name=connection,
            idp_entity_id=idp.entity_id,
            sso_url=idp.sso_url,
            certificates=list(idp.certificates),
            common=common,
            **particulars,
        )

    if dry_run:
        try_change(slug, connection, "saml", work, as_json)
        return
    in_control(work)
    _show(slug, connection, as_json)


@saml.command("show")
def show_connection(slug: Slug, connection: Named = "main", as_json: Json = False) -> None:
    """Show what to tell the identity provider, what is known of it, and what is about to be wrong.

    dermadetect sso saml show acme
    """
    _show(slug, connection, as_json)


@saml.command("remove")
def remove_connection(slug: Slug, connection: Named = "main") -> None:
    """Forget a connection. Its people stay known here, and cannot sign in by it any more.

    dermadetect sso saml remove acme --connection old
    """

    forget(slug, connection, "saml")


def forget(slug: str, connection: str, kind: str) -> None:
    """Remove a connection of this kind, and tell whether there was one."""

    async def work(session: "ControlSession") -> bool:
        from auth.connections.settings import find_connection, remove_connection
        from tenants.directory.service import find_tenant

        tenant = await find_tenant(session, slug, lock=True)
        found = await find_connection(session, tenant, connection, kind)
        if found is not None:
            await remove_connection(session, tenant, found)
        return found is not None

    tell("It is removed." if in_control(work) else "There is no such connection; nothing was changed.")


def roles_of(pairs: list[str] | None) -> dict[str, str] | None:
    if not pairs:
        return None
    parts = [each.rpartition("=") for each in pairs]
    if not all(group and name for group, _, name in parts):
        raise typer.BadParameter("write GROUP=ROLE, such as derma-doctors=physician", param_hint="--role")
    return {group: name for group, _, name in parts}


def _attributes(preset: str | None, *named: str | None) -> dict[str, str | None]:
    if preset is not None and preset not in PRESETS:
        raise typer.BadParameter(f"choose one of {', '.join(PRESETS)}", param_hint="--preset")
    usual = PRESETS[preset] if preset else (None, None, None)
    columns = ("email_attribute", "name_attribute", "groups_attribute")
    return {column: name or preset for column, name, preset in zip(columns, named, usual, strict=True)}


def named(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _metadata(file: Path | None, url: str | None, signers: list[str]) -> "tuple[IdpMetadata, dict[str, Any]]":
    """What the provider says, and the columns that tell where it was read."""
    from auth.connections.fetching import Fetcher
    from auth.saml.idp_metadata import MAX_BYTES, read_idp_metadata
    from auth.saml.refresh import due_at
    from core.clock import utcnow

    async def work() -> "tuple[IdpMetadata, dict[str, Any]]":
        if url:
            xml = await Fetcher(settings().sso_fetch_allow).fetch(url, at_most=MAX_BYTES)
        else:
            assert file is not None
            xml = read_file(file, at_most=MAX_BYTES)
        idp = read_idp_metadata(xml, signers)
        return idp, {
            "logout_url": idp.logout_url,
            "logout_response_url": idp.logout_response_url,
            "metadata_url": url,
            "metadata_signers": signers,
            "metadata_read_at": utcnow() if url else None,
            "metadata_due_at": due_at(idp) if url else None,
            "metadata_failure": None,
        }

    return run(work)


def _show(slug: str, name: str, as_json: bool) -> None:
    from auth.saml.service import service_provider
    from auth.saml.settings import find_saml
    from tenants.directory.service import find_tenant

    async def work(session: "ControlSession") -> "tuple[Tenant, tuple[Connection, SamlConnection] | None]":
        tenant = await find_tenant(session, slug)
        return tenant, await find_saml(session, tenant, name)

    tenant, found = in_control(work)
    ours = service_provider(settings().origin_of(tenant.home_host), "", "")
    shown = {
        "connection": name,
        "metadata_url": ours.entity_id,
        "entity_id": ours.entity_id,
        "acs_url": ours.acs_url,
        "logout_url": ours.logout_url,
        **(_known(*found) if found else {"idp_entity_id": None}),
    }
    show(shown, as_json=as_json, title=f"{tenant.name}: SAML")
    if found is None:
        tell(
            f"No identity provider yet: dermadetect sso saml set {slug} --metadata IDP.xml --role GROUP=ROLE"
        )
        return
    from auth.saml.refresh import warnings_of

    for warning in warnings_of(found[1]):
        warn("The identity provider", warning)


def _known(connection: "Connection", row: "SamlConnection") -> dict[str, Any]:
    from auth.saml.validation import certificate_expires

    return {
        "idp_entity_id": row.idp_entity_id,
        "idp_sso_url": row.sso_url,
        "idp_logout_url": row.logout_url,
        "idp_certificates": len(row.certificates),
        "idp_certificates_end": [f"{certificate_expires(each):%Y-%m-%d}" for each in row.certificates],
        "idp_metadata_url": row.metadata_url,
        "idp_metadata_signed": bool(row.metadata_signers),
        "idp_metadata_read_at": row.metadata_read_at,
        "idp_metadata_failure": row.metadata_failure,
        "roles": connection.role_mapping,
        "default_roles": connection.default_roles,
        "email_domains": connection.email_domains,
        "email_attribute": connection.email_attribute,
        "name_attribute": connection.name_attribute,
        "groups_attribute": connection.groups_attribute,
        "provision": connection.provision,
        "keep_sign_ins": connection.keep_sign_ins,
        "require_encryption": row.require_encryption,
        "allow_cbc": row.allow_cbc,
        "refuse_expired_certificates": row.refuse_expired_certificates,
        "allow_idp_initiated": row.allow_idp_initiated,
        "start_url": row.start_url,
    }
