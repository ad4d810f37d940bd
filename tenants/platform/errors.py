"""What can go wrong with platform tokens."""

from core.problems import Conflict, Invalid, NotFound


class TokenNameTaken(Conflict):
    slug, title = "token-name-taken", "A platform token has or had this name"


class BadToken(Invalid):
    slug, title = "bad-token", "Not a usable name or scope of a platform token"


class TokenNotFound(NotFound):
    slug, title = "token-not-found", "No such platform token"
