"""The page that tells who scanned a report's code whether it is genuine: HTML, no JavaScript, no health data."""

import html

from clinic.reports.schemas import Verification
from core.pages import page

_GOOD, _REPLACED, _UNKNOWN = "#1a8a5a", "#c98500", "#b3261e"


def genuine_page(report: Verification) -> str:
    """What is known of a genuine report."""
    facts = {
        "Issued by": report.organisation,
        "Issued at": f"{report.issued_at:%Y-%m-%d %H:%M} UTC",
        "SHA-256 of the PDF": report.sha256,
        "Fingerprint of the signed answer": report.content_sha256,
    }
    listed = "".join(f"<dt>{name}</dt><dd>{html.escape(value)}</dd>" for name, value in facts.items())
    return page(
        "This report is genuine, but a newer one replaces it"
        if report.superseded
        else "This report is genuine",
        "<p>Compare the fingerprint with the one printed in your copy; if they differ, the copy was changed.</p>"
        f"<dl>{listed}</dl>",
        head=_beside_title(_REPLACED if report.superseded else _GOOD),
    )


def unknown_page() -> str:
    """No report carries the code."""
    return page(
        "This code belongs to no report",
        "<p>Check that the address is complete. If it is, do not rely on the document: it was not issued here.</p>",
        head=_beside_title(_UNKNOWN),
    )


def _beside_title(colour: str) -> str:
    return f"<style>h1{{border-left:.4rem solid {colour};padding-left:.8rem}}</style>"
