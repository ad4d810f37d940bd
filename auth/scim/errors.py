"""What can go wrong with a directory's tokens, and how any problem is told in SCIM's own form."""

from typing import Any

from core.problems import Conflict, Invalid, NotFound, Problem

MEDIA_TYPE = "application/scim+json"


def scim_error(problem: Problem) -> tuple[int, dict[str, Any]]:
    """The status and the document (RFC 7644, 3.12) that tell a directory of a problem."""
    status, error = problem.status, {"detail": problem.detail}
    if status == Invalid.status:
        status, error["scimType"] = 400, "invalidValue"
    return status, {
        "schemas": ["urn:ietf:params:scim:api:messages:2.0:Error"],
        "status": str(status),
        **error,
    }


class ScimTokenNotFound(NotFound):
    slug, title = "scim-token-not-found", "No such SCIM token"


class ScimTokenNameTaken(Conflict):
    slug, title = "scim-token-name-taken", "The name of a SCIM token is taken"


class BadScimToken(Invalid):
    slug, title = "bad-scim-token", "Not a usable SCIM token"
