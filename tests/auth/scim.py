"""What tests of SCIM share: a token and a client as a tenant's directory has them."""

import asyncio
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import httpx

from auth.connections.models import Connection
from auth.connections.settings import new_connection
from auth.keys.service import KeyRing
from auth.oauth.service import register_client
from auth.people.service import sign_in
from auth.scim.service import create_token
from auth.tokens.service import granted_scope, issue
from core.ids import new_id
from tenants.directory.service import find_tenant
from tests.fixtures.world import CLIENT_ID, REDIRECT_URI, Person, World

USER = "urn:ietf:params:scim:schemas:core:2.0:User"
GROUP = "urn:ietf:params:scim:schemas:core:2.0:Group"
PATCH = "urn:ietf:params:scim:api:messages:2.0:PatchOp"


async def scim_token(world: World, slug: str = "acme") -> str:
    """A new token of the tenant's directory."""
    async with world.database.tenant(world.tenant(slug).scope) as session:
        _, secret = await create_token(session, f"directory-{new_id()}", timedelta(days=1))
    return secret


async def directory_of(world: World, slug: str = "acme") -> httpx.AsyncClient:
    """The tenant's directory, as a client of `/scim/v2`."""
    http = await world.http(f"{slug}.localhost", Authorization=f"Bearer {await scim_token(world, slug)}")
    http.headers["Content-Type"] = "application/scim+json"
    http.base_url = httpx.URL(f"http://{slug}.localhost/scim/v2/")
    return http


def patch(*operations: dict[str, Any]) -> dict[str, Any]:
    return {"schemas": [PATCH], "Operations": list(operations)}


def name() -> str:
    """A userName nobody else has."""
    return f"{new_id()}@clinic.example"


def ok(answer: httpx.Response, status: int = 200) -> Any:
    """The body of an answer that must have this status."""
    assert answer.status_code == status, answer.text
    return answer.json() if answer.content else None


async def made(directory: httpx.AsyncClient, **attributes: Any) -> dict[str, Any]:
    """A new user."""
    body = {"schemas": [USER], "userName": name()} | attributes
    user: dict[str, Any] = ok(await directory.post("Users", json=body), 201)
    return user


async def made_group(directory: httpx.AsyncClient, *members: str, **attributes: Any) -> dict[str, Any]:
    """A new group."""
    body = {
        "schemas": [GROUP],
        "displayName": f"Group {new_id()}",
        "members": [{"value": member} for member in members],
    }
    group: dict[str, Any] = ok(await directory.post("Groups", json=body | attributes), 201)
    return group


async def connection(world: World, slug: str = "acme", **changes: Any) -> Connection:
    """A connection of the tenant, as its provider's sign-ins find it; nobody else is sent there."""
    async with world.admin.control() as session:
        tenant = await find_tenant(session, slug)
        row = new_connection(
            tenant, f"c-{new_id()}", "oidc", groups="groups", email="email", full_name="name"
        )
        row.enabled = False  # other tests' browsers go to the tenant's only one
        for attribute, value in changes.items():
            setattr(row, attribute, value)
        session.add(row)
    return row


async def signed_in(
    world: World, by: Connection, external_id: str, email: str | None = None, roles: Sequence[str] = ()
) -> Person:
    """Somebody whom the identity provider vouches for, with a token of the product's own."""
    record = world.tenant()
    async with world.database.tenant(record.scope) as session:
        client = await register_client(session, CLIENT_ID, "Test app", [REDIRECT_URI])
        started = await sign_in(
            session,
            connection=by,
            external_id=external_id,
            email=email,
            display_name=None,
            roles=list(roles),
            seat_limit=record.limits["seats"],
            client_id=client.id,
        )
    origin = world.settings.origin_of(record.home_host)
    scope = granted_scope("", started.roles)
    token = await issue(world.parts[KeyRing], record, origin, started, scope, world.settings.access_token_s)
    http = await world.http(record.home_host, Authorization=f"Bearer {token.access_token}")
    return Person(started.user_id, started.id, token.access_token, http)


async def shut_out(person: Person) -> None:
    """Return when the person's token is refused; fail if it is not within the second or so that it may take."""
    deadline = time.monotonic() + 15
    while (answer := await person.http.get("/v1/me")).status_code != 401:
        assert answer.status_code == 200
        assert time.monotonic() < deadline, "still signed in"
        await asyncio.sleep(0.02)
