"""What SAML sign-in can refuse."""

from auth.connections.errors import SignInRefused


class SamlRefused(SignInRefused):
    """An identity provider's response was not accepted."""


class GateRefusal(SamlRefused):
    """Refused by our own gate; every other refusal is the library's."""
