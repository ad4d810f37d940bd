"""What can go wrong with keys."""

from core.problems import Problem


class KeyMissing(Problem):
    """A tenant without a key it must have: provisioning did not finish."""

    status, slug, title = 500, "key-missing", "The tenant's key is missing"
