"""The page that somebody sees in whose browser a sign-in went wrong. It needs no script and says nothing that helps
an attacker; the reference finds the cause in the tenant's audit log (`dermadetect sso refusals`)."""

from html import escape

from fastapi.responses import HTMLResponse

from core.pages import page
from core.problems import Problem

_BODY = """<p>{detail}</p>
{fields}<h2>What to do</h2>
<p>{advice}</p>
<p>Reference: <code>{reference}</code></p>"""

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
    body = _BODY.format(
        detail=escape(problem.detail.replace("; see `errors`", "")),  # which are below
        fields=f"<ul>{fields}</ul>\n" if fields else "",
        advice=escape(_ADVICE.get(problem.status, _OTHERWISE)),
        reference=escape(reference),
    )
    return HTMLResponse(page(problem.title, body), problem.status, headers=problem.headers)
