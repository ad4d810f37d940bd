"""What can go wrong with plans and quotas."""

from core.problems import Invalid, NotFound, Problem


class QuotaExceeded(Problem):
    """Extra members: `metric`, `limit`, and for monthly quotas `resets_at`."""

    status, slug, title = 429, "quota-exceeded", "The plan's quota is used up"


class UnknownMetric(Invalid):
    slug, title = "unknown-metric", "No such quota"


class PlanNotFound(NotFound):
    slug, title = "plan-not-found", "No such plan"
