"""What a sign-in through an identity provider can refuse, whatever the protocol.

A refusal names the check that refused, so that an administrator can find the cause. That name belongs into the
tenant's audit log and not into the browser's answer: told apart, "could not decrypt" and "decrypted but malformed"
are the oracle that breaks CBC-encrypted assertions (Jager and Somorovsky, CCS 2011).
"""

from typing import Any

from core.problems import Invalid, NotFound, Problem


class SignInRefused(Problem):
    """An identity provider's answer was not accepted, or the person it names.

    `check_id` is stable (`saml.transform-forbidden`); `explanation` is fixed text that never quotes what was
    received. Both travel between processes; neither is part of the problem document.
    """

    status, slug, title = 403, "sign-in-refused", "The sign-in was refused"

    def __init__(self, check_id: str, explanation: str = "") -> None:
        super().__init__("The response of the identity provider was not accepted. Start the sign-in again.")
        self.check_id = check_id
        self.explanation = explanation

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.check_id, self.explanation)

    def __str__(self) -> str:
        return f"{self.check_id}: {self.explanation}" if self.explanation else self.check_id


class UnknownRequest(SignInRefused):
    """A response that nobody waits for."""


class NoConnection(NotFound):
    slug, title = "no-identity-provider", "Single sign-on is not set up"


class BadConnection(Invalid):
    slug, title = "bad-connection", "Not a usable identity provider"
