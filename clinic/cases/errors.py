"""What can go wrong with cases."""

from core.problems import Conflict, Forbidden, Invalid, NotFound


class CaseNotFound(NotFound):
    slug, title = "case-not-found", "No such case"


class NotYourPart(Forbidden):
    """Extra member: `action`."""

    slug, title = "not-your-part", "You see this case, but this is for somebody else to do"


class WrongStatus(Conflict):
    """Extra members: `case_status`, `action`."""

    slug, title = "case-wrong-status", "Not possible in the case's present status"


class ImageMissing(Conflict):
    slug, title = "image-missing", "A case needs a photograph"


class NoAiTriage(Conflict):
    slug, title = "no-ai-triage", "The AI Service has not triaged this case"


class UnknownPool(Invalid):
    slug, title = "unknown-pool", "No such pool"
