"""Every error leaves here: as problem+json (RFC 9457), or as a calm page for a browser that is signing in."""

import logging
import socket
from collections.abc import Mapping
from typing import Any

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm.exc import StaleDataError
from starlette.exceptions import HTTPException
from starlette.types import Scope

from auth.scim.errors import MEDIA_TYPE as SCIM
from auth.scim.errors import scim_error
from core.problems import Invalid, NotFound, Problem, Stale, TooLarge, Unavailable
from gateway.pages import render_page

log = logging.getLogger(__name__)

BROWSER_PATHS = (
    "/auth/authorize",
    "/auth/sign-in",
    "/auth/saml/acs",
    "/auth/saml/logout",
    "/auth/oidc/callback/",
    "/auth/invitation",
    "/auth/local",
)


class MethodNotAllowed(Problem):
    status, slug, title = 405, "method-not-allowed", "Not a method of this resource"


class UnsupportedMediaType(Problem):
    status, slug, title = 415, "unsupported-media-type", "Not a media type this accepts"


class BadRequest(Problem):
    status, slug, title = 400, "bad-request", "The request cannot be read"


_BY_STATUS: Mapping[int, type[Problem]] = {
    400: BadRequest,
    404: NotFound,
    405: MethodNotAllowed,
    413: TooLarge,
    415: UnsupportedMediaType,
}


def _fields(error: RequestValidationError) -> list[dict[str, Any]]:
    # Where and what, never the value: it may be a patient's name, or megabytes.
    return [
        {
            "location": ".".join(str(part) for part in each["loc"]),
            "message": each["msg"],
            "type": each["type"],
        }
        for each in error.errors()[:50]
    ]


# SQLSTATE classes and codes that pass by themselves: connection, resources, operator; cancelled, lock, deadlock.
_PASSING = ("08", "53", "57P", "57014", "55P03", "40P01", "40001")
_UNSTORABLE = "22"  # data exceptions: a NUL character, a number out of range


def _database_problem(error: DBAPIError) -> Problem | None:
    state = getattr(error.orig, "sqlstate", None)
    if state is None:
        return _away(error) if error.connection_invalidated else None
    if state.startswith(_PASSING):
        return _away(error, state)
    if state.startswith(_UNSTORABLE):
        return Invalid("A value cannot be stored as it is; it may hold a NUL character or be out of range.")
    return None


def _away(error: Exception, state: str | None = None) -> Problem:
    log.warning("database unavailable", extra={"error": type(error).__name__, "sqlstate": state})
    return Unavailable("The database does not answer at the moment; try again.", retry_after=2)


def problem_of(error: Exception) -> Problem:
    """The problem that tells a caller about `error`; what it does not recognise is logged and told as a 500 that
    says nothing but where to ask."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, RequestValidationError):
        return Invalid(
            "Some fields are missing or not as they should be; see `errors`.", errors=_fields(error)
        )
    if isinstance(error, HTTPException):
        kind = _BY_STATUS.get(error.status_code, BadRequest)
        detail = {
            404: "There is nothing at this address.",
            405: "See the API's documentation.",
            413: "The request body is longer than this server takes.",
        }
        return kind(detail.get(error.status_code, str(error.detail)), headers=dict(error.headers or {}))
    if isinstance(error, StaleDataError):
        return Stale("Somebody changed it at the same time; read it again and decide anew.")
    if isinstance(error, DBAPIError) and (known := _database_problem(error)):
        return known
    if isinstance(error, PoolTimeout | ConnectionError | TimeoutError | socket.gaierror):
        return _away(error)
    log.error("unhandled error", exc_info=error)
    return Problem(
        "Something went wrong here. Tell your administrator the request id, which finds it in the logs."
    )


def _wants_page(scope: Scope) -> bool:
    """Browsers come by links and by forms; an identity provider's form may come without a telling `Accept`."""
    if not scope["path"].startswith(BROWSER_PATHS):
        return False
    headers = dict(scope["headers"])
    form = headers.get(b"content-type", b"").startswith(b"application/x-www-form-urlencoded")
    accept = headers.get(b"accept", b"")
    return b"text/html" in accept or (form and b"json" not in accept)


def render(problem: Problem, scope: Scope) -> Response:
    """The response that tells the caller of `scope` about `problem`."""
    request_id: str = scope["state"]["context"].request_id
    if _wants_page(scope):
        return render_page(problem, request_id)
    if scope["path"].startswith("/scim/"):
        status, document = scim_error(problem)
        return JSONResponse(document, status, headers=problem.headers, media_type=SCIM)
    return JSONResponse(
        problem.document(request_id), problem.status, headers=problem.headers, media_type=problem.media_type
    )
