"""Who is asking, and what a route demands of them.

`auth` makes a `Principal` of a token and the gateway puts it on the request before any route runs; routes of
every room declare what they need with `requires("cases:read")`.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import Depends, Request

from core.database import ControlSession, Database, TenantScope, TenantSession
from core.parts import Parts
from core.problems import Forbidden, NotFound, Problem, Unauthenticated


@dataclass(frozen=True, slots=True)
class Principal:
    """A signed-in user or machine client of one tenant.

    `subject` is the id of the user or client, `session` the sign-in it came from, `acting` the machine client that
    acts on behalf of the user, if one does. Row rules in services look at `subject` and `roles`; routes look at
    `scopes`.
    """

    tenant: TenantScope
    kind: Literal["user", "client"]
    subject: UUID
    session: UUID
    roles: frozenset[str]
    scopes: frozenset[str]
    acting: UUID | None = None

    def has_any(self, *roles: str) -> bool:
        return not self.roles.isdisjoint(roles)


@dataclass(frozen=True, slots=True)
class Operator:
    """Who operates the platform over HTTP: the name of a platform token, and what it may do."""

    name: str
    scopes: frozenset[str]

    @property
    def actor(self) -> str:
        """How the platform's audit log calls them."""
        return f"token:{self.name}"


@dataclass(frozen=True, slots=True)
class OverQuota:
    """The month's requests are used up: routes raise `problem`, those never refused call `count` and go on."""

    problem: Problem
    count: Callable[[], Awaitable[None]]


@dataclass(slots=True)
class RequestContext:
    """What the middleware learned about a request, at `scope["state"]["context"]`."""

    request_id: str
    client_address: str
    tenant: TenantScope | None = None
    origin: str = ""  # the tenant's home origin: issuer of its tokens, never taken from the Host header
    principal: Principal | None = None
    over_quota: OverQuota | None = None
    operator: Operator | None = None  # on the platform's own host only
    answer_headers: list[tuple[bytes, bytes]] = field(default_factory=list)  # whatever the answer will be


def context_of(request: Request) -> RequestContext:
    """The request's context; the gateway's middleware always sets one."""
    context: RequestContext = request.scope["state"]["context"]
    return context


def _signed_in(context: RequestContext) -> Principal:
    if context.principal is None:
        raise Unauthenticated("Send an access token of this tenant as `Authorization: Bearer …`.")
    return context.principal


async def _any_principal(request: Request) -> Principal:
    context = context_of(request)
    who = _signed_in(context)
    if context.over_quota is not None:
        await context.over_quota.count()
    return who


def _lacks(scope: str) -> Forbidden:
    """RFC 6750, 3.1."""
    challenge = f'Bearer realm="dermadetect", error="insufficient_scope", scope="{scope}"'
    return Forbidden(
        f"This needs the scope `{scope}`, which your token does not carry.",
        headers={"WWW-Authenticate": challenge},
        scope=scope,
    )


signed_in = Depends(_any_principal)
"""For routes that anyone who is signed in may use, whatever their scopes."""


def requires(scope: str, *, never_refused: bool = False) -> Any:
    """A dependency that gives the `Principal`, and refuses one without `scope`.

    `never_refused` is for an emergency and for a physician's answer: they are counted against the quota like
    any request but still served beyond it. Raises `Unauthenticated` (401), `Forbidden` (403), and the quota's
    own problem (429).
    """

    async def principal(request: Request) -> Principal:
        context = context_of(request)
        who = _signed_in(context)
        if scope not in who.scopes:
            raise _lacks(scope)
        if context.over_quota is not None:
            if not never_refused:
                raise context.over_quota.problem
            await context.over_quota.count()
        return who

    principal.required_scope = scope  # type: ignore[attr-defined]  # tests list every route's scope
    return Depends(principal)


def requires_operator(scope: str) -> Any:
    """A dependency that gives the `Operator` and refuses one without `scope`. On tenants' hosts there is nothing.
    Raises `NotFound` (404) and `Forbidden` (403)."""

    async def operator(request: Request) -> Operator:
        who = context_of(request).operator
        if who is None:
            raise NotFound("There is nothing at this address.")
        if scope not in who.scopes:
            raise _lacks(scope)
        return who

    operator.required_scope = scope  # type: ignore[attr-defined]  # tests list every route's scope
    return Depends(operator)


async def _tenant(request: Request) -> TenantScope:
    tenant = context_of(request).tenant
    if tenant is None:
        raise NotFound("This address belongs to a tenant's host; use the host your organisation was given.")
    return tenant


Tenant = Annotated[TenantScope, Depends(_tenant)]


async def _tenant_session(request: Request) -> AsyncIterator[TenantSession]:
    parts: Parts = request.app.state.parts
    # Asked for here and not as a dependency, each of which costs FastAPI as much as a row of the database.
    async with parts[Database].tenant(await _tenant(request)) as session:
        yield session


# `scope="function"`: the transaction ends before the response leaves. With FastAPI's default it would end
# after the body was sent, and a client could be told of a success that the database then refuses.
Session = Annotated[TenantSession, Depends(_tenant_session, scope="function")]


async def _control_session(request: Request) -> AsyncIterator[ControlSession]:
    parts: Parts = request.app.state.parts
    async with parts[Database].control() as session:
        yield session


Control = Annotated[ControlSession, Depends(_control_session, scope="function")]
