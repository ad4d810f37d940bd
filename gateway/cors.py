"""Browser apps on origins of their own (CORS, https://fetch.spec.whatwg.org/#http-cors-protocol).

A tenant's API may be called from the origins of its apps' redirect URIs, and from no other. Cookies are never allowed:
tokens travel in a header that a foreign page does not have. A request without `Origin` costs one look at its headers.
"""

import time
from collections.abc import Iterable
from urllib.parse import urlsplit

from sqlalchemy import func, select
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from auth.oauth.models import OAuthClient
from core.access import RequestContext
from core.database import Database, TenantScope

KEPT_S = 30.0
PATHS = ("/v1/", "/.well-known/", "/auth/token", "/auth/revoke")
PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, HEAD, POST, PUT, PATCH, DELETE",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match, Range",
    "Access-Control-Max-Age": "600",
}
EXPOSED = (
    b"ETag, Link, Location, Retry-After, RateLimit, RateLimit-Policy, X-Request-Id, WWW-Authenticate, "
    b"Idempotency-Replayed, Content-Range, Content-Disposition"
)


def origins_of(redirect_uris: Iterable[str]) -> frozenset[str]:
    """The web origins (RFC 6454) among redirect URIs; apps' own schemes have none."""
    parts = [urlsplit(uri) for uri in redirect_uris]
    return frozenset(f"{each.scheme}://{each.netloc}" for each in parts if each.scheme in ("https", "http"))


class BrowserOrigins:
    """Lets the browser show answers to pages of the tenant's apps, and answers its questions beforehand (preflights)
    before anything is authenticated. Stands inside `TenantRouter`, which names the tenant."""

    def __init__(self, app: ASGIApp, database: Database) -> None:
        self._app = app
        self._database = database
        self._known: dict[str, tuple[float, frozenset[str]]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and any(name == b"origin" for name, _ in scope["headers"]):
            context: RequestContext = scope["state"]["context"]
            headers = Headers(scope=scope)
            origin = headers["origin"]
            if context.tenant is not None and scope["path"].startswith(PATHS):
                context.answer_headers.append((b"vary", b"Origin"))
                if origin in await self._origins(context.tenant):
                    context.answer_headers.append((b"access-control-allow-origin", origin.encode("latin-1")))
                    if scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
                        await Response(status_code=204, headers=PREFLIGHT)(scope, receive, send)
                        return
                    context.answer_headers.append((b"access-control-expose-headers", EXPOSED))
        await self._app(scope, receive, send)

    async def _origins(self, tenant: TenantScope) -> frozenset[str]:
        until, origins = self._known.get(tenant.key, (0.0, frozenset()))
        if until < time.monotonic():
            query = select(func.unnest(OAuthClient.redirect_uris)).where(OAuthClient.disabled_at.is_(None))
            async with self._database.tenant(tenant) as session:
                origins = origins_of((await session.scalars(query)).all())
            self._known[tenant.key] = (time.monotonic() + KEPT_S, origins)
        return origins
