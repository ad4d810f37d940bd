"""Every page of signing in and out, in a real Chromium, with scripts and without: what a browser refuses (a form's
redirect that the page's policy does not name, a cookie) no other client shows."""

import base64
import hashlib
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import pytest
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor.totp import TOTP
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from auth.invitations import service as invitations
from auth.keys.service import KeyRing
from auth.local import administration
from auth.local.credentials import STEP_S, new_password
from auth.oauth.service import register_client
from auth.oidc.settings import set_connection as set_oidc
from auth.saml.settings import set_connection as set_saml
from cli.servers import listen
from cli.servers import serving as serving_here
from reference.idp.app import create_app as create_idp
from reference.idp.config import IdpConfig, User
from tenants.directory.cache import Directory
from tests.auth.test_saml_peers import introduce_samlp
from tests.fixtures.chromium import Chromium, Page
from tests.fixtures.openid import CLIENT_ID as OIDC_CLIENT
from tests.fixtures.openid import CLIENT_SECRET, oidc_provider
from tests.fixtures.postgres import PostgresServer
from tests.fixtures.saml_peers import Samlp
from tests.fixtures.servers import free_port, serving
from tests.fixtures.world import World, open_world, settings_for

APP = "browser-app"
WEB = ""  # the site's own
NATIVE = "com.example.derma:/callback"
IPV6 = "http://[::1]:4321/callback"
STRANGER = User("u-stranger@nowhere", "stranger@nowhere", "Nobody Known", ("unmapped",))
SCRIPTS = pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no-scripts"])


@dataclass
class Site:
    """The gateway as browsers reach it, two identity providers of the tenant `acme`, and its client app."""

    world: World
    origin: str
    app: str
    idp: str
    openid: str


@dataclass
class Asking:
    """What the client app asks for."""

    site: Site
    redirect_uri: str
    verifier: str = field(default_factory=lambda: secrets.token_urlsafe(48))
    state: str = field(default_factory=lambda: secrets.token_urlsafe(8))

    def at(self, path: str, origin: str = "") -> str:
        digest = hashlib.sha256(self.verifier.encode()).digest()
        query = {
            "response_type": "code",
            "client_id": APP,
            "redirect_uri": self.redirect_uri,
            "code_challenge": base64.urlsafe_b64encode(digest).decode().rstrip("="),
            "code_challenge_method": "S256",
            "state": self.state,
        }
        return f"{origin or self.site.origin}{path}?{urlencode(query)}"

    async def bearer(self, url: str, origin: str = "") -> dict[str, str]:
        """The code of the app's address is worth a token."""
        origin = origin or self.site.origin
        query = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        assert (query["state"], query["iss"]) == (self.state, origin)
        form = {
            "grant_type": "authorization_code",
            "code": query["code"],
            "redirect_uri": self.redirect_uri,
            "client_id": APP,
            "code_verifier": self.verifier,
        }
        http = await self.site.world.http(urlsplit(origin).hostname or "")
        token = await http.post("/auth/token", data=form)
        assert token.status_code == 200, token.text
        return {"Authorization": f"Bearer {token.json()['access_token']}"}


async def _arrived(request: Request) -> Response:
    return HTMLResponse("<!doctype html><title>App</title><h1>Welcome to the app</h1>")


@contextmanager
def client_app() -> Iterator[str]:
    with serving(Starlette(routes=[Route("/callback", _arrived)])) as url:
        yield f"{url}/callback"


@pytest.fixture(scope="module")
async def site(
    chromium: Chromium, postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Site]:
    logins = await postgres.create_database("browser")
    listener = listen("127.0.0.1", 0)
    port, idp_port = listener.getsockname()[1], free_port()
    settings = settings_for(
        logins.admin_url,
        logins.gateway_url,
        tmp_path_factory.mktemp("blobs"),
        public_url=f"http://localhost:{port}",
        sso_fetch_allow="127.0.0.1",
    )
    plain = IdpConfig(f"http://127.0.0.1:{idp_port}")
    idp = replace(plain, directory=lambda sp: (*plain.directory(sp), STRANGER), encrypt=True)
    origin = f"http://acme.localhost:{port}"
    client = {
        "client_id": OIDC_CLIENT,
        "client_secret": CLIENT_SECRET,
        "redirect_uris": [f"{origin}/auth/oidc/callback/openid"],
    }
    with (
        client_app() as app,
        serving(create_idp(idp), idp_port),
        oidc_provider([client]) as openid,
    ):
        async with open_world(settings, "acme", "samlp") as world, serving_here(world.app, listener):
            site = Site(world, origin, app, plain.base_url, openid)
            await _connect(site, idp)
            yield site


async def _connect(site: Site, idp: IdpConfig) -> None:
    world = site.world
    scope = world.tenant().scope
    async with world.admin.control() as session:
        await set_saml(
            session,
            "acme",
            name="saml",
            idp_entity_id=idp.entity_id,
            sso_url=idp.sso_url,
            certificates=[idp.key.certificate_pem.decode()],
            role_mapping={"derma-coordinators": "coordinator"},
            common={"email_domains": ["acme.localhost"]},
        )
        await set_oidc(
            session,
            "acme",
            name="openid",
            issuer=site.openid,
            client_id=OIDC_CLIENT,
            client_auth="client_secret_basic",
            secret=CLIENT_SECRET,
            data_key=await world.parts[KeyRing].data_key(scope),
            role_mapping={"doctors": "physician"},
            scopes=["email", "profile", "groups"],
            email_domains=["clinic.example"],
        )
    for slug in ("acme", "samlp"):
        async with world.database.tenant(world.tenant(slug).scope) as tenant:
            await register_client(tenant, APP, "Browser app", [site.app, NATIVE, IPV6])
    await world.parts[Directory].refresh()
    async with httpx.AsyncClient() as http:
        metadata = (await (await world.http()).get("/auth/saml/metadata")).content
        (await http.put(f"{site.idp}/service-providers", content=metadata)).raise_for_status()


async def choose_person(page: Page, site: Site, name: str, *, scripts: bool) -> None:
    """At the reference identity provider, whose answer a script sends, or else a click."""
    await page.until(f"{site.idp}/sso")
    await page.click("button", name)
    if not scripts:
        await page.click("button", "Continue")


async def me(site: Site, bearer: dict[str, str]) -> Any:
    return (await (await site.world.http()).get("/v1/me", headers=bearer)).json()


@SCRIPTS
async def test_an_address_leads_to_the_saml_provider_and_on_to_the_app(
    chromium: Chromium, site: Site, scripts: bool
) -> None:
    asking = Asking(site, site.app)
    async with chromium.page(javascript=scripts) as page:
        assert await page.go(asking.at("/auth/sign-in")) == 200
        await page.fill("Your e-mail address at work", "coordinator@acme.localhost")
        await page.click("button", "Continue")
        await choose_person(page, site, "Carla Cordes", scripts=scripts)
        bearer = await asking.bearer(await page.until(site.app))
    found = await me(site, bearer)
    assert (found["user"]["email"], found["roles"]) == ("coordinator@acme.localhost", ["coordinator"])


@SCRIPTS
async def test_an_address_leads_to_the_openid_provider_and_signing_out_there_too(
    chromium: Chromium, site: Site, scripts: bool
) -> None:
    asking = Asking(site, site.app)
    async with chromium.page(javascript=scripts) as page:
        assert await page.go(asking.at("/auth/sign-in")) == 200
        await page.fill("Your e-mail address at work", "dana@clinic.example")
        await page.click("button", "Continue")
        await page.until(f"{site.openid}/interaction")
        await page.fill("login", "dana")
        await page.fill("password", "any")
        await page.click("button", "Sign-in")
        await page.click("button", "Continue")
        bearer = await asking.bearer(await page.until(site.app))
        assert (await me(site, bearer))["roles"] == ["physician"]

        answer = await (await site.world.http()).post("/auth/logout", headers=bearer)
        await page.go(answer.json()["continue_at"])
        await page.click("button", "Yes, sign me out")
        await page.see("Sign-out Success")
    await site.world.heard()
    assert (await (await site.world.http()).get("/v1/me", headers=bearer)).status_code == 401


@SCRIPTS
async def test_an_address_of_nobody_is_met_with_a_choice(
    chromium: Chromium, site: Site, scripts: bool
) -> None:
    asking = Asking(site, site.app)
    async with chromium.page(javascript=scripts) as page:
        await page.go(asking.at("/auth/sign-in"))
        await page.fill("Your e-mail address at work", "somebody@nowhere.example")
        await page.click("button", "Continue")
        await page.see("No sign-in belongs to this address alone.")
        await page.click("link", "saml")
        await choose_person(page, site, "Carla Cordes", scripts=scripts)
        await asking.bearer(await page.until(site.app))


@SCRIPTS
async def test_who_is_refused_sees_a_calm_page_with_a_reference(
    chromium: Chromium, site: Site, scripts: bool
) -> None:
    async with chromium.page(javascript=scripts) as page:
        await page.go(Asking(site, site.app).at("/auth/authorize") + "&connection=saml")
        await choose_person(page, site, "Nobody Known", scripts=scripts)
        await page.until(f"{site.origin}/auth/saml/acs")
        await page.see("Reference:")
        text = await page.text()
        assert "give this reference to your organisation's administrator" in text
        await page.until(f"{site.origin}/auth/saml/acs")


async def test_a_sign_in_begun_in_another_browser_ends_in_none(chromium: Chromium, site: Site) -> None:
    async with chromium.page() as mine, chromium.page() as theirs:
        await mine.go(Asking(site, site.app).at("/auth/authorize") + "&connection=saml")
        await theirs.go(await mine.until(f"{site.idp}/sso"))
        await choose_person(theirs, site, "Carla Cordes", scripts=True)
        await theirs.see("Reference:")


@pytest.mark.parametrize(
    ("app", "scripts"),
    [(WEB, True), (WEB, False), (NATIVE, False), (IPV6, False)],
    ids=["scripts", "no-scripts", "native", "ipv6"],
)
async def test_a_local_administrator_signs_in(
    chromium: Chromium, site: Site, app: str, scripts: bool
) -> None:
    name, password, secret = await a_local_administrator(site)
    asking = Asking(site, app or site.app)
    async with chromium.page(javascript=scripts) as page:
        assert await page.go(asking.at("/auth/local")) == 200
        for attempt in ("wrong", password) if app == WEB else (password,):
            await page.fill("Name", name)
            await page.fill("Password", attempt)
            await page.fill("Code", TOTP(secret, 6, SHA1(), STEP_S).generate(int(time.time())).decode())
            await page.click("button", "Sign in")
            if attempt == "wrong":
                await page.see("Name, password or code is not right")
        # What other programs open, or nobody here answers, is known by the redirect alone.
        await asking.bearer(await (page.until(site.app) if app == WEB else page.leave(app)))


async def a_local_administrator(site: Site) -> tuple[str, str, bytes]:
    """Name, password and the secret of the codes."""
    name, password, scope = f"admin-{secrets.token_hex(4)}", new_password(), site.world.tenant().scope
    key = await site.world.parts[KeyRing].data_key(scope)
    async with site.world.database.tenant(scope) as session:
        secret = await administration.create_administrator(session, key, name, password)
    return name, password, secret


@SCRIPTS
async def test_who_signs_out_signs_out_at_the_saml_provider(
    chromium: Chromium, site: Site, samlp: Samlp, scripts: bool
) -> None:
    origin = site.origin.replace("acme", "samlp")
    await introduce_samlp(site.world, samlp, "samlp", origin)
    asking = Asking(site, site.app)
    async with chromium.page(javascript=scripts) as page:
        await page.go(asking.at("/auth/sign-in", origin))  # the only connection: it goes on by itself
        if not scripts:
            await page.until(samlp.url)
            await page.click("button", "Submit")
        bearer = await asking.bearer(await page.until(site.app), origin)
        answer = await (await site.world.http("samlp.localhost")).post("/auth/logout", headers=bearer)
        await page.go(answer.json()["continue_at"])
        await page.see("at your organisation's sign-in.")


@pytest.mark.parametrize("width", [320, 1280])
async def test_pages_fit_a_narrow_and_a_wide_window(
    chromium: Chromium, site: Site, tmp_path: Path, width: int
) -> None:
    asking, origin = Asking(site, site.app), site.origin
    await a_local_administrator(site)
    wish = invitations.Wish("a-rather-long-address@department.clinic.example", ["physician"])
    async with site.world.database.tenant(site.world.tenant().scope) as session:
        _, token = await invitations.invite(session, None, wish, life=timedelta(days=1), seat_limit=50)
    pages = {
        "choice": asking.at("/auth/sign-in"),
        "unknown": asking.at("/auth/sign-in") + "&login_hint=x@nowhere.example",
        "local": asking.at("/auth/local"),
        "problem": f"{origin}/auth/authorize?client_id=unknown",
        "refused": f"{origin}/auth/saml/logout?SAMLRequest=x",
        "invitation": invitations.invitation_url(origin, token),
        "accepted": f"{origin}/auth/invitation",
        "report": f"{origin}/verify/unknown",
    }
    async with chromium.page(width=width) as page:
        for name, url in pages.items():
            await page.go(url)
            await page.picture(tmp_path / f"{name}.png")
            assert await page.overflow() <= 0, name
