"""Errors as RFC 9457 problem details.

A room declares what can go wrong as subclasses of `Problem` in its `errors.py`; services raise them; the one
handler here turns them into `application/problem+json`. No route catches anything.
"""

from typing import Any, ClassVar

TYPE_PREFIX = "urn:problem-type:dermadetect:"
MEDIA_TYPE = "application/problem+json"


class Problem(Exception):
    """Something a caller did or met that has a name.

    `slug` ends the problem's `type` URI and stands in `docs/problems.md`; `title` is the same for every
    occurrence; `detail` says what was wrong this time and what to do about it, and never holds a secret, the
    text of another service, or health data. `extra` becomes additional members of the document.
    """

    status: ClassVar[int] = 500
    slug: ClassVar[str] = "internal"
    title: ClassVar[str] = "Internal error"
    media_type: ClassVar[str] = MEDIA_TYPE

    def __init__(self, detail: str, *, headers: dict[str, str] | None = None, **extra: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.headers = headers or {}
        self.extra = extra

    def document(self, instance: str | None = None) -> dict[str, Any]:
        """The problem as a JSON-ready mapping; `instance` is the request id."""
        body: dict[str, Any] = {
            "type": TYPE_PREFIX + self.slug,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
        }
        if instance:
            body["instance"] = f"urn:uuid:{instance}"
        return body | self.extra


class NotFound(Problem):
    status, slug, title = 404, "not-found", "Not found"


class Unauthenticated(Problem):
    """No token, or one that does not hold (RFC 6750)."""

    status, slug, title = 401, "unauthenticated", "Sign in first"

    def __init__(self, detail: str, **extra: Any) -> None:
        challenge = 'Bearer realm="dermadetect"'
        if extra.pop("invalid", False):
            challenge += ', error="invalid_token"'
        super().__init__(detail, headers={"WWW-Authenticate": challenge}, **extra)


class Forbidden(Problem):
    status, slug, title = 403, "forbidden", "Not allowed"


class Conflict(Problem):
    status, slug, title = 409, "conflict", "In conflict with the present state"


class Stale(Problem):
    """A lost update was prevented (RFC 9110, 13.1.1)."""

    status, slug, title = 412, "stale-version", "The resource has changed"


class Invalid(Problem):
    status, slug, title = 422, "invalid", "The request does not make sense"


class TooLarge(Problem):
    status, slug, title = 413, "too-large", "Too large"


class Unavailable(Problem):
    """A dependency is away; `Retry-After` is in seconds."""

    status, slug, title = 503, "unavailable", "Temporarily unavailable"

    def __init__(self, detail: str, retry_after: int = 1, **extra: Any) -> None:
        super().__init__(detail, headers={"Retry-After": str(retry_after)}, **extra)


def responses(*problems: type[Problem]) -> dict[int | str, dict[str, Any]]:
    """OpenAPI `responses` of a route that can answer with these problems."""
    by_status: dict[int | str, list[type[Problem]]] = {}
    for problem in problems:
        by_status.setdefault(problem.status, []).append(problem)
    return {
        status: {
            "description": "; ".join(f"{p.title} (`{p.slug}`)" for p in group),
            "content": {p.media_type: {"schema": {"$ref": "#/components/schemas/Problem"}} for p in group},
        }
        for status, group in by_status.items()
    }
