"""Invitations: made over HTTP, followed through a real identity provider, and everything that must not bind anybody."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import select, update

from auth.connections.settings import find_connection, put_connection
from auth.invitations import service
from auth.invitations.models import Invitation
from auth.people import granting
from auth.people.errors import RoleNotYours
from auth.people.models import User
from auth.saml.settings import set_connection
from core.access import Principal
from core.clock import utcnow
from core.ids import new_id
from reference.idp.app import create_app as create_idp
from reference.idp.config import IdpConfig, default_directory
from reference.idp.config import ServiceProvider as Sp
from reference.idp.config import User as Listed
from tenants.audit.models import AuditEvent
from tenants.directory.cache import Directory
from tenants.directory.service import find_tenant
from tenants.plans.service import set_quota
from tests.fixtures.browser import Browser, Form, SignIn, form_of
from tests.fixtures.servers import free_port, serving
from tests.fixtures.world import Person, World

SLUG = "inviting"
ORIGIN = f"http://{SLUG}.localhost:8000"
ADDRESSES = (f"198.51.100.{n}" for n in range(1, 200))
LOGINS = (f"guest{n}" for n in range(100))


def directory(sp: Sp) -> tuple[Listed, ...]:
    """Many people without a group that is mapped, beside the usual ones."""
    domain = f"{SLUG}.localhost"
    guests = (
        Listed(f"u-guest{n}@{domain}", f"guest{n}@{domain}", f"Guest {n}", ("guests",)) for n in range(100)
    )
    return (*default_directory(sp), *guests)


@pytest.fixture(scope="module")
def idp() -> Iterator[IdpConfig]:
    port = free_port()
    config = IdpConfig(f"http://127.0.0.1:{port}", directory=directory)
    with serving(create_idp(config), port):
        yield config


@pytest.fixture(scope="module")
async def admin(world: World, idp: IdpConfig) -> Person:
    """The administrator of a tenant that trusts the identity provider."""
    await world.create_tenant(SLUG)
    async with world.admin.control() as session:
        await set_connection(
            session,
            SLUG,
            idp_entity_id=idp.entity_id,
            sso_url=idp.sso_url,
            certificates=[idp.key.certificate_pem.decode()],
            role_mapping={"derma-physicians": "physician", "derma-referrers": "patient"},
        )
    metadata = await (await world.http(f"{SLUG}.localhost")).get("/auth/saml/metadata")
    async with httpx.AsyncClient() as client:
        await client.put(f"{idp.base_url}/service-providers", content=metadata.content)
    await world.parts[Directory].refresh()
    return await world.person("tenant_admin", tenant=SLUG)


@pytest.fixture
async def browser(world: World, admin: Person) -> AsyncIterator[Browser]:
    async with Browser(world.app, next(ADDRESSES)) as opened:
        yield opened


def address(login: str) -> str:
    return f"{login}@{SLUG}.localhost"


async def invite(admin: Person, login: str, *roles: str, **others: Any) -> dict[str, Any]:
    body = {"email": address(login), "roles": roles or ["auditor"], **others}
    answer = await admin.http.post("/v1/users/invitations", json=body)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def follow(browser: Browser, url: str, login: str) -> Form:
    """Open an invitation, choose the connection, sign in at the provider; its answer to the gateway."""
    page = await browser.get(url)
    assert page.status_code == 200, page.text
    assert f'href="{url}/main"' in page.text
    redirect = await browser.get(f"{url}/main")
    assert redirect.status_code == 303, redirect.text
    listed = form_of(await browser.get(redirect.headers["Location"]))
    person = f"u-{login}@{SLUG}.localhost"
    assert person in listed.buttons
    return form_of(await browser.post(listed.action, data=listed.fields | {"user": person}))


async def answer(browser: Browser, form: Form) -> httpx.Response:
    return await browser.post(form.action, data=form.fields)


async def sign_in(browser: Browser, login: str) -> dict[str, Any] | None:
    """Sign in through an app; who it is then, or None."""
    flow = SignIn(browser, ORIGIN)
    answered = await flow.answer(await flow.choose(login))
    if answered.status_code != 303:
        return None
    token = (await flow.redeem(flow.code_of(answered))).json()
    bearer = {"Authorization": f"Bearer {token['access_token']}"}
    me: dict[str, Any] = (await browser.get(f"{ORIGIN}/v1/me", headers=bearer)).json()
    return me


async def last_refusal(world: World) -> str:
    async with world.database.tenant(world.tenant(SLUG).scope) as session:
        query = select(AuditEvent.detail).where(AuditEvent.action == "sign-in.refused")
        detail = await session.scalar(query.order_by(AuditEvent.id.desc()).limit(1))
    return str((detail or {}).get("check"))


async def lapse(world: World, invitation_id: str) -> None:
    async with world.database.tenant(world.tenant(SLUG).scope) as session:
        ended = update(Invitation).where(Invitation.id == invitation_id)
        await session.execute(ended.values(expires_at=utcnow() - timedelta(seconds=1)))


async def test_who_follows_an_invitation_is_known_with_its_roles(
    world: World, admin: Person, browser: Browser
) -> None:
    made = await invite(admin, "dermatologist", "tenant_admin", "auditor", display_name="Dana")
    assert made["url"].startswith(f"{ORIGIN}/auth/invitation/")
    left = datetime.fromisoformat(made["expires_at"]) - utcnow()
    assert timedelta(days=6, hours=23) < left <= timedelta(days=7)
    listed = (await admin.http.get("/v1/users/invitations")).json()["items"]
    assert made["id"] in {each["id"] for each in listed}
    assert all("url" not in each for each in listed)
    for _ in range(3):  # programs open links before people do
        page = await browser.get(made["url"])
        assert page.status_code == 200
    assert "<script" not in page.text
    assert address("dermatologist") in page.text
    answered = await answer(browser, await follow(browser, made["url"], "dermatologist"))
    assert (answered.status_code, answered.headers["Location"]) == (303, f"{ORIGIN}/auth/invitation")
    assert "You are known now" in (await browser.get(answered.headers["Location"])).text

    me = await sign_in(browser, "dermatologist")
    assert me is not None
    assert me["user"]["id"] == made["user_id"]
    assert me["roles"] == ["auditor", "physician", "tenant_admin"]
    assert me["user"]["display_name"] == "Dr. Dana Derm (dermatologist)"
    shown = (await admin.http.get(f"/v1/users/{made['user_id']}")).json()
    assert (shown["granted_roles"], shown["active"]) == (["auditor", "tenant_admin"], True)
    acts = (await admin.http.get(f"/v1/audit-events?subject={made['user_id']}")).json()["items"]
    assert {event["action"] for event in acts} >= {"user.invited", "user.accepted"}
    assert "@" not in str([event["detail"] for event in acts])


async def test_the_provider_must_vouch_for_the_invited_address(
    world: World, admin: Person, browser: Browser
) -> None:
    invited, other = next(LOGINS), next(LOGINS)
    made = await invite(admin, invited, "tenant_admin")
    refused = await answer(browser, await follow(browser, made["url"], other))
    assert refused.status_code == 403
    assert refused.headers["Content-Type"].startswith("text/html")
    assert await last_refusal(world) == "invitation.other-address"
    assert await sign_in(browser, other) is None, "nor is anything left of it"
    assert (await answer(browser, await follow(browser, made["url"], invited))).status_code == 303


async def test_a_provider_is_not_believed_about_other_domains_than_its_own(
    world: World, admin: Person, browser: Browser
) -> None:
    async def set_domains(*domains: str) -> None:
        async with world.admin.control() as session:
            tenant = await find_tenant(session, SLUG, lock=True)
            connection = await find_connection(session, tenant, "main")
            assert connection is not None
            await put_connection(session, tenant, connection, email_domains=list(domains))

    login = next(LOGINS)
    made = await invite(admin, login)
    await set_domains("other.example")
    try:
        refused = await answer(browser, await follow(browser, made["url"], login))
        assert refused.status_code == 403
        assert await last_refusal(world) == "invitation.other-address"
    finally:
        await set_domains()
    assert (await answer(browser, await follow(browser, made["url"], login))).status_code == 303


async def test_the_inviter_may_say_that_the_address_does_not_matter(admin: Person, browser: Browser) -> None:
    login = next(LOGINS)
    made = await invite(admin, next(LOGINS), anybody=True)
    assert "with the address" not in (await browser.get(made["url"])).text
    assert (await answer(browser, await follow(browser, made["url"], login))).status_code == 303
    me = await sign_in(browser, login)
    assert me is not None
    assert me["user"]["id"] == made["user_id"]


async def test_who_is_known_already_becomes_nobody_else(
    world: World, admin: Person, browser: Browser
) -> None:
    login = next(LOGINS)
    first = await invite(admin, login)
    assert (await answer(browser, await follow(browser, first["url"], login))).status_code == 303
    second = await invite(admin, next(LOGINS), "tenant_admin", anybody=True)
    assert (await answer(browser, await follow(browser, second["url"], login))).status_code == 403
    assert await last_refusal(world) == "invitation.known-already"
    known = await admin.http.post(
        "/v1/users/invitations", json={"email": address(login).upper(), "roles": ["auditor"]}
    )
    assert (known.status_code, known.json()["user_id"]) == (409, first["user_id"])


async def test_another_browser_cannot_accept_for_one(world: World, admin: Person, browser: Browser) -> None:
    """Login CSRF: the victim's browser ends what the attacker's began. Fixation: the other way round."""
    login = next(LOGINS)
    made = await invite(admin, login)
    form = await follow(browser, made["url"], login)
    async with Browser(world.app, next(ADDRESSES)) as other:
        await other.get(f"{made['url']}/main")  # it has a cookie, of its own
        assert (await answer(other, form)).status_code == 403
        assert await last_refusal(world) == "login.other-browser"
    assert (await answer(browser, form)).status_code == 303


async def test_an_ordinary_sign_in_accepts_too_and_the_address_works_no_more(
    admin: Person, browser: Browser
) -> None:
    login = next(LOGINS)
    made = await invite(admin, login, "coordinator")
    form = await follow(browser, made["url"], login)
    me = await sign_in(browser, login)
    assert me is not None
    assert (me["user"]["id"], me["roles"]) == (made["user_id"], ["coordinator"])
    assert (await browser.get(made["url"])).status_code == 404
    assert (await answer(browser, form)).status_code == 403


async def test_unknown_used_revoked_lapsed_and_replaced_invitations_look_the_same(
    world: World, admin: Person, browser: Browser
) -> None:
    logins = [next(LOGINS) for _ in range(4)]
    made = [await invite(admin, login) for login in logins]
    await answer(browser, await follow(browser, made[0]["url"], logins[0]))
    assert (await admin.http.delete(f"/v1/users/invitations/{made[1]['id']}")).status_code == 204
    assert (await admin.http.delete(f"/v1/users/invitations/{made[1]['id']}")).status_code == 404
    await lapse(world, made[2]["id"])
    again = await invite(admin, logins[3], "coordinator")
    assert again["user_id"] == made[3]["user_id"]
    seen = set()
    for url in [f"{ORIGIN}/auth/invitation/made-up", *(each["url"] for each in made)]:
        for way in (url, f"{url}/main"):
            page = await browser.get(way)
            assert page.status_code == 404
            seen.add(page.text.replace(page.headers["X-Request-Id"], ""))
    assert len(seen) == 1
    assert (await browser.get(again["url"])).status_code == 200
    assert await sign_in(browser, logins[1]) is None, "revoked: nobody again"
    assert await sign_in(browser, logins[2]) is None, "lapsed: nobody any more"
    elsewhere = again["url"].replace(SLUG, "acme")
    assert (await browser.get(elsewhere)).status_code == 404, "and nothing at another tenant"


async def test_a_repeated_request_is_not_told_the_address(admin: Person) -> None:
    body = {"email": address(next(LOGINS)), "roles": ["auditor"]}
    key = {"Idempotency-Key": str(new_id())}
    first = (await admin.http.post("/v1/users/invitations", json=body, headers=key)).json()
    second = (await admin.http.post("/v1/users/invitations", json=body, headers=key)).json()
    assert first.pop("url")
    assert second.pop("url") is None
    assert first == second


@pytest.mark.parametrize(
    "body",
    [
        {"email": "no address", "roles": ["auditor"]},
        {"email": "a@b.example\x00", "roles": ["auditor"]},
        {"email": "a@b.example", "roles": []},
        {"email": "a@b.example", "roles": ["emperor"]},
        {"email": "a@b.example", "roles": ["auditor"], "seat": False},
    ],
)
async def test_what_makes_no_sense_is_refused(admin: Person, body: dict[str, Any]) -> None:
    assert (await admin.http.post("/v1/users/invitations", json=body)).status_code == 422


async def test_only_an_administrator_invites_and_nobody_gives_more_than_they_have(
    world: World, admin: Person
) -> None:
    coordinator = await world.person("coordinator", tenant=SLUG)
    body = {"email": address(next(LOGINS)), "roles": ["auditor"]}
    for answered in (
        await coordinator.http.post("/v1/users/invitations", json=body),
        await coordinator.http.get("/v1/users/invitations"),
        await coordinator.http.delete(f"/v1/users/invitations/{new_id()}"),
    ):
        assert (answered.status_code, answered.json()["scope"]) == (403, "users:manage")
    machine = Principal(
        world.tenant(SLUG).scope,
        "client",
        new_id(),
        new_id(),
        frozenset({"auditor"}),
        frozenset({"users:manage"}),
    )
    granting.check(machine, ["auditor"])
    with pytest.raises(RoleNotYours) as refused:
        granting.check(machine, ["auditor", "tenant_admin"])
    assert refused.value.extra["roles"] == ["tenant_admin"]


# Seats


@pytest.fixture
async def ten_seats(world: World) -> str:
    slug = f"seats-{next(LOGINS)}"
    await world.create_tenant(slug)
    async with world.admin.control() as session:
        await set_quota(session, slug, "seats", 10)
    await world.parts[Directory].refresh()
    return slug


async def seated(person: Person) -> int:
    quotas = (await person.http.get("/v1/usage")).json()["quotas"]
    return int(next(each["used"] for each in quotas if each["metric"] == "seats"))


async def test_fifty_invitations_at_once_fill_ten_seats_exactly(world: World, ten_seats: str) -> None:
    admin = await world.person("tenant_admin", tenant=ten_seats)
    answers = await asyncio.gather(
        *(
            admin.http.post(
                "/v1/users/invitations", json={"email": f"new{n}@seats.example", "roles": ["auditor"]}
            )
            for n in range(50)
        )
    )
    made = [each.json() for each in answers if each.status_code == 201]
    refused = [each for each in answers if each.status_code != 201]
    assert len(made) == 9, "the administrator has one"
    assert {(each.status_code, each.json()["metric"]) for each in refused} == {(429, "seats")}
    assert await seated(admin) == 10

    patient = {"email": "patient@seats.example", "roles": ["patient"]}
    assert (await admin.http.post("/v1/users/invitations", json=patient)).status_code == 201
    for n, way in enumerate(("revoke", "lapse")):
        if way == "revoke":
            await admin.http.delete(f"/v1/users/invitations/{made[n]['id']}")
        else:
            async with world.database.tenant(world.tenant(ten_seats).scope) as session:
                ended = update(Invitation).where(Invitation.id == made[n]["id"])
                await session.execute(ended.values(expires_at=utcnow()))
        body = {"email": f"after-{way}@seats.example", "roles": ["auditor"]}
        assert (await admin.http.post("/v1/users/invitations", json=body)).status_code == 201
        body = {"email": f"beyond-{way}@seats.example", "roles": ["auditor"]}
        assert (await admin.http.post("/v1/users/invitations", json=body)).status_code == 429


async def test_the_same_person_invited_ten_times_at_once_is_one(world: World, ten_seats: str) -> None:
    admin = await world.person("tenant_admin", tenant=ten_seats)
    body = {"email": "same@seats.example", "roles": ["auditor"]}
    answers = await asyncio.gather(*(admin.http.post("/v1/users/invitations", json=body) for _ in range(10)))
    assert {each.status_code for each in answers} <= {201, 409}
    async with world.database.tenant(world.tenant(ten_seats).scope) as session:
        users = (await session.scalars(select(User).where(User.email == body["email"]))).all()
        invitations = (await session.scalars(select(Invitation))).all()
    assert (len(users), len(invitations)) == (1, 1)
    assert await seated(admin) == 2


async def test_no_sign_in_makes_somebody_known_without_a_seat(
    world: World, admin: Person, browser: Browser
) -> None:
    async with world.admin.control() as session:
        await set_quota(session, SLUG, "seats", 0)
    try:
        assert await sign_in(browser, "coordinator") is None
        assert await last_refusal(world) == "login.no-seat"
        patient = await sign_in(browser, "gp")
        assert patient is not None
        assert patient["roles"] == ["patient"]
        again = await sign_in(browser, "gp")
        assert again is not None
    finally:
        async with world.admin.control() as session:
            await set_quota(session, SLUG, "seats", None)
        await world.parts[Directory].refresh()


def test_an_address_is_made_of_the_home_origin() -> None:
    assert service.invitation_url("https://a.example", "t") == "https://a.example/auth/invitation/t"
