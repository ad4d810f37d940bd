"""What can go wrong with keys."""

from core.problems import Conflict, Invalid, NotFound, Problem, Unavailable


class KeyMissing(Problem):
    """A tenant without a key it must have: provisioning did not finish."""

    status, slug, title = 500, "key-missing", "The tenant's key is missing"


class MasterKeyUnknown(Unavailable):
    slug, title = "master-key-unknown", "The master key is not the one that is needed"


class KeyNotFound(NotFound):
    slug, title = "key-not-found", "The tenant has no such key"


class RotationUnderWay(Conflict):
    slug, title = "rotation-under-way", "The key is being rotated already"


class KeyInUse(Conflict):
    slug, title = "key-in-use", "The key cannot be retired"


class BadRotation(Invalid):
    slug, title = "bad-rotation", "Not a usable rotation"


class KeysLocked(Invalid):
    slug, title = "keys-locked", "The keys do not open"


class SignatureRefused(Invalid):
    slug, title = "signature-refused", "The platform's signature does not hold"
