"""Why a report cannot be rendered."""

from core.problems import Conflict, NotFound, Problem


class ReportImageUndescribed(Problem):
    """A reader who cannot see needs the alternative text of every photograph (ISO 14289-1, 7.3)."""

    status, slug, title = 422, "report-image-undescribed", "A photograph has no alternative text"


class ReportUnrenderable(Problem):
    """The content breaks what a PDF/A-2a and PDF/UA-1 document must be."""

    status, slug, title = 422, "report-unrenderable", "The report cannot be rendered"


class ReportNotFound(NotFound):
    slug, title = "report-not-found", "No such report"


class ReportInProgress(Conflict):
    """Somebody asked for the same report a moment ago."""

    slug, title = "report-in-progress", "The report is being made"


class ReportInterrupted(Conflict):
    """It was cleared away while it was being stored."""

    slug, title = "report-interrupted", "Ask for the report again"
