"""The page that somebody sees in whose browser a sign-in went wrong. It needs no script and says nothing that helps
an attacker; the reference finds the cause in the tenant's audit log (`dermadetect sso refusals`)."""

from html import escape

from fastapi.responses import HTMLResponse

from core.problems import Problem

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
body {{ font: 1.1rem/1.6 system-ui, sans-serif; max-width: 34rem; margin: 15vh auto; padding: 0 1.5rem }}
code {{ overflow-wrap: anywhere; user-select: all }}
</style>
</head>
<body>
<main>
<h1>{title}</h1>
<p>{detail}</p>
{fields}<h2>What to do</h2>
<p>{advice}</p>
<p>Reference: <code>{reference}</code></p>
</main>
</body>
</html>
"""

_ADVICE = {
    403: "Go back to the application and sign in again. If that does not help, give this reference to your "
    "organisation's administrator, who can find out why.",
    429: "Wait a minute, then go back to the application and sign in again.",
    503: "Wait a minute, then go back to the application and sign in again.",
}
_OTHERWISE = (
    "Go back to the application and start again. If that does not help, tell those who look after the application, "
    "and give them this reference."
)


def render_page(problem: Problem, reference: str) -> HTMLResponse:
    """The problem as a page; `reference` is the request id."""
    fields = "".join(
        f"<li><code>{escape(each['location'])}</code>: {escape(each['message'])}</li>"
        for each in problem.extra.get("errors", ())
    )
    page = _PAGE.format(
        title=escape(problem.title),
        detail=escape(problem.detail),
        fields=f"<ul>{fields}</ul>\n" if fields else "",
        advice=escape(_ADVICE.get(problem.status, _OTHERWISE)),
        reference=escape(reference),
    )
    return HTMLResponse(page, problem.status, headers=problem.headers)
