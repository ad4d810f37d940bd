"""The ASGI application."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

import auth.connections.routes
import auth.invitations.routes
import auth.local.routes
import auth.oauth.routes
import auth.oauth.token_routes
import auth.oidc.routes
import auth.people.routes
import auth.saml.routes
import auth.scim.routes
import auth.sessions.routes
import clinic.ai.routes
import clinic.annotations.routes
import clinic.assignments.routes
import clinic.cases.routes
import clinic.content
import clinic.images.routes
import clinic.patients.routes
import clinic.physicians.routes
import clinic.reports.routes
import gateway.health
import tenants.audit.routes
import tenants.operations.routes
import tenants.plans.routes
import tenants.platform.routes
from auth.saml.service import SignInJail
from auth.tokens.service import TokenVerifier
from core.blobs import BlobStores
from core.database import Database
from core.jail import Jail
from core.limits import RateLimits
from core.parts import Parts
from core.problems import Problem
from core.settings import Settings
from core.spool import Spool
from gateway.assembly import disassemble
from gateway.cors import BrowserOrigins
from gateway.middleware import AccessGate, BodyLimits, RequestFrame
from gateway.openapi import describe
from gateway.operations import platform_verbs
from gateway.problems import problem_of, render
from tenants.background.bells import Bells
from tenants.directory.cache import Directory
from tenants.operations.service import OperationRunner
from tenants.plans.counter import UsageCounter
from tenants.platform.service import PlatformAccess
from tenants.routing import TenantRouter

ROUTERS = (  # routes are tried in this order, so the busiest come first
    clinic.cases.routes.router,
    clinic.images.routes.router,
    clinic.content.router,
    gateway.health.router,
    auth.oauth.token_routes.router,
    auth.oauth.routes.router,
    auth.connections.routes.router,
    auth.oidc.routes.router,
    auth.saml.routes.router,
    auth.local.routes.router,
    auth.invitations.routes.router,  # before `/v1/users/{user_id}`
    auth.people.routes.router,
    auth.scim.routes.router,
    auth.sessions.routes.router,
    tenants.plans.routes.router,
    tenants.audit.routes.router,
    clinic.patients.routes.router,
    clinic.ai.routes.router,
    clinic.physicians.routes.router,
    clinic.assignments.routes.router,
    clinic.annotations.routes.router,
    clinic.reports.routes.router,
    tenants.platform.routes.router,
    tenants.operations.routes.router,
)


async def _tell(request: Request, error: Exception) -> Response:
    return render(problem_of(error), request.scope)


def create_app(parts: Parts) -> FastAPI:
    """The gateway over assembled parts; its lifespan starts the directory and closes the parts at the end."""

    operations = None
    if parts[Settings].platform_api:
        verbs = platform_verbs(parts[Settings], parts[BlobStores])
        operations = OperationRunner(parts[PlatformAccess].database(), verbs)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        try:
            for jail in (parts[Jail], parts[SignInJail]):
                jail.warm()
            parts[Spool].clear()
            await parts[Directory].start()
            parts[Bells].start()
            if operations:
                operations.start()
            yield
        finally:
            if operations:
                await operations.stop()
            await disassemble(parts)

    app = FastAPI(
        title="DermaDetect gateway",
        version=version("dermadetect"),
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
    )
    app.state.parts = parts
    app.state.examiner = gateway.health.Examiner(parts)
    for router in ROUTERS:
        # Included routers would be matched one within the other at every request; flat routes cost a third less.
        app.router.routes.extend(router.routes)
    describe(app)
    for kind in (Problem, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, _tell)
    # The last one added is outermost.
    app.add_middleware(
        AccessGate,
        settings=parts[Settings],
        limits=parts[RateLimits],
        tokens=parts[TokenVerifier],
        database=parts[Database],
        counter=parts[UsageCounter],
        platform=parts[PlatformAccess],
    )
    app.add_middleware(BrowserOrigins, database=parts[Database])
    app.add_middleware(TenantRouter, directory=parts[Directory], settings=parts[Settings])
    app.add_middleware(BodyLimits, settings=parts[Settings])
    app.add_middleware(RequestFrame)
    return app
