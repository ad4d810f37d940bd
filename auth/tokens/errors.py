"""What can be wrong with an access token. All look alike to the caller: 401, and nothing that helps to forge one."""

from core.problems import Unauthenticated


class TokenRefused(Unauthenticated):
    """`check` says for our logs what was wrong."""

    slug, title = "token-refused", "The access token does not hold"

    def __init__(self, check: str) -> None:
        super().__init__("Sign in again for a new access token; this one is not valid here.", invalid=True)
        self.check = check
