"""Signing in through a real identity provider, and everything that must not sign anybody in."""

import asyncio
import base64
import re
import statistics
import time
import zlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from lxml import etree
from sqlalchemy import func, select

from auth.connections.refusals import list_refusals
from auth.keys.service import KeyRing
from auth.saml.service import TRANSIENT
from auth.saml.settings import set_connection
from reference.attacks.corpus import ATTACKS
from reference.attacks.scene import Scene
from reference.idp.app import create_app as create_idp
from reference.idp.config import IdpConfig, ServiceProvider, User
from reference.idp.response import Answer, sign_element, unsigned_response
from tenants.audit.models import AuditEvent
from tenants.directory.cache import Directory
from tests.fixtures.browser import Browser, Form, SignIn, form_of
from tests.fixtures.servers import free_port, serving
from tests.fixtures.world import World

ROLES = {"derma-coordinators": "coordinator", "derma-physicians": "physician", "derma-referrers": "referrer"}
STRANGER = User("u-stranger@nowhere", "stranger@nowhere", "Nobody Known", ("unmapped",))


@pytest.fixture(scope="module")
def idp() -> Iterator[IdpConfig]:
    port = free_port()
    plain = IdpConfig(f"http://127.0.0.1:{port}")
    config = replace(plain, directory=lambda sp: (*plain.directory(sp), STRANGER), encrypt=True)
    with serving(create_idp(config), port):
        yield config


@pytest.fixture(scope="module")
async def connected(world: World, idp: IdpConfig) -> World:
    """Both tenants trust the identity provider, and it knows both."""
    for slug in ("acme", "globex"):
        async with world.admin.control() as session:
            await set_connection(
                session,
                slug,
                idp_entity_id=idp.entity_id,
                sso_url=idp.sso_url,
                certificates=[idp.key.certificate_pem.decode()],
                role_mapping=ROLES,
            )
        metadata = await (await world.http(f"{slug}.localhost")).get("/auth/saml/metadata")
        async with httpx.AsyncClient() as client:
            registered = await client.put(f"{idp.base_url}/service-providers", content=metadata.content)
            assert registered.status_code == 204
    await world.parts[Directory].refresh()
    return world


@pytest.fixture
async def sign_in(connected: World) -> AsyncIterator[SignIn]:
    async with Browser(connected.app) as browser:
        yield SignIn(browser, "http://acme.localhost:8000")


async def last_refusal(world: World, slug: str = "acme") -> str:
    async with world.database.tenant(world.tenant(slug).scope) as session:
        query = select(AuditEvent.detail).where(AuditEvent.action == "sign-in.refused")
        detail = await session.scalar(query.order_by(AuditEvent.id.desc()).limit(1))
    return str((detail or {}).get("check"))


async def test_a_person_signs_in_and_is_known_by_name_and_role(sign_in: SignIn) -> None:
    answer = await sign_in.answer(await sign_in.choose("dermatologist"))
    token = await sign_in.redeem(sign_in.code_of(answer))
    assert token.status_code == 200
    assert token.headers["Cache-Control"] == "no-store"
    body = token.json()
    assert body["token_type"] == "Bearer"
    bearer = {"Authorization": f"Bearer {body['access_token']}"}
    me = (await sign_in.browser.get(f"{sign_in.origin}/v1/me", headers=bearer)).json()
    assert me["user"]["display_name"] == "Dr. Dana Derm (dermatologist)"
    assert me["roles"] == ["physician"]
    assert "cases:answer" in me["scopes"]
    assert "cases:triage" not in me["scopes"]


async def test_signing_in_again_is_the_same_user(sign_in: SignIn) -> None:
    users = set()
    for _ in range(2):
        token = await sign_in.redeem(sign_in.code_of(await sign_in.answer(await sign_in.choose("gp"))))
        bearer = {"Authorization": f"Bearer {token.json()['access_token']}"}
        me = (await sign_in.browser.get(f"{sign_in.origin}/v1/me", headers=bearer)).json()
        users.add(me["user"]["id"])
    assert len(users) == 1


async def test_a_client_gets_the_scopes_it_asked_for_and_no_more(sign_in: SignIn) -> None:
    redirect = await sign_in.authorize(scope="cases:read cases:triage")
    directory = await sign_in.browser.get(redirect.headers["Location"])
    form = form_of(directory)
    person = next(value for value in form.buttons if value.startswith("u-dermatologist"))
    posted = form_of(await sign_in.browser.post(form.action, data=form.fields | {"user": person}))
    token = await sign_in.redeem(sign_in.code_of(await sign_in.answer(posted)))
    assert token.json()["scope"] == "cases:read"


async def test_the_login_cookie_binds_the_browser(sign_in: SignIn) -> None:
    cookie = (await sign_in.authorize()).headers["Set-Cookie"]
    assert cookie.startswith("__Host-dd-login=")
    for attribute in ("HttpOnly", "Secure", "SameSite=none", "Path=/"):
        assert attribute in cookie
    assert "Domain" not in cookie


async def test_a_code_works_once_even_in_parallel(sign_in: SignIn) -> None:
    code = sign_in.code_of(await sign_in.answer(await sign_in.choose("gp")))
    answers = await asyncio.gather(*(sign_in.redeem(code) for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [200, 400, 400, 400, 400]
    assert {answer.json()["error"] for answer in answers if answer.status_code == 400} == {"invalid_grant"}


@pytest.mark.parametrize(
    "changed",
    [
        {"code_verifier": "x" * 43},
        {"code_verifier": ""},
        {"client_id": "another-app"},
        {"redirect_uri": "https://app.example/other"},
    ],
)
async def test_a_code_tried_wrongly_is_spent(sign_in: SignIn, changed: dict[str, str]) -> None:
    code = sign_in.code_of(await sign_in.answer(await sign_in.choose("gp")))
    for attempt in (changed, {}):
        refused = await sign_in.redeem(code, **attempt)
        assert refused.status_code == 400
        assert refused.json()["error"] == "invalid_grant"
        assert refused.headers["Content-Type"] == "application/json"


async def test_a_code_of_one_tenant_is_nothing_at_another(sign_in: SignIn) -> None:
    code = sign_in.code_of(await sign_in.answer(await sign_in.choose("gp")))
    elsewhere = SignIn(sign_in.browser, "http://globex.localhost:8000", verifier=sign_in.verifier)
    assert (await elsewhere.redeem(code)).status_code == 400


@pytest.mark.parametrize(
    "changed",
    [
        {"client_id": "unknown"},
        {"redirect_uri": "https://evil.example/callback"},
        {"redirect_uri": "https://app.example/callback/../evil"},
        {"redirect_uri": "https://app.example/callback?next=https://evil.example"},
        {"redirect_uri": "https://app.example/callback#x"},
        {"redirect_uri": "javascript:alert(1)"},
    ],
)
async def test_an_unregistered_redirect_is_shown_and_never_followed(
    sign_in: SignIn, changed: dict[str, str]
) -> None:
    answer = await sign_in.authorize(**changed)
    assert answer.status_code == 400
    assert "Location" not in answer.headers


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"code_challenge": ""}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
    ],
)
async def test_a_registered_client_is_told_its_mistake(
    sign_in: SignIn, changed: dict[str, str], error: str
) -> None:
    answer = await sign_in.authorize(**changed)
    assert answer.status_code == 303
    query = parse_qs(urlsplit(answer.headers["Location"]).query)
    assert query["error"] == [error]
    assert query["state"] == [sign_in.state]
    assert query["iss"] == [sign_in.origin]


async def refused(world: World, sign_in: SignIn, form: Form, check: str, slug: str = "acme") -> None:
    """The response signs nobody in: a calm page for the browser, the check's id for the administrator."""
    answer = await sign_in.answer(form)
    assert answer.status_code == 403
    assert answer.headers["Content-Type"].startswith("text/html")
    assert check not in answer.text
    reference = answer.headers["X-Request-Id"]
    assert reference in answer.text
    async with world.database.tenant(world.tenant(slug).scope) as session:
        for shown in (reference, reference[-8:].upper()):
            found = await list_refusals(session, shown, 2)
            assert [row.detail["check"] for row in found] == [check]


async def test_a_response_signs_in_once(connected: World, sign_in: SignIn) -> None:
    form = await sign_in.choose("gp")
    assert (await sign_in.answer(form)).status_code == 303
    await refused(connected, sign_in, form, "login.used-request")


async def test_parallel_replays_sign_in_once(sign_in: SignIn) -> None:
    form = await sign_in.choose("gp")
    answers = await asyncio.gather(*(sign_in.answer(form) for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [303, 403, 403, 403]


async def test_another_browser_cannot_finish_a_sign_in_nor_spoil_it(
    connected: World, sign_in: SignIn
) -> None:
    form = await sign_in.choose("gp")
    async with Browser(connected.app) as other:
        await refused(connected, SignIn(other, sign_in.origin), form, "login.other-browser")
    assert (await sign_in.answer(form)).status_code == 303


async def test_responses_that_nobody_waits_for_fill_no_log(connected: World, sign_in: SignIn) -> None:
    async def refusals() -> int | None:
        async with connected.database.tenant(connected.tenant().scope) as session:
            rows = select(func.count()).where(AuditEvent.action == "sign-in.refused")
            return await session.scalar(rows)

    before = await refusals()
    form = Form(f"{sign_in.origin}/auth/saml/acs", {"SAMLResponse": "PHg+", "RelayState": "made up"})
    assert (await sign_in.answer(form)).status_code == 403
    assert await refusals() == before


async def test_a_second_assertion_of_the_same_id_is_a_replay(
    connected: World, sign_in: SignIn, idp: IdpConfig
) -> None:
    assertion_id = ""
    for status in (303, 403):
        fields = await answer_by_hand(sign_in, idp, assertion_id=assertion_id)
        assertion_id = fields.pop("assertion_id")
        answer = await sign_in.answer(Form(f"{sign_in.origin}/auth/saml/acs", fields))
        assert answer.status_code == status
    assert await last_refusal(connected) == "saml.replay"


async def test_a_response_to_another_request_is_refused(connected: World, sign_in: SignIn) -> None:
    first, second = await sign_in.choose("gp"), await sign_in.choose("gp")
    first.fields["RelayState"] = second.fields["RelayState"]
    await refused(connected, sign_in, first, "saml.in-response-to")


async def test_a_response_for_one_tenant_signs_in_at_no_other(connected: World, sign_in: SignIn) -> None:
    form = await sign_in.choose("gp")
    elsewhere = SignIn(sign_in.browser, "http://globex.localhost:8000")
    other = await elsewhere.choose("gp")
    other.fields["SAMLResponse"] = form.fields["SAMLResponse"]
    answer = await elsewhere.answer(other)
    assert answer.status_code == 403
    assert (await last_refusal(connected, "globex")).startswith("saml.")


@pytest.mark.parametrize(
    "spoofed",
    [
        {"Host": "evil.example"},
        {"Host": "globex.localhost:8000"},
        {"Host": "acme.localhost.evil.example"},
        {"X-Forwarded-Host": "evil.example"},
        {"Forwarded": "host=evil.example"},
        {"X-Original-URL": "/auth/saml/acs?evil.example"},
    ],
    ids=str,
)
async def test_a_spoofed_host_signs_nobody_in_elsewhere(
    connected: World, sign_in: SignIn, spoofed: dict[str, str]
) -> None:
    """Addresses come from the tenant's record: what an Audience, a Recipient or a redirect must be cannot be named
    by whoever sends the request."""
    form = await sign_in.choose("gp")
    answer = await sign_in.browser.post(form.action, data=form.fields, headers=spoofed)
    if "Host" in spoofed:  # a host of nobody, or of a tenant at which no such sign-in waits
        assert answer.status_code in (403, 404)
        assert "Location" not in answer.headers
    else:
        sign_in.code_of(answer)
    metadata = await sign_in.browser.get(f"{sign_in.origin}/auth/saml/metadata", headers=spoofed)
    assert "evil.example" not in metadata.text
    if metadata.status_code == 200:
        named = "globex" if "globex" in spoofed.get("Host", "") else "acme"
        assert f'Location="http://{named}.localhost:8000/auth/saml/acs"' in metadata.text


async def test_bombs_hold_up_nobody_elses_sign_in(connected: World, sign_in: SignIn, idp: IdpConfig) -> None:
    """Each would burn a worker until its time limit, and others would wait behind it for many seconds."""
    forms = [await sign_in.choose("gp") for _ in range(7)]
    honest = forms.pop()
    key = await connected.parts[KeyRing].saml_key(connected.tenant().scope)
    sp = ServiceProvider(f"{sign_in.origin}/auth/saml/metadata", honest.action)
    template = unsigned_response(Answer(idp.entity_id, sp, STRANGER, None))
    scene = Scene(etree.tostring(template), "", key.certificate_pem.encode(), idp.key, idp.key)
    bombs = [attack for attack in ATTACKS if "-bomb" in attack.name]
    assert len(bombs) == len(forms)
    for form, bomb in zip(forms, bombs, strict=True):
        asked = etree.fromstring(base64.b64decode(form.fields["SAMLResponse"])).get("InResponseTo", "")
        xml = bomb.craft(replace(scene, request_id=asked))
        form.fields["SAMLResponse"] = base64.b64encode(xml).decode()

    async def others() -> list[float]:
        """How long requests take that have nothing to do with it, until the last bomb is refused."""
        times = []
        while not all(each.done() for each in thrown):
            started = time.perf_counter()
            assert (await sign_in.browser.get(f"{sign_in.origin}/auth/saml/metadata")).status_code == 200
            times.append(time.perf_counter() - started)
            await asyncio.sleep(0.02)
        return times

    thrown = [asyncio.create_task(sign_in.answer(form)) for form in forms]
    async with asyncio.timeout(10):  # six bombs would take their worker eighteen seconds
        signed_in, times = await asyncio.gather(sign_in.answer(honest), others())
    sign_in.code_of(signed_in)
    assert {(await each).status_code for each in thrown} == {403}
    assert await last_refusal(connected) == "saml.transform-forbidden"
    assert len(times) > 1
    assert statistics.median(times) < 1


async def test_somebody_without_a_mapped_group_is_refused(connected: World, sign_in: SignIn) -> None:
    await refused(connected, sign_in, await sign_in.choose("stranger"), "login.no-role")


async def answer_by_hand(
    sign_in: SignIn, idp: IdpConfig, *, assertion_id: str = "", name_format: str = ""
) -> dict[str, str]:
    """The fields of a good response, with this assertion id and name format, made with the provider's own key."""
    query = parse_qs(urlsplit((await sign_in.authorize()).headers["Location"]).query)
    request = zlib.decompress(base64.b64decode(query["SAMLRequest"][0]), -15)
    request_id = re.search(rb' ID="([^"]+)"', request)
    assert request_id
    sp = ServiceProvider(f"{sign_in.origin}/auth/saml/metadata", f"{sign_in.origin}/auth/saml/acs")
    user = User("u-1", "u@acme.example", "Una", ("derma-physicians",))
    response = unsigned_response(Answer(idp.entity_id, sp, user, request_id[1].decode()))
    assertion, name = response[-1], response.find(".//{*}NameID")
    assert name is not None
    assertion.set("ID", assertion_id or assertion.attrib["ID"])
    name.set("Format", name_format or name.attrib["Format"])
    sign_element(assertion, idp.key)
    return {
        "SAMLResponse": base64.b64encode(etree.tostring(response)).decode(),
        "RelayState": query["RelayState"][0],
        "assertion_id": assertion.get("ID", ""),
    }


async def test_a_name_that_is_new_at_every_sign_in_is_refused(
    connected: World, sign_in: SignIn, idp: IdpConfig
) -> None:
    fields = await answer_by_hand(sign_in, idp, name_format=TRANSIENT)
    form = Form(f"{sign_in.origin}/auth/saml/acs", fields)
    await refused(connected, sign_in, form, "login.transient-name-id")


@pytest.mark.parametrize("response", ["", "%%%", "PHg+", "QUJD" * 1000, "PCFET0NUWVBFIHg+PHgvPg=="])
async def test_a_malformed_response_is_refused(connected: World, sign_in: SignIn, response: str) -> None:
    form = await sign_in.choose("gp")
    form.fields["SAMLResponse"] = response
    answer = await sign_in.answer(form)
    assert answer.status_code == 403


async def test_a_tenant_without_a_connection_says_so(connected: World, sign_in: SignIn) -> None:
    await connected.create_tenant("unconnected")
    answer = await SignIn(sign_in.browser, "http://unconnected.localhost:8000").authorize()
    assert answer.status_code == 404
    assert "not set up" in answer.text


async def test_metadata_and_keys_are_public(connected: World) -> None:
    http = await connected.http()
    metadata = (await http.get("/.well-known/oauth-authorization-server")).json()
    assert metadata["issuer"] == "http://acme.localhost:8000"
    assert metadata["code_challenge_methods_supported"] == ["S256"]
    acme = (await http.get("/.well-known/jwks.json")).json()["keys"]
    globex = (await (await connected.http("globex.localhost")).get("/.well-known/jwks.json")).json()["keys"]
    assert {key["alg"] for key in acme + globex} == {"ES256"}
    assert not {key["kid"] for key in acme} & {key["kid"] for key in globex}
    assert all("d" not in key for key in acme + globex)
