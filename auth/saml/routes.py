"""The service provider's addresses (SAML 2.0 Web Browser SSO profile)."""

from typing import Annotated

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse

from auth.connections.browser import BrowserSecret
from auth.connections.errors import SignInRefused
from auth.connections.service import SignIn
from auth.keys.service import KeyRing
from auth.saml.request import sp_metadata
from auth.saml.service import SignInJail, complete, service_provider
from core.access import Tenant, context_of
from core.database import Database
from core.limits import RateLimited, declared_limits, limiter
from core.parts import part
from core.problems import responses

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
