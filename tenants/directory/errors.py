"""What can go wrong between a host name and a tenant."""

from core.problems import Conflict, Invalid, NotFound, Problem, Unavailable


class UnknownHost(NotFound):
    slug, title = "unknown-host", "No tenant answers at this host"


class TenantNotFound(NotFound):
    slug, title = "tenant-not-found", "No such tenant"


class TenantMoving(Unavailable):
    slug, title = "tenant-moving", "This tenant's data is being moved"


class TenantSuspended(Problem):
    status, slug, title = 403, "tenant-suspended", "This tenant is suspended"


class TenantClosed(Problem):
    status, slug, title = 410, "tenant-closed", "This tenant has been closed"


class SlugTaken(Conflict):
    slug, title = "slug-taken", "The slug is in use"


class BadSlug(Invalid):
    slug, title = "bad-slug", "Not a usable slug"


class WrongState(Conflict):
    slug, title = "wrong-state", "Not possible in the tenant's present state"
