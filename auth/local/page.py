"""The form of a local administrator: HTML, no JavaScript."""

import html

from auth.local.service import Form
from core.pages import FORM_REM, page

_FORM = """<form method="post" action="/auth/local"><input type="hidden" name="relay" value="{relay}">
<label>Name <input name="name" value="" autocomplete="username" autocapitalize="none" required autofocus></label>
<label>Password <input name="password" value="" type="password" autocomplete="current-password" required></label>
<label>Code <input name="code" value="" inputmode="numeric" autocomplete="one-time-code" required></label>
<button>Sign in</button></form>"""

_REFUSED = (
    '<p role="alert">Name, password or code is not right, or there were too many attempts. '
    "Wait a while, and use the next code.</p>"
)
_INTRODUCTION = "<p>For when your organisation's identity provider does not answer. Each use is recorded.</p>"


def form_page(form: Form, *, refused: bool) -> str:
    """The form; what was typed is not shown again."""
    told = _REFUSED if refused else _INTRODUCTION
    return page(
        "Local administrator",
        told + _FORM.format(relay=html.escape(form.relay_secret, quote=True)),
        width_rem=FORM_REM,
    )
