"""Machine clients: what they may do for themselves and for their patients, and how all that ends."""

import secrets
from base64 import b64encode
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote_plus

import httpx
import pytest
from sqlalchemy import select

from auth.oauth import clients
from auth.oauth.errors import ClientNotFound
from auth.oauth.models import ClientSecret, OAuthClient
from auth.people.models import User
from auth.people.service import end_sessions_of
from core.ids import UUID
from tenants.audit.models import AuditEvent
from tests.auth.apps import App, refused
from tests.clinic.journey import NEW_CASE, ok
from tests.fixtures.world import World, an_address

SCOPES = ["cases:create", "cases:read", "cases:submit", "users:read"]


@dataclass
class Machine:
    """A machine client of one tenant and its newest secret."""

    world: World
    http: httpx.AsyncClient
    client_id: str
    secret: str
    slug: str = "acme"

    @classmethod
    async def open(
        cls, world: World, slug: str = "acme", *, scopes: list[str] = SCOPES, for_patients: bool = False
    ) -> "Machine":
        client_id = f"machine-{secrets.token_hex(4)}"
        async with world.database.tenant(world.tenant(slug).scope) as session:
            _, secret = await clients.register_machine(
                session, client_id, "A machine", scopes, for_patients=for_patients
            )
        assert secret
        return cls(
            world, await world.http(f"{slug}.localhost", address=an_address()), client_id, secret, slug
        )

    async def ask(self, path: str = "/auth/token", **changed: str) -> httpx.Response:
        form = {"client_id": self.client_id, "client_secret": self.secret} | changed
        if path == "/auth/token":
            form = {"grant_type": "client_credentials"} | form
        return await self.http.post(path, data=form)

    async def token(self, **changed: str) -> str:
        answer = await self.ask(**changed)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])

    async def me(self, token: str) -> httpx.Response:
        await self.world.heard()
        return await self.http.get("/v1/me", headers={"Authorization": f"Bearer {token}"})

    async def signed_in(self, **changed: str) -> httpx.AsyncClient:
        """A client that sends a token of this machine's."""
        return await self.world.http(
            f"{self.slug}.localhost", Authorization=f"Bearer {await self.token(**changed)}"
        )

    @property
    def scope(self) -> Any:
        return self.world.tenant(self.slug).scope


@pytest.fixture(scope="module")
async def machine(world: World) -> Machine:
    return await Machine.open(world, for_patients=True)


def basic(client_id: str, secret: str) -> dict[str, str]:
    return {"Authorization": f"Basic {b64encode(f'{client_id}:{secret}'.encode()).decode()}"}


async def test_a_machine_signs_in_with_its_secret(machine: Machine) -> None:
    answer = await machine.ask()
    assert answer.headers["Cache-Control"] == "no-store"
    body = answer.json()
    assert body["scope"].split() == SCOPES
    assert "refresh_token" not in body, "RFC 6749, 4.4.3"
    me = (await machine.me(body["access_token"])).json()
    assert (me["user"], me["roles"], me["scopes"]) == (None, ["service"], SCOPES)
    assert me["client"] is not None


async def test_a_secret_may_come_in_the_header(machine: Machine) -> None:
    form = {"grant_type": "client_credentials", "scope": "cases:read"}
    good = basic(quote_plus(machine.client_id), quote_plus(machine.secret))
    answer = await machine.http.post("/auth/token", data=form, headers=good)
    assert answer.json()["scope"] == "cases:read"
    twice = form | {"client_secret": machine.secret}
    refused(await machine.http.post("/auth/token", data=twice, headers=good), "invalid_request")
    refused(await machine.http.post("/auth/token", data=form, headers=basic("a\0b", "x")), "invalid_request")
    for header in ("Basic", "Basic !", "Basic 4pyT", f"Bearer {machine.secret}"):
        wrong = await machine.http.post("/auth/token", data=form, headers={"Authorization": header})
        refused(wrong, "invalid_client")


async def test_who_is_refused_learns_nothing_about_which_clients_there_are(
    machine: Machine, world: World
) -> None:
    app = await App.open(world)
    elsewhere = await Machine.open(world, "globex")
    attempts = [
        {"client_secret": "wrong"},
        {"client_secret": ""},
        {"client_id": "nobody"},
        {"client_id": app.client_id},
        {"client_id": elsewhere.client_id, "client_secret": elsewhere.secret},
    ]
    answers = [await machine.ask(**each) for each in attempts]
    for answer in answers:
        refused(answer, "invalid_client")
        assert answer.headers["WWW-Authenticate"].startswith("Basic ")
    assert len({answer.json()["error_description"] for answer in answers}) == 1


async def test_a_machine_gets_no_more_than_it_is_registered_for(world: World) -> None:
    reader = await Machine.open(world, scopes=["cases:read"])
    refused(await reader.ask(scope="cases:read cases:create"), "invalid_scope")
    http = await reader.signed_in()
    answer = await http.post("/v1/cases", json=NEW_CASE)
    assert answer.status_code == 403
    assert 'error="insufficient_scope", scope="cases:create"' in answer.headers["WWW-Authenticate"]
    async with world.database.tenant(reader.scope) as session:
        with pytest.raises(Exception, match="cases:answer will not do"):
            await clients.register_machine(session, "greedy", "Greedy", ["cases:answer"])


async def test_a_machine_sees_the_cases_that_it_opened_and_no_others(machine: Machine, world: World) -> None:
    mine, other = await machine.signed_in(), await (await Machine.open(world)).signed_in()
    referrer = await world.person("referrer")
    case = ok(await mine.post("/v1/cases", json=NEW_CASE), 201)
    theirs = ok(await referrer.http.post("/v1/cases", json=NEW_CASE), 201)
    assert "submit" in ok(await mine.get(f"/v1/cases/{case['id']}"))["allowed_actions"]
    assert [each["id"] for each in ok(await mine.get("/v1/cases"))["items"]] == [case["id"]]
    assert ok(await mine.get(f"/v1/patients/{case['patient_id']}"))["user_id"] is None
    for http, unseen in ((other, case), (mine, theirs)):
        assert (await http.get(f"/v1/cases/{unseen['id']}")).status_code == 404
        assert (await http.get(f"/v1/patients/{unseen['patient_id']}")).status_code == 404
    assert (await mine.get("/v1/physicians/me")).status_code == 403
    assert (await mine.get("/v1/sessions")).status_code == 404


async def test_a_machine_acts_for_its_patients_and_both_are_recorded(machine: Machine, world: World) -> None:
    first = await machine.signed_in(on_behalf_of="member-1")
    again = await machine.signed_in(on_behalf_of="member-1")
    second = await machine.signed_in(on_behalf_of="member-2")
    me = ok(await first.get("/v1/me"))
    assert me["roles"] == ["patient"]
    assert "users:read" not in me["scopes"], "what patients may not do it may not do for them"
    assert me["user"]["id"] == ok(await again.get("/v1/me"))["user"]["id"]
    case = ok(await first.post("/v1/cases", json=NEW_CASE), 201)
    assert (await again.get(f"/v1/cases/{case['id']}")).status_code == 200
    assert (await second.get(f"/v1/cases/{case['id']}")).status_code == 404
    assert ok(await again.get(f"/v1/patients/{case['patient_id']}"))["user_id"] == me["user"]["id"]
    async with world.database.tenant(machine.scope) as session:
        query = select(AuditEvent).where(AuditEvent.actor == UUID(me["user"]["id"]))
        events = (await session.scalars(query)).all()
    assert {event.action for event in events} >= {"case.create", "patient.create", "case.read"}
    assert {event.detail.get("client") for event in events} == {me["client"]}
    # Another machine that uses the same name means somebody else.
    other = await (await Machine.open(world, for_patients=True)).signed_in(on_behalf_of="member-1")
    assert ok(await other.get("/v1/me"))["user"]["id"] != me["user"]["id"]


async def test_only_who_is_registered_for_it_acts_for_patients(world: World) -> None:
    plain = await Machine.open(world)
    refused(await plain.ask(on_behalf_of="member-1"), "unauthorized_client")


async def test_a_deactivated_patient_is_acted_for_no_more(machine: Machine, world: World) -> None:
    token = await machine.token(on_behalf_of="leaver")
    user_id = UUID((await machine.me(token)).json()["user"]["id"])
    async with world.database.tenant(machine.scope) as session:
        (await session.get_one(User, user_id)).active = False
    await end_sessions_of(world.database, machine.scope, user_id, None, "deactivated")
    assert (await machine.me(token)).status_code == 401
    refused(await machine.ask(on_behalf_of="leaver"))


async def test_a_secret_is_rotated_without_an_interruption(world: World) -> None:
    machine = await Machine.open(world, for_patients=True)
    old_secret, old_token = machine.secret, await machine.token()
    old_patient = await machine.token(on_behalf_of="somebody")
    machine.secret = await clients.rotate(world.database, machine.scope, machine.client_id, at_once=False)
    new_token = await machine.token()
    assert (await machine.ask(client_secret=old_secret)).status_code == 200
    assert [(await machine.me(each)).status_code for each in (old_token, new_token)] == [200, 200]
    machine.secret = await clients.rotate(world.database, machine.scope, machine.client_id, at_once=False)
    refused(await machine.ask(client_secret=old_secret), "invalid_client")
    tokens = (old_token, old_patient, new_token, await machine.token())
    assert [(await machine.me(each)).status_code for each in tokens] == [401, 401, 200, 200]


async def test_a_leaked_secret_ends_at_once_with_its_tokens(world: World) -> None:
    machine = await Machine.open(world)
    leaked, token = machine.secret, await machine.token()
    machine.secret = await clients.rotate(world.database, machine.scope, machine.client_id, at_once=True)
    refused(await machine.ask(client_secret=leaked), "invalid_client")
    assert (await machine.me(token)).status_code == 401
    assert (await machine.me(await machine.token())).status_code == 200


async def test_a_disabled_machine_and_its_tokens_end_and_it_comes_back_with_a_new_secret(
    world: World,
) -> None:
    machine = await Machine.open(world, for_patients=True)
    tokens = [await machine.token(), await machine.token(on_behalf_of="somebody")]
    for _ in range(2):
        await clients.disable(world.database, machine.scope, machine.client_id)
    refused(await machine.ask(), "invalid_client")
    assert [(await machine.me(each)).status_code for each in tokens] == [401, 401]
    secret = await clients.enable(world.database, machine.scope, machine.client_id)
    refused(await machine.ask(), "invalid_client")
    assert secret
    machine.secret = secret
    assert (await machine.me(await machine.token())).status_code == 200


async def test_a_disabled_app_signs_nobody_in_and_its_people_out(world: World) -> None:
    app = await App.open(world)
    tokens, (code, _) = await app.signed_in(), await app.code()
    await clients.disable(world.database, world.tenant().scope, app.client_id)
    refused(await app.redeem(code))
    refused(await app.refresh(tokens))
    assert (await app.me(tokens)).status_code == 401
    question = {"client_id": app.client_id, "redirect_uri": "https://app.example/callback"}
    assert (await app.http.get("/auth/authorize", params=question)).status_code == 400
    assert await clients.enable(world.database, world.tenant().scope, app.client_id) is None
    assert (await app.me(await app.signed_in())).status_code == 200


async def test_a_removed_client_leaves_nothing_that_works(world: World) -> None:
    app, machine = await App.open(world), await Machine.open(world)
    tokens, token = await app.signed_in(), await machine.token()
    for client_id in (app.client_id, machine.client_id):
        await clients.remove(world.database, machine.scope, client_id)
        with pytest.raises(ClientNotFound):
            await clients.remove(world.database, machine.scope, client_id)
    refused(await app.refresh(tokens))
    refused(await machine.ask(), "invalid_client")
    assert (await app.me(tokens)).status_code == 401
    assert (await machine.me(token)).status_code == 401


async def test_when_a_secret_was_last_used_is_known(world: World) -> None:
    machine = await Machine.open(world)
    query = (
        select(ClientSecret.last_used_at, ClientSecret.secret_hash)
        .join(OAuthClient, OAuthClient.id == ClientSecret.client_id)
        .where(OAuthClient.client_id == machine.client_id)
    )
    async with world.database.tenant(machine.scope) as session:
        before, kept = (await session.execute(query)).one()
    await machine.token()
    async with world.database.tenant(machine.scope) as session:
        after, _ = (await session.execute(query)).one()
    assert before is None
    assert after is not None
    assert machine.secret not in kept


# Giving tokens back, and asking about them.


async def test_a_machine_gives_one_of_its_tokens_back(machine: Machine) -> None:
    given, kept = await machine.token(), await machine.token()
    for _ in range(2):
        assert (await machine.ask("/auth/revoke", token=given)).status_code == 200
    assert [(await machine.me(each)).status_code for each in (given, kept)] == [401, 200]


async def test_an_app_gives_its_sign_in_back_by_either_token(world: World) -> None:
    app = await App.open(world)
    for kind in ("access_token", "refresh_token"):
        tokens = await app.signed_in()
        form = {"client_id": app.client_id, "token": tokens[kind], "token_type_hint": "anything"}
        for _ in range(2):
            assert (await app.http.post("/auth/revoke", data=form)).status_code == 200
        refused(await app.refresh(tokens))
        assert (await app.me(tokens)).status_code == 401


async def test_nobody_gives_anothers_token_back(machine: Machine, world: World) -> None:
    app, other = await App.open(world), await App.open(world)
    tokens, theirs = await app.signed_in(), await machine.token(on_behalf_of="member-1")
    for token in (tokens["access_token"], tokens["refresh_token"], theirs, await machine.token()):
        form = {"client_id": other.client_id, "token": token}
        refused(await other.http.post("/auth/revoke", data=form), "unauthorized_client")
    # A machine's id alone does not make one the machine.
    form = {"client_id": machine.client_id, "token": theirs}
    refused(await other.http.post("/auth/revoke", data=form), "unauthorized_client")
    refused(await machine.ask("/auth/revoke", token=theirs, client_secret="wrong"), "invalid_client")
    refused(await machine.ask("/auth/revoke", token=tokens["refresh_token"]), "unauthorized_client")
    assert (await app.me(tokens)).status_code == 200
    assert (await machine.me(theirs)).status_code == 200
    assert (await machine.ask("/auth/revoke", token="made up")).status_code == 200


async def test_a_machine_may_ask_whether_a_token_holds(machine: Machine, world: World) -> None:
    app = await App.open(world)
    tokens = await app.signed_in("coordinator")
    told = (await machine.ask("/auth/introspect", token=tokens["access_token"])).json()
    assert (told["active"], told["sub"], told["roles"]) == (True, str(tokens["user_id"]), ["coordinator"])
    assert told["token_type"] == "Bearer"
    acting = (await machine.ask("/auth/introspect", token=await machine.token(on_behalf_of="x"))).json()
    assert set(acting["act"]) == {"sub"}
    await end_sessions_of(world.database, machine.scope, tokens["user_id"], None, "test")
    await world.heard()
    foreign = await (await Machine.open(world, "globex")).token()
    for token in (tokens["access_token"], tokens["refresh_token"], foreign, "made up", ""):
        assert (await machine.ask("/auth/introspect", token=token)).json() == {"active": False}
    refused(await machine.ask("/auth/introspect", client_secret="wrong"), "invalid_client")
    form = {"client_id": app.client_id, "token": tokens["access_token"]}
    refused(await app.http.post("/auth/introspect", data=form), "invalid_client")


async def test_the_metadata_tells_what_there_is(machine: Machine) -> None:
    told = (await machine.http.get("/.well-known/oauth-authorization-server")).json()
    assert told["grant_types_supported"] == ["authorization_code", "refresh_token", "client_credentials"]
    for endpoint in ("token", "revocation", "introspection"):
        assert "client_secret_basic" in told[f"{endpoint}_endpoint_auth_methods_supported"]
        path = told[f"{endpoint}_endpoint"].removeprefix(told["issuer"])
        assert (await machine.http.post(path)).status_code in (200, 400, 401)
    assert "none" not in told["introspection_endpoint_auth_methods_supported"]
