"""OAuth errors: the token endpoint answers in RFC 6749's own form, the browser sees a page."""

from collections.abc import Mapping

from core.problems import NotFound, Problem


class OAuthError(Problem):
    """RFC 6749, 5.2: `error` is its code, in the body beside the problem's members."""

    status, slug, title = 400, "oauth-error", "The authorization server refused"
    media_type = "application/json"  # what RFC 6749 promises to client libraries

    def __init__(self, error: str, detail: str, headers: Mapping[str, str] = {}) -> None:
        super().__init__(
            detail,
            headers={"Cache-Control": "no-store", **headers},
            error=error,
            error_description=detail,
        )


class InvalidClient(OAuthError):
    """RFC 6749, 5.2 and RFC 7617. Whether the id or the secret was wrong is nobody's business."""

    status, slug, title = 401, "invalid-client", "The client has not proved who it is"

    def __init__(self) -> None:
        super().__init__(
            "invalid_client",
            "No machine client of this tenant has this id and secret.",
            {"WWW-Authenticate": 'Basic realm="dermadetect", charset="UTF-8"'},
        )


class ClientNotFound(NotFound):
    slug, title = "client-not-found", "No such client"
