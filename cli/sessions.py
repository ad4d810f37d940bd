"""`dermadetect sessions`: who is signed in at a tenant."""

from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from cli.output import Json, show, tell
from cli.run import at_tenant, in_tenant
from cli.tenants import Slug

if TYPE_CHECKING:
    from core.database import Database, TenantScope

app = typer.Typer(no_args_is_help=True, help="People's sign-in sessions.")

User = Annotated[UUID, typer.Option("--user", help="The id of the person.")]


@app.command("list")
def list_all(slug: Slug, user: User, as_json: Json = False) -> None:
    """List the newest 200 sign-in sessions of a person that go on.

    dermadetect sessions list acme --user 0198c0de-0000-7000-8000-000000000001
    """
    from auth.sessions.service import list_sessions

    rows = in_tenant(slug, lambda session: list_sessions(session, user, after=None, limit=199))
    show([row._asdict() for row in rows], as_json=as_json)


@app.command()
def revoke(
    slug: Slug,
    user: User,
    session: Annotated[UUID | None, typer.Option(help="Only this one; all, if not given.")] = None,
) -> None:
    """End a person's sign-in sessions, in every process within a second.

    dermadetect sessions revoke acme --user 0198c0de-0000-7000-8000-000000000001
    """
    from auth.people.service import end_sessions_of, get_user
    from auth.sessions.service import end_one
    from tenants.audit.service import operator

    async def work(database: "Database", tenant: "TenantScope") -> int:
        if session is not None:
            return await end_one(database, tenant, user, session, operator())
        async with database.tenant(tenant) as opened:
            await get_user(opened, user)
        return await end_sessions_of(database, tenant, user, operator(), "by-administrator")

    tell(f"{at_tenant(slug, work)} ended.")
