"""OAuth errors: the token endpoint answers in RFC 6749's own form, the browser sees a page."""

from core.problems import Problem


class OAuthError(Problem):
    """RFC 6749, 5.2: `error` is its code, in the body beside the problem's members."""

    status, slug, title = 400, "oauth-error", "The authorization server refused"
    media_type = "application/json"  # what RFC 6749 promises to client libraries

    def __init__(self, error: str, detail: str) -> None:
        super().__init__(
            detail,
            headers={"Cache-Control": "no-store"},
            error=error,
            error_description=detail,
        )
