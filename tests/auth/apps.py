"""A client app with somebody signed in to it: from the code on all goes over HTTP, as the app would send it."""

import base64
import hashlib
import secrets
from dataclasses import dataclass, field
from typing import Any

import httpx
from sqlalchemy import select

from auth.oauth.models import LoginRequest, OAuthClient
from auth.oauth.service import make_code, register_client
from auth.people.service import sign_in
from core.ids import UUID, new_id
from tests.fixtures.world import REDIRECT_URI, STAFF, World, an_address

Tokens = dict[str, Any]


@dataclass
class App:
    """A client app at one tenant. `redeem` and `refresh` send what a good app would, save for what is changed."""

    world: World
    http: httpx.AsyncClient
    client_id: str
    slug: str
    verifier: str = field(default_factory=lambda: secrets.token_urlsafe(48))

    @classmethod
    async def open(cls, world: World, slug: str = "acme", *, refresh: bool = True) -> "App":
        client_id = f"app-{secrets.token_hex(4)}"
        async with world.database.tenant(world.tenant(slug).scope) as session:
            await register_client(session, client_id, "An app", [REDIRECT_URI], refresh=refresh)
        return cls(world, await world.http(f"{slug}.localhost", address=an_address()), client_id, slug)

    async def code(self, *roles: str, scope: str = "", login: str = "") -> tuple[str, UUID]:
        """The code of somebody who has just come back from the identity provider, and their user id."""
        challenge = base64.urlsafe_b64encode(hashlib.sha256(self.verifier.encode()).digest())
        async with self.world.database.tenant(self.world.tenant(self.slug).scope) as session:
            query = select(OAuthClient.id).where(OAuthClient.client_id == self.client_id)
            row_id = (await session.scalars(query)).one()
            started = await sign_in(
                session,
                connection=STAFF,
                external_id=login or str(new_id()),
                email=None,
                display_name="Robin Roe",
                roles=list(roles) or ["coordinator"],
                seat_limit=5000,
                client_id=row_id,
            )
            asked = LoginRequest(
                client_id=row_id,
                redirect_uri=REDIRECT_URI,
                code_challenge=challenge.decode().rstrip("="),
                scope=scope,
            )
            return await make_code(session, asked, started), started.user_id

    async def redeem(self, code: str, **changed: str) -> httpx.Response:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": REDIRECT_URI,
            "client_id": self.client_id,
            "code_verifier": self.verifier,
        }
        return await self.http.post("/auth/token", data=form | changed)

    async def refresh(self, tokens: Tokens, **changed: str) -> httpx.Response:
        form = {
            "grant_type": "refresh_token",
            "refresh_token": tokens["refresh_token"],
            "client_id": self.client_id,
        }
        return await self.http.post("/auth/token", data=form | changed)

    async def signed_in(self, *roles: str, scope: str = "", login: str = "") -> Tokens:
        """The tokens of a sign-in, with the id of whose they are."""
        code, user_id = await self.code(*roles, scope=scope, login=login)
        answer = await self.redeem(code)
        assert answer.status_code == 200, answer.text
        return answer.json() | {"user_id": user_id}

    async def me(self, tokens: Tokens) -> httpx.Response:
        """Who the access token stands for, at a gateway that has heard of everything."""
        await self.world.heard()
        bearer = {"Authorization": f"Bearer {tokens['access_token']}"}
        return await self.http.get("/v1/me", headers=bearer)


def refused(answer: httpx.Response, error: str = "invalid_grant") -> None:
    """It is an error as RFC 6749, 5.2 has it."""
    assert answer.status_code == (401 if error == "invalid_client" else 400), answer.text
    assert answer.json()["error"] == error
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Cache-Control"] == "no-store"
