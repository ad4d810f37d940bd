"""What can go wrong at the end of a tenant's life."""

from core.problems import Conflict, NotFound


class GraceNotOver(Conflict):
    slug, title = "grace-not-over", "The grace period is not over"


class PurgeBegun(Conflict):
    slug, title = "purge-begun", "The tenant is being purged"


class NoCertificate(NotFound):
    slug, title = "no-certificate", "There is no deletion certificate"
