"""What can go wrong with a tenant's own domains."""

from core.problems import Conflict, Invalid, NotFound


class BadDomain(Invalid):
    slug, title = "bad-domain", "Not a usable domain"


class DomainTaken(Conflict):
    slug, title = "domain-taken", "The domain belongs to another tenant"


class DomainNotFound(NotFound):
    slug, title = "domain-not-found", "The tenant has no such domain"


class DomainNotProven(Conflict):
    slug, title = "domain-not-proven", "The domain is not proven to be the tenant's"
