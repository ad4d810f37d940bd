"""What OpenID Connect sign-in can refuse, and what a provider can do wrong."""

from auth.connections.errors import SignInRefused
from core.problems import Problem


class OidcRefused(SignInRefused):
    """An OpenID provider's answer was not accepted."""


class ProviderUnusable(Problem):
    """A provider answers, but not as OpenID Connect wants; the detail says what was wrong and quotes nothing."""

    status, slug, title = 502, "provider-unusable", "The identity provider's documents cannot be used"
