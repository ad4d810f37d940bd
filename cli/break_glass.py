"""`dermadetect users break-glass`: an administrator for the day on which the identity provider does not answer."""

from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.output import Json, show, tell
from cli.run import run, settings
from cli.tenants import Slug

if TYPE_CHECKING:
    from core.database import Database
    from tenants.directory.models import Tenant


def break_glass(
    slug: Slug,
    name: Annotated[str, typer.Option(help="What they sign in as.")] = "administrator",
    prompt: Annotated[
        bool, typer.Option("--prompt", help="Ask for the password instead of making one.")
    ] = False,
    reset: Annotated[
        bool, typer.Option("--reset", help="A new password and code; lifts a lock, ends sessions.")
    ] = False,
    remove: Annotated[bool, typer.Option("--remove", help="Remove them, and end their sessions.")] = False,
    as_json: Json = False,
) -> None:
    """Make a local administrator, who signs in at /auth/local with a password and a one-time code.

    Password and code's secret are printed this once; seal them in an envelope. A tenant without one has no
    such page.

      dermadetect users break-glass acme
      dermadetect users break-glass acme --reset
    """
    from auth.local import administration
    from auth.local.credentials import new_password, totp_uri

    if reset and remove:
        raise typer.BadParameter("either --reset or --remove")
    password = None
    if not remove:
        password = (
            typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
            if prompt
            else new_password()
        )

    async def work() -> "tuple[Tenant, bytes]":
        from auth.keys.service import KeyRing
        from auth.people.service import end_sessions_of
        from gateway.assembly import master_keys, open_database
        from tenants.audit.service import operator
        from tenants.background.bells import ring
        from tenants.directory.cache import Directory
        from tenants.directory.service import find_tenant

        configured = settings()
        database: Database = open_database(configured)
        try:
            async with database.control() as control:
                tenant = await find_tenant(control, slug)
            user_id, secret = None, b""
            if password is None:
                async with database.tenant(tenant.scope) as session:
                    user_id = await administration.remove_administrator(session, name)
            else:
                async with aclosing(master_keys(configured, database.control)) as masters:
                    key = await KeyRing(database, masters, Directory(database)).data_key(tenant.scope)
                async with database.tenant(tenant.scope) as session:
                    if reset:
                        user_id, secret = await administration.reset_administrator(
                            session, key, name, password
                        )
                    else:
                        secret = await administration.create_administrator(session, key, name, password)
            if user_id is not None:
                await end_sessions_of(database, tenant.scope, user_id, operator(), "break-glass")
            await ring(database)
            return tenant, secret
        finally:
            await database.close()

    tenant, secret = run(work)
    url = f"{settings().origin_of(tenant.home_host)}/auth/local"
    if password is None:
        show({"name": name, "removed": True}, as_json=as_json)
        return
    shown: dict[str, Any] = {"name": name, "url": url}
    if not prompt:
        shown["password"] = password
    shown["otpauth"] = totp_uri(secret, name, tenant.name)
    show(shown, as_json=as_json, title=f"{tenant.name}: local administrator")
    tell("Keep them now: they are not shown again. Every use is recorded in the tenant's audit log.")
