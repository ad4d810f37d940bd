"""Where a local administrator signs in."""

from typing import Annotated
from urllib.parse import urlsplit

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from auth.connections.browser import BrowserSecret, keep_or_make, set_browser_secret
from auth.connections.errors import SignInRefused
from auth.connections.service import Asked, SignIn
from auth.keys.service import KeyRing
from auth.local import service
from auth.local.credentials import PasswordCheck
from auth.local.errors import NoLocalSignIn, NothingAsked
from auth.local.page import form_page
from auth.oauth.errors import OAuthError
from auth.oauth.service import check_challenge, find_client
from core.access import Tenant, context_of
from core.database import Database
from core.limits import RateLimited, declared_limits, limiter
from core.parts import part
from core.problems import Unavailable, responses

router = APIRouter(tags=["single sign-on"])


@router.get(
    "/auth/local",
    summary="The form of a local administrator",
    operation_id="local_form",
    response_class=HTMLResponse,
    responses=responses(OAuthError, NoLocalSignIn, NothingAsked, RateLimited),
    dependencies=[declared_limits],
)
@limiter.limit("30/minute")
async def form(
    request: Request,
    tenant: Tenant,
    database: Annotated[Database, part(Database)],
    client_id: Annotated[str, Query(max_length=63)] = "",
    redirect_uri: Annotated[str, Query(max_length=2000)] = "",
    code_challenge: Annotated[str, Query(max_length=128)] = "",
    code_challenge_method: Annotated[str, Query(max_length=16)] = "",
    state: Annotated[str | None, Query(max_length=500)] = None,
    scope: Annotated[str, Query(max_length=1000)] = "",
    browser_secret: BrowserSecret = "",
) -> Response:
    """With the parameters of `/auth/authorize`, or without any, for what an app asked of this browser last."""
    origin = context_of(request).origin
    if request.url.hostname != urlsplit(origin).hostname:  # an alias: the cookie must belong to the home host
        return RedirectResponse(f"{origin}/auth/local?{request.url.query}", status_code=303)
    asked = None
    if client_id:
        async with database.tenant(tenant) as session:
            client = await find_client(session, client_id, redirect_uri)
        check_challenge(code_challenge, code_challenge_method)
        asked = Asked(client.id, redirect_uri, code_challenge, state, scope)
    browser_secret = keep_or_make(browser_secret)
    made = await service.offer(database, SignIn(tenant, origin), asked=asked, browser_secret=browser_secret)
    return _shown(made, browser_secret, refused=False)


@router.post(
    "/auth/local",
    summary="Sign in as a local administrator",
    operation_id="local_sign_in",
    response_class=RedirectResponse,
    status_code=303,
    responses=responses(SignInRefused, NoLocalSignIn, RateLimited, Unavailable),
    dependencies=[declared_limits],
)
@limiter.limit("10/minute")
async def sign_in(
    request: Request,
    tenant: Tenant,
    database: Annotated[Database, part(Database)],
    keys: Annotated[KeyRing, part(KeyRing)],
    passwords: Annotated[PasswordCheck, part(PasswordCheck)],
    relay: Annotated[str, Form(max_length=200)] = "",
    name: Annotated[str, Form(max_length=200)] = "",
    password: Annotated[str, Form(max_length=1000)] = "",
    code: Annotated[str, Form(max_length=20)] = "",
    browser_secret: BrowserSecret = "",
) -> Response:
    """Sends the browser back to the app with its code, or shows the form again (403)."""
    entered = await service.enter_locally(
        database,
        keys,
        passwords,
        SignIn(tenant, context_of(request).origin),
        relay_secret=relay,
        browser_secret=browser_secret,
        name=name.strip(),
        password=password,
        code=code.replace(" ", ""),
    )
    if isinstance(entered, service.Form):
        return _shown(entered, browser_secret, refused=True)
    return RedirectResponse(entered, status_code=303)


def _shown(made: service.Form, browser_secret: str, *, refused: bool) -> Response:
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; form-action 'self' {_source(made.redirect_uri)}; "
        "frame-ancestors 'none'"
    )
    response = HTMLResponse(
        form_page(made, refused=refused),
        403 if refused else 200,
        headers={"Content-Security-Policy": policy},
    )
    set_browser_secret(response, browser_secret)
    return response


def _source(redirect_uri: str) -> str:
    """The app that asked, as a content security policy names it: browsers follow a form's redirect only where its page
    says so. There is no way to name an IPv6 address (Content Security Policy 3, 2.3.1), so its scheme has to do."""
    target = urlsplit(redirect_uri)
    if not target.netloc or ":" in (target.hostname or ""):
        return f"{target.scheme}:"
    return f"{target.scheme}://{target.netloc}"
