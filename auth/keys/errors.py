"""What can go wrong with keys."""

from core.problems import Invalid, Problem


class KeyMissing(Problem):
    """A tenant without a key it must have: provisioning did not finish."""

    status, slug, title = 500, "key-missing", "The tenant's key is missing"


class KeysLocked(Invalid):
    slug, title = "keys-locked", "The keys do not open"


class SignatureRefused(Invalid):
    slug, title = "signature-refused", "The platform's signature does not hold"
