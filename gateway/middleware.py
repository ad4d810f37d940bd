"""What every request passes through, outermost first: `RequestFrame`, `BodyLimits`, `tenants.routing.TenantRouter`,
`gateway.cors.BrowserOrigins`, `AccessGate`.

Pure ASGI, for the reasons in `tenants.routing`.
"""

import logging
import time

from limits import parse
from starlette.exceptions import HTTPException
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from auth.scim.service import authenticate as authenticate_directory
from auth.tokens.errors import TokenRefused
from auth.tokens.service import TokenVerifier
from core import telemetry
from core.access import OverQuota, Principal, RequestContext
from core.database import Database
from core.ids import new_id
from core.limits import RateLimits, Window, per_minute
from core.problems import NotFound, TooLarge, Unauthenticated
from core.settings import Settings
from gateway.problems import problem_of, render
from tenants.directory.cache import TenantRecord
from tenants.plans.counter import UsageCounter
from tenants.plans.errors import QuotaExceeded
from tenants.platform.service import PlatformAccess
from tenants.routing import ANY_HOST_PATHS

log = logging.getLogger(__name__)
access_log = logging.getLogger("dermadetect.access")

MOST_COMMAS = 5_000  # in a question with photographs

OPERATOR_LIMIT = per_minute(600)

# What the platform's own host answers.
PLATFORM_PATHS = ANY_HOST_PATHS | {"/openapi.json"}

# Clients prove themselves there by their secrets, which may stand in the header `Authorization`.
CLIENT_PATHS = frozenset({"/auth/token", "/auth/revoke", "/auth/introspect"})

# No page of ours runs scripts or is framed, and what is told in confidence is not cached. A route may say otherwise.
STANDING_HEADERS = [
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (
        b"content-security-policy",
        b"default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'",
    ),
    (b"strict-transport-security", b"max-age=63072000; includeSubDomains"),
]


class RequestFrame:
    """Request id, log line, security headers, and the one place where errors become answers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        request_id = str(new_id())
        client = scope.get("client")
        context = RequestContext(request_id, client[0] if client else "")
        scope.setdefault("state", {})["context"] = context
        telemetry.bind(request_id, tenant="")
        status = 0

        async def framed_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = message.setdefault("headers", [])
                said = {name for name, _ in headers}
                headers += [(b"x-request-id", request_id.encode()), *context.answer_headers]
                headers += [each for each in STANDING_HEADERS if each[0] not in said]
            await send(message)

        try:
            await self._app(scope, receive, framed_send)
        except Exception as error:
            problem = problem_of(error)
            if status:
                raise  # the answer is under way; the server cuts the connection, which tells the client
            await render(problem, scope)(scope, receive, framed_send)
        finally:
            route = scope.get("route")
            access_log.info(
                "request",
                extra={
                    "method": scope["method"],
                    "route": getattr(route, "path", None),  # the pattern: a path may hold a token
                    "status": status,
                    "duration_ms": round((time.perf_counter() - started) * 1000, 1),
                },
            )


class BodyLimits:
    """Photographs may be long, everything else is short: parsing megabytes of brackets would hold up the loop."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._sizes = {True: settings.max_body_bytes, False: settings.max_json_bytes}
        self._apps = {kind: RequestBodyLimitMiddleware(app, size) for kind, size in self._sizes.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._apps[False](scope, receive, send)
            return
        asks = scope["path"].startswith("/v1/ai/")
        holds_photographs = asks or scope["path"].endswith("/images")
        size = self._sizes[holds_photographs]
        for name, value in scope["headers"]:
            # Starlette counts what arrives; what is announced as too long gets our answer at once.
            if name == b"content-length" and value.isdigit() and int(value) > size:
                raise TooLarge(f"The body of such a request may have {size} bytes at most.")
        if asks:
            receive = _few_members(receive)
        await self._apps[holds_photographs](scope, receive, send)


def _few_members(receive: Receive) -> Receive:
    """A photograph in JSON is one long text; what is long by its many members costs the parser seconds instead."""
    commas = 0

    async def counting() -> Message:
        nonlocal commas
        message = await receive()
        commas += message.get("body", b"").count(b",")
        if commas > MOST_COMMAS:
            # FastAPI, which reads the body, lets its own kind of exception through as it is.
            raise HTTPException(413)
        return message

    return counting


class AccessGate:
    """Address limit, authentication, user and tenant limits, quota: in this order, before anything is parsed.

    Everything under `/v1/` needs a token; other paths are public, and their routes demand what they need.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        settings: Settings,
        limits: RateLimits,
        tokens: TokenVerifier,
        database: Database,
        counter: UsageCounter,
        platform: PlatformAccess,
    ) -> None:
        self._app = app
        self._limits = limits
        self._tokens = tokens
        self._database = database
        self._counter = counter
        self._platform = platform
        self._address_limit = parse(settings.address_limit)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] == "/healthy":
            await self._app(scope, receive, send)
            return
        context: RequestContext = scope["state"]["context"]
        window = await self._limits.hit("address", self._address_limit, context.client_address or "-")
        tenant: TenantRecord | None = scope["state"].get("tenant")
        if tenant is None:
            # Before the body is read: the platform's own host has little to say.
            if scope["path"].startswith("/platform/v1/"):
                context.operator = await self._platform.authenticate(_bearer_token(scope))
                window = await self._limits.hit("operator", OPERATOR_LIMIT, context.operator.name)
            elif scope["path"] not in PLATFORM_PATHS:
                raise NotFound(
                    "This address belongs to a tenant's host; use the host your organisation was given."
                )
            await self._app(scope, receive, _with_limit_headers(send, window))
            return
        token = None if scope["path"] in CLIENT_PATHS else _bearer_token(scope)
        if token is not None:
            context.principal = await self._authenticate(token, tenant, context, scope["path"])
            window = await self._count(context, tenant)
        elif scope["path"].startswith("/v1/"):
            raise Unauthenticated("Send an access token of this tenant as `Authorization: Bearer …`.")
        await self._app(scope, receive, _with_limit_headers(send, window))

    async def _authenticate(
        self, token: str, tenant: TenantRecord, context: RequestContext, path: str
    ) -> Principal:
        if path.startswith("/scim/"):
            return await authenticate_directory(self._database, tenant.scope, token)
        try:
            return await self._tokens.verify(token, tenant, context.origin)
        except TokenRefused as refusal:
            log.info("token refused", extra={"check": refusal.check})
            raise

    async def _count(self, context: RequestContext, tenant: TenantRecord) -> Window:
        """Count the request for its user and its tenant; returns the tighter of the two windows."""
        principal = context.principal
        assert principal is not None
        key = tenant.scope.key
        user = await self._limits.hit(
            "user", per_minute(tenant.limits["requests_per_minute_user"]), f"{key}:{principal.subject}"
        )
        whole = await self._limits.hit("tenant", per_minute(tenant.limits["requests_per_minute_tenant"]), key)
        try:
            await self._counter.consume(tenant, "requests")
        except QuotaExceeded as problem:
            context.over_quota = OverQuota(problem, lambda: self._counter.count_beyond(tenant, "requests"))
        return min(user, whole, key=lambda window: window.remaining)


def _bearer_token(scope: Scope) -> str | None:
    """The access token of the request (RFC 6750, 2.1; tokens in query or body are not taken)."""
    values = [value for name, value in scope["headers"] if name == b"authorization"]
    if not values:
        return None
    value: bytes = values[0]
    scheme, _, token = value.decode("latin-1").partition(" ")
    if len(values) > 1 or scheme.lower() != "bearer" or not token.strip():
        raise Unauthenticated("Send one `Authorization: Bearer …` header.")
    return token.strip()


def _with_limit_headers(send: Send, window: Window) -> Send:
    async def wrapped(message: Message) -> None:
        if message["type"] == "http.response.start":
            message.setdefault("headers", []).extend(
                (name.lower().encode(), value.encode()) for name, value in window.headers().items()
            )
        await send(message)

    return wrapped
