"""Signing in through OpenID providers, real ones and one that lies."""

import asyncio
import base64
import hmac
import itertools
import json
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import httpx
import pytest
from joserfc.jwk import ECKey
from sqlalchemy import select

from auth.connections.checks import CHECKS
from auth.connections.errors import BadConnection
from auth.connections.fetching import Fetcher, ProviderUnreachable
from auth.connections.models import Connection
from auth.keys.service import KeyRing
from auth.oauth.models import LoginRequest
from auth.oidc.models import OidcConnection
from auth.oidc.provider import ASK_AGAIN_S, MAX_DOCUMENT, Providers
from auth.oidc.settings import sealing_context, set_connection
from auth.people.models import User
from core import crypto
from core.ids import new_id
from tenants.directory.cache import Directory
from tests.auth.test_sign_in import last_refusal
from tests.fixtures.browser import Browser, SignIn, form_of
from tests.fixtures.openid import (
    CLIENT_ID,
    CLIENT_SECRET,
    ScriptedProvider,
    ScriptedProviders,
    new_key,
    oidc_provider,
    oidc_provider_mock,
)
from tests.fixtures.servers import free_port, serving
from tests.fixtures.world import World

ORIGIN = "http://openid.localhost:8000"
CALLBACK = f"{ORIGIN}/auth/oidc/callback"
ADDRESSES = itertools.count(1)
FIRST_KEY = new_key("first")  # once, because making one is slow


async def connect(world: World, issuer: str, name: str = "main", **changes: Any) -> Connection:
    """Name a provider for the tenant `openid`."""
    given: dict[str, Any] = {
        "client_id": CLIENT_ID,
        "client_auth": "client_secret_basic",
        "secret": CLIENT_SECRET,
        "data_key": await world.parts[KeyRing].data_key(world.tenant("openid").scope),
        "role_mapping": {"doctors": "physician"},
    } | changes
    async with world.admin.control() as session:
        connection = await set_connection(session, "openid", name=name, issuer=issuer, **given)
    await world.parts[Directory].refresh()
    return connection


@pytest.fixture(scope="module")
async def openid(world: World) -> World:
    await world.create_tenant("openid")
    return world


@pytest.fixture(scope="module")
def scripted() -> Iterator[tuple[ScriptedProviders, str]]:
    providers = ScriptedProviders()
    with serving(providers) as url:
        yield providers, url


@pytest.fixture
async def provider(openid: World, scripted: tuple[ScriptedProviders, str]) -> ScriptedProvider:
    """A provider of its own for each test: what one has said is remembered for an hour."""
    providers, url = scripted
    made = providers.add(url, FIRST_KEY)
    await connect(openid, made.issuer, "scripted")
    return made


@pytest.fixture
async def sign_in(openid: World) -> AsyncIterator[SignIn]:
    # Each test comes from an address of its own: together they ask more often than one may.
    async with Browser(openid.app, f"198.51.100.{next(ADDRESSES)}") as browser:
        yield SignIn(browser, ORIGIN)


async def to_provider(sign_in: SignIn, connection: str = "scripted") -> str:
    """The address at the provider that the browser is sent to."""
    redirect = await sign_in.authorize(connection=connection)
    assert redirect.status_code == 303, redirect.text
    return redirect.headers["Location"]


async def way_back(sign_in: SignIn, connection: str = "scripted") -> str:
    """The address with which the provider sends the browser back."""
    answer = await sign_in.browser.get(await to_provider(sign_in, connection))
    assert answer.status_code in (302, 303), answer.text
    return answer.headers["Location"]


async def me_of(sign_in: SignIn, answer: httpx.Response) -> dict[str, Any]:
    token = await sign_in.redeem(sign_in.code_of(answer))
    assert token.status_code == 200, token.text
    bearer = {"Authorization": f"Bearer {token.json()['access_token']}"}
    return (await sign_in.browser.get(f"{sign_in.origin}/v1/me", headers=bearer)).json()


async def refused(world: World, sign_in: SignIn, url: str, check: str) -> None:
    """Nobody is signed in: a calm page for the browser, the check's id for the administrator."""
    answer = await sign_in.browser.get(url)
    assert answer.status_code == 403, answer.text
    assert answer.headers["Content-Type"].startswith("text/html")
    assert check not in answer.text
    assert await last_refusal(world, "openid") == check
    assert check in CHECKS, "operators are told what it means"


# Real providers


AUTH = {
    "client_secret_basic": {"client_secret": CLIENT_SECRET},
    "client_secret_post": {"client_secret": CLIENT_SECRET},
    "private_key_jwt": {},
    "none": {},
}


@pytest.fixture(scope="module")
async def real(openid: World) -> AsyncIterator[str]:
    """npm's oidc-provider, which knows us four times: by each way to prove ourselves."""
    keys = (await (await openid.http("openid.localhost")).get("/.well-known/jwks.json")).json()
    clients = [
        {
            "client_id": auth,
            "token_endpoint_auth_method": auth,
            "redirect_uris": [f"{CALLBACK}/real-{auth.replace('_', '-')}"],
            "response_types": ["code"],
            "grant_types": ["authorization_code"],
            **secret,
            **(
                {"jwks": keys, "token_endpoint_auth_signing_alg": "ES256"}
                if auth == "private_key_jwt"
                else {}
            ),
        }
        for auth, secret in AUTH.items()
    ]
    with oidc_provider(clients) as issuer:
        for auth in AUTH:
            await connect(
                openid,
                issuer,
                f"real-{auth.replace('_', '-')}",
                client_id=auth,
                client_auth=auth,
                scopes=["email", "profile", "groups"],
            )
        yield issuer


@pytest.mark.parametrize("auth", AUTH)
async def test_a_person_signs_in_at_oidc_provider(real: str, sign_in: SignIn, auth: str) -> None:
    browser = sign_in.browser
    page = await browser.get(await to_provider(sign_in, f"real-{auth.replace('_', '-')}"))
    for fields in ({"prompt": "login", "login": "dana", "password": "any"}, {"prompt": "consent"}):
        page = await follow(browser, page, within=real)
        form = form_of(page)
        page = await browser.post(form.action, data=form.fields | fields)
    page = await follow(browser, page, within=real)
    me = await me_of(sign_in, await browser.get(page.headers["Location"]))
    assert me["user"]["display_name"] == "Dr. dana"
    assert me["user"]["email"] == "dana@clinic.example"
    assert me["roles"] == ["physician"]


async def follow(browser: Browser, page: httpx.Response, *, within: str) -> httpx.Response:
    """Go where a provider's redirects lead, as long as they lead to itself."""
    while page.status_code in (302, 303):
        target = httpx.URL(str(page.url)).join(page.headers["Location"])
        if not str(target).startswith(within):
            break
        page = await browser.get(target)
    return page


async def test_a_person_signs_in_at_oidc_provider_mock(openid: World, sign_in: SignIn) -> None:
    with oidc_provider_mock() as issuer:
        # It does not undo the form-encoding of RFC 6749, 2.3.1.
        await connect(openid, issuer, "mock", client_id="derma", secret="plain")
        claims = {
            "email": "alice@clinic.example",
            "email_verified": True,
            "name": "Alice",
            "groups": ["doctors"],
        }
        stored = await sign_in.browser.put(f"{issuer}/users/{quote('alice')}", json=claims)
        assert stored.status_code == 204
        page = await sign_in.browser.post(await to_provider(sign_in, "mock"), data={"sub": "alice"})
        me = await me_of(sign_in, await sign_in.browser.get(page.headers["Location"]))
    assert (me["user"]["display_name"], me["roles"]) == ("Alice", ["physician"])


# What a provider says


async def test_the_provider_is_asked_for_no_more_than_is_needed(
    provider: ScriptedProvider, sign_in: SignIn
) -> None:
    for _ in range(2):
        me = await me_of(sign_in, await sign_in.browser.get(await way_back(sign_in)))
    assert me["user"]["email"] == "ola@clinic.example"
    assert provider.asked == {"/.well-known/openid-configuration": 1, "/jwks": 1, "/token": 2}


async def test_what_the_id_token_leaves_out_the_userinfo_endpoint_tells(
    provider: ScriptedProvider, sign_in: SignIn
) -> None:
    provider.claims = {"groups": None, "email": None}
    provider.userinfo = provider.person | {"name": "Not what the ID token says"}
    me = await me_of(sign_in, await sign_in.browser.get(await way_back(sign_in)))
    assert (me["roles"], me["user"]["display_name"]) == (["physician"], "Dr. Ola Open")


async def test_somebody_may_be_in_many_groups(provider: ScriptedProvider, sign_in: SignIn) -> None:
    provider.claims = {"groups": [str(new_id()) for _ in range(500)] + ["doctors"]}
    provider.header = {"x5c": ["A" * 2000]}
    me = await me_of(sign_in, await sign_in.browser.get(await way_back(sign_in)))
    assert me["roles"] == ["physician"]


@pytest.mark.parametrize(
    ("attribute", "claims"),
    [
        ("realm_access.roles", {"realm_access": {"roles": ["doctors"]}}),
        ("https://clinic.example/groups", {"https://clinic.example/groups": "doctors"}),
    ],
)
async def test_groups_are_found_by_path_or_by_name(
    openid: World, provider: ScriptedProvider, sign_in: SignIn, attribute: str, claims: dict[str, Any]
) -> None:
    await connect(openid, provider.issuer, "scripted", groups_attribute=attribute)
    provider.claims = {"groups": ["administrators"], **claims}
    try:
        me = await me_of(sign_in, await sign_in.browser.get(await way_back(sign_in)))
    finally:
        await connect(openid, provider.issuer, "scripted", groups_attribute="groups")
    assert me["roles"] == ["physician"]


@pytest.mark.parametrize("verified", [False, None, "yes", 1])
async def test_an_address_that_is_not_verified_is_not_taken(
    openid: World, provider: ScriptedProvider, sign_in: SignIn, verified: object
) -> None:
    email = f"{new_id()}@clinic.example"
    provider.claims = {"email": email, "email_verified": verified}
    async with openid.database.tenant(openid.tenant("openid").scope) as session:
        session.add(User(email=email, display_name="Invited", granted_roles=["tenant_admin"]))
    me = await me_of(sign_in, await sign_in.browser.get(await way_back(sign_in)))
    assert (me["user"]["email"], me["roles"]) == (None, ["physician"])


async def test_an_address_that_another_connection_speaks_for_is_not_taken(
    openid: World, provider: ScriptedProvider, sign_in: SignIn
) -> None:
    await connect(openid, "https://owner.example", "owner", email_domains=["owned.example"])
    provider.claims = {"email": "boss@Owned.example"}
    async with openid.database.tenant(openid.tenant("openid").scope) as session:
        session.add(User(email="boss@owned.example", display_name="Boss", granted_roles=["tenant_admin"]))
    me = await me_of(sign_in, await sign_in.browser.get(await way_back(sign_in)))
    assert (me["user"]["email"], me["roles"]) == (None, ["physician"])


async def test_patients_sign_in_by_a_connection_of_their_own(
    openid: World, provider: ScriptedProvider, sign_in: SignIn
) -> None:
    terms = {"audience": "patients", "default_roles": ["patient"], "role_mapping": {}}
    await connect(openid, provider.issuer, "patients", **terms)
    me = await me_of(sign_in, await sign_in.browser.get(await way_back(sign_in, "patients")))
    assert me["roles"] == ["patient"]


async def test_the_address_that_chose_the_connection_goes_along(
    openid: World, provider: ScriptedProvider, sign_in: SignIn
) -> None:
    await connect(openid, provider.issuer, "hinted", email_domains=["hinted.example"])
    redirect = await sign_in.authorize(login_hint="jo@hinted.example")
    asked = parse_qs(urlsplit(redirect.headers["Location"]).query)
    assert asked["login_hint"] == ["jo@hinted.example"]
    assert asked["scope"] == ["openid email profile"]
    assert asked["redirect_uri"] == [f"{CALLBACK}/hinted"]


# Attacks, each with the check that refuses it; docs/security.md lists them

FOREIGN_KEY, EC_KEY = new_key("first"), ECKey.generate_key("P-256", {"kid": "ec"})


def lie(**attributes: Any) -> Callable[[ScriptedProvider], None]:
    def apply(provider: ScriptedProvider) -> None:
        for name, value in attributes.items():
            setattr(provider, name, value)

    return apply


def forged(header: dict[str, Any], signature: Callable[[bytes], bytes]) -> Callable[[ScriptedProvider], None]:
    """The ID token under another header, with a signature over its claims."""

    def apply(provider: ScriptedProvider) -> None:
        provider.sign = lambda claims, typ="JWT": compact(header, claims, signature)  # type: ignore[method-assign]

    return apply


def compact(header: dict[str, Any], claims: dict[str, Any], signature: Callable[[bytes], bytes]) -> str:
    def part(value: bytes) -> str:
        return base64.urlsafe_b64encode(value).decode().rstrip("=")

    signed = ".".join(part(json.dumps(each).encode()) for each in (header, claims))
    return f"{signed}.{part(signature(signed.encode()))}"


def hmac_by_public_key(signed: bytes) -> bytes:
    return hmac.digest(FIRST_KEY.as_pem(private=False), signed, "sha256")


now = int(time.time())
ATTACKS: list[tuple[str, Callable[[ScriptedProvider], None], str]] = [
    ("iss-other", lie(claims={"iss": "https://other.example"}), "oidc.iss"),
    ("iss-slash", lambda p: lie(claims={"iss": f"{p.issuer}/"})(p), "oidc.iss"),
    ("iss-missing", lie(claims={"iss": None}), "oidc.iss-missing"),
    ("aud-other", lie(claims={"aud": "another client"}), "oidc.aud"),
    ("aud-missing", lie(claims={"aud": None}), "oidc.aud"),
    ("aud-and-another", lie(claims={"aud": [CLIENT_ID, "another client"]}), "oidc.aud"),
    ("azp-other", lie(claims={"azp": "another client"}), "oidc.azp"),
    ("nonce-other", lie(claims={"nonce": "x" * 43}), "oidc.nonce"),
    ("nonce-missing", lie(claims={"nonce": None}), "oidc.nonce-missing"),
    ("expired", lie(claims={"exp": now - 3600}), "oidc.expired"),
    ("endless", lie(claims={"exp": None}), "oidc.exp-missing"),
    ("future", lie(claims={"iat": now + 3600}), "oidc.iat"),
    ("not-yet", lie(claims={"nbf": now + 3600}), "oidc.nbf"),
    ("sub-missing", lie(claims={"sub": None}), "oidc.sub-missing"),
    ("sub-empty", lie(claims={"sub": ""}), "oidc.sub"),
    ("sub-number", lie(claims={"sub": 7}), "oidc.sub"),
    ("access-token-swapped", lie(claims={"at_hash": "x" * 22}), "oidc.at-hash"),
    ("alg-none", forged({"alg": "none", "kid": "first"}, lambda _: b""), "oidc.algorithm"),
    ("alg-nOnE", forged({"alg": "nOnE", "kid": "first"}, lambda _: b""), "oidc.algorithm"),
    ("hs256-public-key", forged({"alg": "HS256", "kid": "first"}, hmac_by_public_key), "oidc.algorithm"),
    ("signature-missing", forged({"alg": "RS256", "kid": "first"}, lambda _: b""), "oidc.signature"),
    ("foreign-key", lie(key=FOREIGN_KEY, published=[FIRST_KEY]), "oidc.signature"),
    (
        "foreign-key-embedded",
        lie(key=FOREIGN_KEY, published=[FIRST_KEY], header={"jwk": FOREIGN_KEY.as_dict(private=False)}),
        "oidc.signature",
    ),
    ("algorithm-not-announced", lie(key=EC_KEY, header={"alg": "ES256"}), "oidc.algorithm"),
    ("kid-unknown", lie(header={"kid": "another"}), "oidc.unknown-key"),
    ("kid-missing", lie(header={"kid": None}, published=[FIRST_KEY, new_key("second")]), "oidc.unknown-key"),
    ("kid-not-text", forged({"alg": "RS256", "kid": 7}, lambda _: b"x"), "oidc.header"),
    (
        "weak-key",
        lie(published=[{"kty": "RSA", "kid": "first", "e": "AQAB", "n": "x" * 171}]),
        "oidc.unknown-key",
    ),
    (
        "crit-unknown",
        forged({"alg": "RS256", "kid": "first", "crit": ["x"], "x": 1}, lambda _: b"x"),
        "oidc.malformed",
    ),
    ("logout-token", lie(header={"typ": "logout+jwt"}), "oidc.header"),
    ("access-token", lie(header={"typ": "at+jwt"}), "oidc.header"),
    ("not-a-token", lie(id_token="not.a.token"), "oidc.malformed"),
    ("encrypted", lie(id_token="e30.e30.e30.e30.e30"), "oidc.malformed"),
    ("brackets", lie(id_token=base64.urlsafe_b64encode(b"[" * 30_000).decode() + ".e30.x"), "oidc.malformed"),
    ("too-long", lie(claims={"groups": ["g" * 100] * 700}), "oidc.too-long"),
    ("no-id-token", lie(token_answer={"id_token": None}), "oidc.id-token-missing"),
    ("token-answer-a-page", lie(token_answer={"expires_in": "<html>"}), "oidc.token-response"),
    (
        "userinfo-of-another",
        lie(claims={"groups": None}, userinfo={"sub": "x", "groups": ["doctors"]}),
        "oidc.userinfo-subject",
    ),
    ("code-missing", lie(answer_parameters={"code": None}), "oidc.code-missing"),
    ("code-stolen", lie(answer_parameters={"code": "somebody else's"}), "oidc.code-refused"),
    ("mix-up", lie(answer_parameters={"iss": "https://other.example"}), "oidc.response-issuer"),
    ("response-iss-missing", lie(answer_parameters={"iss": None}), "oidc.response-issuer"),
    (
        "provider-says-no",
        lie(answer_parameters={"code": None, "error": "access_denied"}),
        "oidc.provider-refused",
    ),
    ("group-unknown", lie(claims={"groups": ["nobody"]}), "login.no-role"),
    ("groups-nonsense", lie(claims={"groups": {"doctors": True}}), "login.no-role"),
]


@pytest.mark.parametrize(
    ("attack", "check"), [(lies, check) for _, lies, check in ATTACKS], ids=[a[0] for a in ATTACKS]
)
async def test_attack_is_refused(
    openid: World,
    provider: ScriptedProvider,
    sign_in: SignIn,
    attack: Callable[[ScriptedProvider], None],
    check: str,
) -> None:
    attack(provider)
    await refused(openid, sign_in, await way_back(sign_in), check)


async def test_a_response_signs_in_once(openid: World, provider: ScriptedProvider, sign_in: SignIn) -> None:
    url = await way_back(sign_in)
    answers = await asyncio.gather(*(sign_in.browser.get(url) for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [303, 403, 403, 403]
    await refused(openid, sign_in, url, "login.used-request")


async def test_another_browser_cannot_finish_a_sign_in_nor_spoil_it(
    openid: World, provider: ScriptedProvider, sign_in: SignIn
) -> None:
    url = await way_back(sign_in)
    async with Browser(openid.app) as other:
        await refused(openid, SignIn(other, ORIGIN), url, "login.other-browser")
    assert (await sign_in.browser.get(url)).status_code == 303


async def test_a_response_of_one_connection_is_nothing_to_another(
    openid: World, provider: ScriptedProvider, sign_in: SignIn
) -> None:
    await connect(openid, provider.issuer, "twin")
    url = (await way_back(sign_in)).replace("/callback/scripted?", "/callback/twin?")
    await refused(openid, sign_in, url, "oidc.other-connection")


async def test_a_response_to_nobody_fills_no_log(openid: World, sign_in: SignIn) -> None:
    before = await last_refusal(openid, "openid")
    answer = await sign_in.browser.get(f"{CALLBACK}/scripted?code=x&state=made-up")
    assert answer.status_code == 403
    assert await last_refusal(openid, "openid") == before


async def test_a_connection_that_is_switched_off_meanwhile_admits_nobody(
    openid: World, provider: ScriptedProvider, sign_in: SignIn
) -> None:
    url = await way_back(sign_in)
    await connect(openid, provider.issuer, "scripted", enabled=False)
    try:
        await refused(openid, sign_in, url, "login.connection-removed")
        assert (await sign_in.authorize(connection="scripted")).status_code == 404
    finally:
        await connect(openid, provider.issuer, "scripted", enabled=True)


async def test_neither_verifier_nor_nonce_can_be_made_from_what_is_stored_or_seen(
    openid: World, provider: ScriptedProvider, sign_in: SignIn
) -> None:
    first, second = [parse_qs(urlsplit(await to_provider(sign_in)).query) for _ in range(2)]
    assert first["nonce"] != second["nonce"]
    assert first["code_challenge"] != second["code_challenge"]
    async with openid.database.tenant(openid.tenant("openid").scope) as session:
        rows = (await session.scalars(select(LoginRequest).order_by(LoginRequest.id.desc()).limit(2))).all()
    kept = " ".join(str(value) for row in rows for value in vars(row).values())
    for secret in (*first["state"], *first["nonce"], sign_in.browser.cookies["__Host-dd-login"]):
        assert secret not in kept


# A provider that changes its keys, or does not answer


async def test_a_provider_changes_its_key(openid: World, provider: ScriptedProvider, sign_in: SignIn) -> None:
    assert (await sign_in.browser.get(await way_back(sign_in))).status_code == 303
    url = await way_back(sign_in)
    provider.key = new_key("second")
    keys = openid.parts[Providers]
    await refused(openid, sign_in, url, "oidc.unknown-key")  # asked a moment ago: not again at once
    assert provider.asked["/jwks"] == 1
    keys._keys[f"{provider.issuer}/jwks"] = (
        time.monotonic() - ASK_AGAIN_S - 1,
        keys._keys[f"{provider.issuer}/jwks"][1],
    )
    assert (await sign_in.browser.get(await way_back(sign_in))).status_code == 303
    assert provider.asked["/jwks"] == 2
    provider.header = {"kid": "made up"}
    for _ in range(3):
        await refused(openid, sign_in, await way_back(sign_in), "oidc.unknown-key")
    assert provider.asked["/jwks"] == 2


@pytest.mark.parametrize(
    ("lies", "status", "problem"),
    [
        (lie(status=500), 503, "no usable answer"),
        (lie(discovery={"issuer": "https://other.example"}), 502, "cannot be used"),
        (lie(discovery={"token_endpoint": "http://169.254.169.254/token"}), 502, "cannot be used"),
        (lie(discovery={"authorization_endpoint": "javascript:alert(1)"}), 502, "cannot be used"),
        (lie(discovery={"jwks_uri": None}), 502, "cannot be used"),
        (lie(discovery={"id_token_signing_alg_values_supported": "RS256"}), 502, "cannot be used"),
        (lie(discovery={"padding": "x" * MAX_DOCUMENT}), 503, "no usable answer"),
    ],
)
async def test_a_provider_that_makes_no_sense_is_told_apart_from_a_refusal(
    provider: ScriptedProvider,
    sign_in: SignIn,
    lies: Callable[[ScriptedProvider], None],
    status: int,
    problem: str,
) -> None:
    lies(provider)
    answer = await sign_in.authorize(connection="scripted")
    assert answer.status_code == status
    assert answer.headers["Content-Type"].startswith("text/html")
    assert problem in answer.text


async def test_a_provider_that_is_dead_or_silent_is_said_to_be(openid: World, sign_in: SignIn) -> None:
    await connect(openid, f"http://127.0.0.1:{free_port()}", "dead")
    assert (await sign_in.authorize(connection="dead")).status_code == 503
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and says nothing
        impatient = Providers(Fetcher("127.0.0.1", time_limit_s=0.2))
        with pytest.raises(ProviderUnreachable):
            await impatient.find(f"http://127.0.0.1:{silent.getsockname()[1]}")


async def test_a_provider_that_dies_in_between_is_said_to_be(
    openid: World, provider: ScriptedProvider, sign_in: SignIn
) -> None:
    url = await way_back(sign_in)
    provider.status = 500
    answer = await sign_in.browser.get(url)
    assert answer.status_code == 503
    assert "no usable answer" in answer.text


async def test_the_cloud_s_own_addresses_are_not_asked(openid: World, sign_in: SignIn) -> None:
    await connect(openid, "https://169.254.169.254", "metadata")
    answer = await sign_in.authorize(connection="metadata")
    assert answer.status_code == 422


# Signing out


async def signed_in(sign_in: SignIn) -> dict[str, str]:
    """The headers of somebody who has just signed in."""
    token = await sign_in.redeem(sign_in.code_of(await sign_in.browser.get(await way_back(sign_in))))
    return {"Authorization": f"Bearer {token.json()['access_token']}"}


def logout_token(provider: ScriptedProvider, **changed: Any) -> str:
    made = int(time.time())
    claims = {
        "iss": provider.issuer,
        "aud": CLIENT_ID,
        "iat": made,
        "exp": made + 120,
        "jti": str(new_id()),
        "sub": "subject-1",
        "events": {"http://schemas.openid.net/event/backchannel-logout": {}},
    } | changed
    return provider.sign({name: value for name, value in claims.items() if value is not None}, "logout+jwt")


async def tell_logout(openid: World, token: str) -> int:
    http = await openid.http("openid.localhost")
    answer = await http.post("/auth/oidc/logout/scripted", data={"logout_token": token})
    await openid.parts[Directory].refresh()
    return answer.status_code


async def test_whoever_signs_out_is_sent_to_the_provider(provider: ScriptedProvider, sign_in: SignIn) -> None:
    headers = await signed_in(sign_in)
    answer = await sign_in.browser.post(f"{ORIGIN}/auth/logout", headers=headers)
    assert answer.status_code == 200
    url = urlsplit(answer.json()["continue_at"])
    assert f"{url.scheme}://{url.netloc}{url.path}" == f"{provider.issuer}/end-session"
    assert parse_qs(url.query) == {"client_id": [CLIENT_ID]}


@pytest.mark.parametrize("named", [{}, {"sid": "here"}, {"sid": "here", "sub": None}])
async def test_a_sign_out_at_the_provider_ends_the_session_here(
    openid: World, provider: ScriptedProvider, sign_in: SignIn, named: dict[str, Any]
) -> None:
    mine = []
    for session in ("elsewhere", "here"):
        provider.person["sid"] = session
        mine.append(await signed_in(sign_in))
    assert await tell_logout(openid, logout_token(provider, **named)) == 200
    after = [(await sign_in.browser.get(f"{ORIGIN}/v1/me", headers=each)).status_code for each in mine]
    assert after == ([200, 401] if named else [401, 401])


LOGOUT_LIES: list[dict[str, Any]] = [
    {"iss": "https://other.example"},
    {"aud": "another client"},
    {"exp": now - 3600},
    {"iat": now - 3600},
    {"iat": None},
    {"nonce": "x"},
    {"events": None},
    {"events": {"other": {}}},
    {"jti": None},
    {"sub": None},
]


@pytest.mark.parametrize("lies", LOGOUT_LIES, ids=lambda lies: "-".join(lies))
async def test_a_logout_token_that_does_not_hold_ends_nothing(
    openid: World, provider: ScriptedProvider, sign_in: SignIn, lies: dict[str, Any]
) -> None:
    headers = await signed_in(sign_in)
    assert await tell_logout(openid, logout_token(provider, **lies)) == 403
    assert (await sign_in.browser.get(f"{ORIGIN}/v1/me", headers=headers)).status_code == 200


async def test_a_logout_token_works_once_and_no_other_token_does(
    openid: World, provider: ScriptedProvider, sign_in: SignIn
) -> None:
    token = logout_token(provider)
    assert await tell_logout(openid, token) == 200
    headers = await signed_in(sign_in)
    provider_key, provider.key = provider.key, FOREIGN_KEY
    forged_token = logout_token(provider)
    provider.key = provider_key
    id_token = provider.sign({"iss": provider.issuer, "aud": CLIENT_ID, "sub": "subject-1", "exp": now + 300})
    for attempt in (token, forged_token, id_token, "x", "a.b.c"):
        assert await tell_logout(openid, attempt) == 403
    assert (await sign_in.browser.get(f"{ORIGIN}/v1/me", headers=headers)).status_code == 200


# What is kept


async def test_a_secret_is_sealed_for_its_connection(openid: World, provider: ScriptedProvider) -> None:
    connection = await connect(openid, provider.issuer, "sealed")
    async with openid.admin.control() as session:
        row = await session.get_one(OidcConnection, (connection.tenant_id, connection.id))
    assert row.secret_sealed is not None
    assert CLIENT_SECRET.encode() not in row.secret_sealed
    key = (await openid.parts[KeyRing].data_key(openid.tenant("openid").scope)).secret
    assert crypto.unseal(key, row.secret_sealed, sealing_context(row.id)).decode() == CLIENT_SECRET
    with pytest.raises(crypto.CannotOpen):
        crypto.unseal(key, row.secret_sealed, sealing_context(new_id()))
    await connect(openid, provider.issuer, "sealed", secret=None)  # kept
    with pytest.raises(BadConnection, match="needs the client secret"):
        await connect(openid, provider.issuer, "bare", secret=None)


async def test_another_issuer_under_the_same_name_knows_nobody(openid: World) -> None:
    first = await connect(openid, "https://one.example", "moving", email_domains=["moving.example"])
    same = await connect(openid, "https://one.example", "moving")
    other = await connect(openid, "https://two.example", "moving")
    assert first.id == same.id != other.id
    assert other.email_domains == ["moving.example"]
