"""The page that tells who scanned a report's code whether it is genuine: HTML, no JavaScript, no health data."""

import html

from clinic.reports.schemas import Verification

_PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="robots" content="noindex">
<style>body{{font:1.1rem/1.6 system-ui,sans-serif;max-width:38rem;margin:12vh auto;padding:0 1.5rem;color:#1d2b36}}
h1{{color:{colour}}}dt{{color:#5a6b78}}dd{{margin:0 0 .8rem;overflow-wrap:anywhere}}</style></head>
<body><main><h1>{title}</h1><p>{text}</p>{facts}</main></body></html>"""


def genuine_page(report: Verification) -> str:
    """What is known of a genuine report."""
    facts = {
        "Issued by": report.organisation,
        "Issued at": f"{report.issued_at:%Y-%m-%d %H:%M} UTC",
        "SHA-256 of the PDF": report.sha256,
        "Fingerprint of the signed answer": report.content_sha256,
    }
    listed = "".join(f"<dt>{name}</dt><dd>{html.escape(value)}</dd>" for name, value in facts.items())
    return _PAGE.format(
        title="This report is genuine, but a newer one replaces it"
        if report.superseded
        else "This report is genuine",
        colour="#8a5a00" if report.superseded else "#12613f",
        text="Compare the fingerprint with the one printed in your copy; if they differ, the copy was changed.",
        facts=f"<dl>{listed}</dl>",
    )


def unknown_page() -> str:
    """No report carries the code."""
    return _PAGE.format(
        title="This code belongs to no report",
        colour="#8c1d18",
        text="Check that the address is complete. If it is, do not rely on the document: it was not issued here.",
        facts="",
    )
