"""The service provider's addresses (SAML 2.0 Web Browser SSO profile)."""

import logging
from typing import Annotated, Any

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from auth.connections.browser import BrowserSecret
from auth.connections.errors import SignInRefused
from auth.connections.service import SignIn
from auth.keys.service import KeyRing
from auth.saml.errors import SamlRefused
from auth.saml.logout import answer_logout, finish_logout
from auth.saml.logout_messages import Arrived
from auth.saml.request import sp_metadata
from auth.saml.service import SignInJail, complete, service_provider
from core.access import Tenant, context_of
from core.database import Database
from core.limits import RateLimited, declared_limits, limiter
from core.pages import page
from core.parts import part
from core.problems import responses

log = logging.getLogger(__name__)

router = APIRouter(tags=["single sign-on"])


@router.get(
    "/auth/saml/metadata",
    summary="What to tell the identity provider about this tenant",
    operation_id="saml_metadata",
    response_class=Response,
    responses={200: {"content": {"application/samlmetadata+xml": {}}}},
)
async def metadata(request: Request, tenant: Tenant, keys: Annotated[KeyRing, part(KeyRing)]) -> Response:
    key = await keys.saml_key(tenant)
    sp = service_provider(
        context_of(request).origin, key.private_pem, key.certificate_pem, other_keys=key.others
    )
    return Response(sp_metadata(sp), media_type="application/samlmetadata+xml")


@router.post(
    "/auth/saml/acs",
    summary="Where the identity provider's response arrives",
    operation_id="saml_acs",
    response_class=RedirectResponse,
    status_code=303,
    responses=responses(SignInRefused, RateLimited),
    dependencies=[declared_limits],
)
@limiter.limit("60/minute")
async def assertion_consumer_service(
    request: Request,
    tenant: Tenant,
    database: Annotated[Database, part(Database)],
    keys: Annotated[KeyRing, part(KeyRing)],
    jail: Annotated[SignInJail, part(SignInJail)],
    saml_response: Annotated[str, Form(alias="SAMLResponse", max_length=400_000)] = "",
    relay_state: Annotated[str, Form(alias="RelayState", max_length=200)] = "",
    browser_secret: BrowserSecret = "",
) -> RedirectResponse:
    url = await complete(
        database,
        keys,
        jail,
        SignIn(tenant, context_of(request).origin),
        saml_response=saml_response,
        relay_state=relay_state,
        browser_secret=browser_secret,
    )
    return RedirectResponse(url, status_code=303)


_LOGOUT: dict[str, Any] = {
    "response_class": HTMLResponse,
    "responses": responses(SignInRefused, RateLimited),
    "dependencies": [declared_limits],
}


@router.get(
    "/auth/saml/logout",
    summary="Where the identity provider signs somebody out, or says that it did (HTTP-Redirect)",
    operation_id="saml_logout_redirect",
    **_LOGOUT,
)
@limiter.limit("60/minute")
async def logout_by_redirect(
    request: Request,
    tenant: Tenant,
    database: Annotated[Database, part(Database)],
    keys: Annotated[KeyRing, part(KeyRing)],
    jail: Annotated[SignInJail, part(SignInJail)],
) -> Response:
    # The signature is over the query as it was sent, so it is taken as it was sent.
    query = request.scope["query_string"].decode("ascii", "replace")
    arrived = Arrived("SAMLResponse" if "SAMLResponse" in request.query_params else "SAMLRequest", query)
    return await _signed_out(database, keys, jail, SignIn(tenant, context_of(request).origin), arrived, "")


@router.post(
    "/auth/saml/logout",
    summary="The same by HTTP-POST",
    operation_id="saml_logout_post",
    **_LOGOUT,
)
@limiter.limit("60/minute")
async def logout_by_post(
    request: Request,
    tenant: Tenant,
    database: Annotated[Database, part(Database)],
    keys: Annotated[KeyRing, part(KeyRing)],
    jail: Annotated[SignInJail, part(SignInJail)],
    saml_request: Annotated[str, Form(alias="SAMLRequest", max_length=400_000)] = "",
    saml_response: Annotated[str, Form(alias="SAMLResponse", max_length=400_000)] = "",
    relay_state: Annotated[str, Form(alias="RelayState", max_length=2000)] = "",
) -> Response:
    arrived = (
        Arrived("SAMLResponse", form=saml_response)
        if saml_response
        else Arrived("SAMLRequest", form=saml_request)
    )
    where = SignIn(tenant, context_of(request).origin)
    return await _signed_out(database, keys, jail, where, arrived, relay_state)


async def _signed_out(
    database: Database, keys: KeyRing, jail: SignInJail, where: SignIn, arrived: Arrived, relay_state: str
) -> Response:
    try:
        if arrived.parameter == "SAMLRequest":
            url = await answer_logout(database, keys, jail, where, arrived, relay_state)
            if url is not None:
                return RedirectResponse(url, status_code=303)
            everywhere = True
        else:
            everywhere = await finish_logout(database, keys, jail, where, arrived)
    except SamlRefused as refusal:
        # Not audited: anybody can send such a message, and the tenant's log only grows.
        log.warning("sign-out refused", extra={"check": refusal.check_id})
        raise
    text = (
        "You are signed out here and at your organisation's sign-in."
        if everywhere
        else "You are signed out here. At your organisation's sign-in, or in other applications, you may still be signed "
        "in: close the browser."
    )
    return HTMLResponse(page("Signed out", f"<p>{text}</p>"))
