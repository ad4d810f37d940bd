"""SCIM over HTTP (RFC 7644). One route: the library knows the protocol's addresses and methods, and the service
describes itself at `/scim/v2/Schemas`, so it is not in the OpenAPI document."""

from fastapi import APIRouter
from pydantic_core import to_json
from scim2_models import SCIMException
from scim2_server.requests import ScimRequest
from scim2_server.responses import ScimResponse
from starlette.requests import Request
from starlette.responses import Response

from auth.scim.following import end_sessions
from auth.scim.protocol import SERVICE, Handler
from auth.scim.storage import Storage
from core.access import context_of
from core.database import Database
from core.parts import Parts
from core.problems import Unauthenticated

PREFIX = "/scim/v2"

router = APIRouter()


async def serve(request: Request) -> Response:
    """Answer a request of the tenant's directory. What its change takes from people has ended when it is told."""
    parts: Parts = request.app.state.parts
    context = context_of(request)
    path = request.scope["path"].removeprefix(PREFIX) or "/"
    by = context.principal
    if by is None:
        if path != "/ServiceProviderConfig":  # RFC 7643, 5: how to authenticate can be read before
            raise Unauthenticated("Send a SCIM token of this tenant as `Authorization: Bearer …`.")
        return _told(SERVICE.service_provider_config(context.origin + PREFIX + path, {}))
    if context.over_quota is not None:
        await context.over_quota.count()  # never refused: a directory must be able to shut people out
    storage = Storage(parts[Database], by)
    asked = ScimRequest(
        method=request.method,
        base_url=context.origin + PREFIX,
        path=path,
        query=dict(request.query_params),
        headers=request.headers.items(),
        body=await request.body(),
    )
    try:
        answer = await Handler(SERVICE, storage).handle(asked)
    except SCIMException as refusal:
        answer = SERVICE.error_response(refusal)
    await end_sessions(parts[Database], by, storage)
    return _told(answer)


def _told(answer: ScimResponse) -> Response:
    body = b"" if answer.body is None else to_json(answer.body)
    return Response(body, answer.status, answer.headers)


router.add_route(
    PREFIX + "{path:path}", serve, methods=["GET", "POST", "PUT", "PATCH", "DELETE"], include_in_schema=False
)
