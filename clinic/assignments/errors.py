"""What can go wrong when a physician takes a case."""

from core.problems import Conflict, NotFound


class NotEligible(Conflict):
    """Extra member: `failed`, the conditions that do not hold: `registration`, `availability`, `capacity`,
    `specialty`, `licence`, `pool`."""

    slug, title = "not-eligible", "You cannot take this case"


class NothingToClaim(NotFound):
    slug, title = "nothing-to-claim", "No case is waiting for you"
