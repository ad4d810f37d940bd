"""`dermadetect users`: the people of a tenant."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, TypeVar
from uuid import UUID

import typer

from cli.output import Json, show, tell
from cli.run import at_tenant, fail, in_tenant, settings
from cli.tenants import Slug

if TYPE_CHECKING:
    from auth.invitations.service import Wish
    from auth.people.models import User
    from core.database import Database, TenantScope, TenantSession

app = typer.Typer(no_args_is_help=True, help="Look after the people of a tenant.")

T = TypeVar("T")

Who = Annotated[str, typer.Argument(help="A user's id, or the e-mail address of one alone.")]


@app.command("list")
def list_all(
    slug: Slug,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 200,
    as_json: Json = False,
) -> None:
    """List a tenant's people, newest first.

    dermadetect users list acme
    """
    from auth.people.service import list_users

    rows = in_tenant(slug, lambda session: list_users(session, after=None, limit=limit - 1))
    show([_row(each) for each in rows], as_json=as_json)


@app.command("show")
def show_one(slug: Slug, who: Who, as_json: Json = False) -> None:
    """Show one of the people.

    dermadetect users show acme dana@acme.example
    """
    show(_row(in_tenant(slug, lambda session: _find(session, who))), as_json=as_json)


@app.command()
def invite(
    slug: Slug,
    email: Annotated[str, typer.Argument(help="The address that the identity provider vouches for.")],
    role: Annotated[list[str], typer.Option(help="What they may do. Repeat for several.")],
    name: Annotated[str | None, typer.Option(help="What people know them by.")] = None,
    anybody: Annotated[
        bool, typer.Option("--anybody", help="Whoever signs in by the URL, whatever their address.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Invite somebody, or anew who has not come yet. The URL is printed this once; no mail is sent.

    dermadetect users invite acme dana@acme.example --role physician
    """
    from auth.invitations import service
    from tenants.directory.service import find_tenant

    wish = wish_of(email, role, name, anybody)

    async def work(database: "Database", tenant: "TenantScope", seats: int) -> dict[str, Any]:
        configured = settings()
        life = timedelta(days=configured.invitation_days)
        async with database.tenant(tenant) as session:
            invitation_id, token = await service.invite(session, None, wish, life=life, seat_limit=seats)
            made = await service.read_invitation(session, invitation_id)
        async with database.control() as control:
            home = (await find_tenant(control, tenant.key)).home_host
        url = service.invitation_url(configured.origin_of(home), token)
        return {**made, "url": url}

    show(_with_seats(slug, work), as_json=as_json)
    tell("Hand the URL over now: only its hash is stored.")


@app.command()
def roles(
    slug: Slug,
    who: Who,
    role: Annotated[
        list[str] | None, typer.Option(help="What they may do beside what their groups bring; none: nothing.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Give somebody these roles in place of those given before. Whoever loses one has to sign in again.

    dermadetect users roles acme dana@acme.example --role physician --role tenant_admin
    """
    from auth.people.administration import set_roles

    _change(
        slug,
        who,
        as_json,
        lambda database, tenant, user_id, seats: set_roles(
            database, tenant, None, user_id, None, role or [], seats
        ),
    )


@app.command()
def deactivate(slug: Slug, who: Who, as_json: Json = False) -> None:
    """Let somebody in no more, in every running gateway within a second. Their cases go back to the queue.

    dermadetect users deactivate acme dana@acme.example
    """
    from auth.people.administration import deactivate

    _change(
        slug,
        who,
        as_json,
        lambda database, tenant, user_id, seats: deactivate(database, tenant, None, user_id, None),
    )


@app.command()
def activate(slug: Slug, who: Who, as_json: Json = False) -> None:
    """Let somebody in again.

    dermadetect users activate acme dana@acme.example
    """
    from auth.people.administration import activate

    _change(
        slug,
        who,
        as_json,
        lambda database, tenant, user_id, seats: activate(database, tenant, None, user_id, None, seats),
    )


def wish_of(email: str, roles: list[str], name: str | None = None, anybody: bool = False) -> "Wish":
    """Whom to invite, as the API would take it. Ends the command where it would not."""
    from pydantic import ValidationError

    from auth.invitations.schemas import NewInvitation
    from auth.invitations.service import Wish

    try:
        checked = NewInvitation(email=email, roles=roles, display_name=name, anybody=anybody)
    except ValidationError as error:
        wrong = {str(each["loc"][0]) for each in error.errors()}
        raise typer.BadParameter(f"not usable: {', '.join(sorted(wrong))}") from None
    return Wish(**checked.model_dump())


def _change(
    slug: str,
    who: str,
    as_json: bool,
    verb: "Callable[[Database, TenantScope, UUID, int], Awaitable[User]]",
) -> None:
    async def work(database: "Database", tenant: "TenantScope", seats: int) -> "User":
        async with database.tenant(tenant) as session:
            user_id = (await _find(session, who)).id
        return await verb(database, tenant, user_id, seats)

    show(_row(_with_seats(slug, work)), as_json=as_json)


def _with_seats(slug: str, verb: "Callable[[Database, TenantScope, int], Awaitable[T]]") -> T:
    """The result of `verb` at a tenant, told how many seats it has."""

    async def work(database: "Database", tenant: "TenantScope") -> T:
        from tenants.plans.service import limit_of

        async with database.control() as control:
            seats = await limit_of(control, tenant, "seats")
        return await verb(database, tenant, seats)

    return at_tenant(slug, work)


async def _find(session: "TenantSession", who: str) -> "User":
    from auth.people.service import find_by_email, get_user

    if "@" in who:
        return await find_by_email(session, who)
    try:
        user_id = UUID(who)
    except ValueError:
        fail("Not a user", f"{who!r} is neither an id nor an e-mail address")
    return await get_user(session, user_id)


def _row(user: "User") -> dict[str, Any]:
    return {
        "id": user.id,
        "display_name": user.display_name,
        "email": user.email,
        "roles": user.roles,
        "granted_roles": user.granted_roles,
        "active": user.active,
        "invited_at": user.invited_at,
        "last_sign_in_at": user.last_sign_in_at,
    }
