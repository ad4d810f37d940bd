"""The demo's people: a browser that signs in, an app that calls the API, and a journal of every request."""

import asyncio
import base64
import hashlib
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from html.parser import HTMLParser
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
from rich.text import Text

from cli.output import err

WAIT_S = 60


class StepFailed(Exception):
    """A step of the demo did not end as it should; the text names it."""


class LoopbackTransport(httpx.AsyncHTTPTransport):
    """Reaches every host below `localhost` at 127.0.0.1 (RFC 6761, 6.3), which not every system resolves."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        host = request.url.host
        if host == "localhost" or host.endswith(".localhost"):
            request = httpx.Request(
                request.method,
                request.url.copy_with(host="127.0.0.1"),
                headers=request.headers,  # its Host header stays
                stream=request.stream,
                extensions=request.extensions,
            )
        return await super().handle_async_request(request)


def client(**options: Any) -> httpx.AsyncClient:
    """An HTTP client of this machine's servers, with a browser's view that loopback is secure: it keeps `Secure`
    cookies over http (W3C Secure Contexts, 3.1)."""
    jar = CookieJar(DefaultCookiePolicy(secure_protocols=("https", "http")))
    made = httpx.AsyncClient(
        transport=LoopbackTransport(), cookies=jar, timeout=60, trust_env=False, **options
    )

    async def send_cookies(request: httpx.Request) -> None:
        made.cookies.set_cookie_header(request)  # httpx itself sends a copy of the jar that forgot the policy

    made.event_hooks = {"request": [send_cookies]}
    return made


@dataclass(frozen=True)
class Step:
    """One request. `path` is a pattern, without ids; `ms` is how long it took."""

    tenant: str
    who: str
    step: str
    method: str
    path: str
    status: int
    ms: float


@dataclass
class Journal:
    """Every request of the demo, printed as it ends; and the client app that makes them."""

    client_id: str
    redirect_uri: str
    steps: list[Step] = field(default_factory=list)

    def add(self, step: Step, *, ok: bool) -> None:
        self.steps.append(step)
        line = Text.assemble(
            ("✓ " if ok else "✗ ", "green" if ok else "bold red"),
            (f"{step.tenant:7}", "bold cyan"),
            f"{step.who:12}",
            f"{step.step:38}",
            (f"{step.method:5}{step.path:44} ", "dim"),
            f"{step.status}",
            (f"{step.ms:8.0f} ms", "dim"),
        )
        err.print(line, soft_wrap=True)


@dataclass
class Person:
    """Somebody at one tenant, with the browser and token of their own."""

    journal: Journal
    tenant: str
    origin: str
    who: str
    http: httpx.AsyncClient

    async def call(
        self,
        step: str,
        method: str,
        path: str,
        *,
        expect: tuple[int, ...] = (200,),
        until: Callable[[httpx.Response], bool] | None = None,
        origin: str | None = None,
        headers: dict[str, str] | None = None,
        json: Any = None,
        data: dict[str, str] | None = None,
        **ids: str,
    ) -> httpx.Response:
        """Send a request to the `path` pattern filled with `ids`; with `until`, again and again until an answer is as
        wanted, which is one step. Raises `StepFailed` for an unexpected status, or if that takes too long."""
        url = (origin or self.origin) + path.format(**ids)
        started = time.perf_counter()
        try:
            answer = await self.http.request(method, url, headers=headers, json=json, data=data)
            while until and answer.status_code in expect and not until(answer):
                if time.perf_counter() - started > WAIT_S:
                    raise StepFailed(f"{self.tenant}, {self.who}, {step}: not within {WAIT_S} s")
                await asyncio.sleep(0.1)
                answer = await self.http.request(method, url, headers=headers, json=json, data=data)
        except httpx.HTTPError as error:
            raise StepFailed(f"{self.tenant}, {self.who}, {step}: {type(error).__name__}") from error
        ms = round((time.perf_counter() - started) * 1000, 1)
        ok = answer.status_code in expect
        shown = path.split("?")[0]
        self.journal.add(Step(self.tenant, self.who, step, method, shown, answer.status_code, ms), ok=ok)
        if not ok:
            raise StepFailed(
                f"{self.tenant}, {self.who}, {step}: {method} {shown} answered {answer.status_code}, not "
                f"{' or '.join(map(str, expect))}: {answer.text[:600]}"
            )
        return answer

    async def sign_in(self, login: str) -> None:
        """OAuth 2.1 authorization code with PKCE, over SAML at the identity provider."""
        verifier, state = secrets.token_urlsafe(48), secrets.token_urlsafe(16)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
        query = urlencode(
            {
                "response_type": "code",
                "client_id": self.journal.client_id,
                "redirect_uri": self.journal.redirect_uri,
                "code_challenge": challenge,
                "code_challenge_method": "S256",
                "state": state,
            }
        )
        asked = await self.call("start sign-in", "GET", f"/auth/authorize?{query}", expect=(303,))
        sso = urlsplit(asked.headers["Location"])
        idp = f"{sso.scheme}://{sso.netloc}"
        page = await self.call(
            "see the identity provider's page", "GET", f"{sso.path}?{sso.query}", origin=idp
        )
        form = _Form(page.text)
        me = next((each for each in form.choices if each.startswith(f"u-{login}@")), "")
        answer = await self.call(
            "choose whom to be", "POST", sso.path, origin=idp, data=form.fields | {"user": me}
        )
        form = _Form(answer.text)
        landed = await self.call(
            "bring the assertion back", "POST", urlsplit(form.action).path, expect=(303,), data=form.fields
        )
        back = {
            name: values[0] for name, values in parse_qs(urlsplit(landed.headers["Location"]).query).items()
        }
        if back.get("state") != state or back.get("iss") != self.origin:
            raise StepFailed(f"{self.tenant}, {self.who}: the answer belongs to another sign-in")
        token = await self.call(
            "exchange the code for a token",
            "POST",
            "/auth/token",
            data={
                "grant_type": "authorization_code",
                "code": back["code"],
                "redirect_uri": self.journal.redirect_uri,
                "client_id": self.journal.client_id,
                "code_verifier": verifier,
            },
        )
        self.http.headers["Authorization"] = f"Bearer {token.json()['access_token']}"


class _Form(HTMLParser):
    """A page's first form: where it goes, its fields, and the values of its buttons."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.action = ""
        self.fields: dict[str, str] = {}
        self.choices: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.action = given["action"]
        elif tag == "input":
            self.fields[given["name"]] = given["value"]
        elif tag == "button" and "value" in given:
            self.choices.append(given["value"])
