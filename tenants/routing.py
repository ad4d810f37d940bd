"""From host to tenant.

Pure ASGI: Starlette's `BaseHTTPMiddleware` costs a third of the throughput and breaks streaming and context
variables. Every request leaves here knowing its tenant's schema and container, or is refused.
"""

import re

from sqlalchemy.exc import DBAPIError
from starlette.types import ASGIApp, Receive, Scope, Send

from core import telemetry
from core.access import RequestContext
from core.settings import Settings
from tenants.directory.cache import Directory, TenantRecord
from tenants.directory.errors import TenantClosed, TenantMoving, TenantSuspended, UnknownHost

# Answered on every host, since load balancers and probes do not know our names.
ANY_HOST_PATHS = frozenset({"/healthy", "/health"})

# SQLSTATEs of what a move takes away: table, schema, role.
_TAKEN_AWAY = frozenset({"42P01", "3F000", "22023"})

_HOST = re.compile(r"(?P<host>[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?)\.?(?::\d{1,5})?")


def parse_host(header: bytes) -> str | None:
    """The host name in a Host header (RFC 9110, 7.2): lower case, without port and trailing dot; None when it is not
    one. International names arrive in their ASCII form (RFC 5891)."""
    try:
        match = _HOST.fullmatch(header.decode("ascii").lower())
    except UnicodeDecodeError:
        return None
    return match["host"] if match else None


def serve_or_refuse(record: TenantRecord) -> None:
    """Raise the problem that keeps this tenant from being served."""
    if record.state == "active":
        return
    if record.state == "moving":
        raise _moving()
    if record.state == "suspended":
        raise TenantSuspended("Your organisation's access is suspended; ask its administrator.")
    if record.state == "provisioning":
        raise UnknownHost("This address is being set up; try again in a minute.")
    if record.state in ("rolling-back", "rolled-back"):
        raise UnknownHost("Check the address: each organisation has its own.")
    raise TenantClosed("This organisation has left; its address is not in use any more.")


def _moving() -> TenantMoving:
    return TenantMoving("Your organisation's data is being moved; try again in a moment.", retry_after=5)


class TenantRouter:
    """Names the tenant on the request's context by its `Host`. Problems are raised to the middleware outside."""

    def __init__(self, app: ASGIApp, directory: Directory, settings: Settings) -> None:
        self._app = app
        self._directory = directory
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in ANY_HOST_PATHS:
            await self._route(scope)
        try:
            await self._app(scope, receive, send)
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) in _TAKEN_AWAY and await self._has_moved(scope):
                raise _moving() from error
            raise

    async def _has_moved(self, scope: Scope) -> bool:
        """Whether the tenant is another than the request was routed to: a move began, or ended, under its hands."""
        record: TenantRecord | None = scope["state"].get("tenant")
        if record is None:
            return False
        await self._directory.refresh()
        now = self._directory.by_key(record.scope.key)
        return now is None or now.state == "moving" or now.scope != record.scope

    async def _route(self, scope: Scope) -> None:
        context: RequestContext = scope["state"]["context"]
        await self._directory.fresh()
        headers = [value for name, value in scope["headers"] if name == b"host"]
        host = parse_host(headers[0]) if len(headers) == 1 else None
        if host == self._settings.base_domain:
            return  # the platform's own host: no tenant
        record = self._directory.at_host(host) if host else None
        if record is None:
            raise UnknownHost("Check the address: each organisation has its own.")
        serve_or_refuse(record)
        context.tenant = record.scope
        context.origin = self._settings.origin_of(record.home_host)
        scope["state"]["tenant"] = record
        telemetry.bind(tenant=record.scope.key)
