"""The form of a local administrator: HTML, no JavaScript."""

import html

from auth.local.service import Form

_PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Local administrator</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="robots" content="noindex">
<style>body{{font:1.1rem/1.6 system-ui,sans-serif;max-width:24rem;margin:12vh auto;padding:0 1.5rem;color:#1d2b36}}
label{{display:block;margin:0 0 1rem}}input{{display:block;width:100%;box-sizing:border-box;font:inherit;padding:.4rem}}
button{{font:inherit;padding:.4rem 1.2rem}}p[role=alert]{{color:#8c1d18}}</style></head>
<body><main><h1>Local administrator</h1>{told}
<form method="post" action="/auth/local"><input type="hidden" name="relay" value="{relay}">
<label>Name <input name="name" value="" autocomplete="username" autocapitalize="none" required></label>
<label>Password <input name="password" value="" type="password" autocomplete="current-password" required></label>
<label>Code <input name="code" value="" inputmode="numeric" autocomplete="one-time-code" required></label>
<button>Sign in</button></form></main></body></html>"""

_REFUSED = (
    '<p role="alert">Name, password or code is not right, or there were too many attempts. '
    "Wait a while, and use the next code.</p>"
)
_INTRODUCTION = "<p>For when your organisation's identity provider does not answer. Each use is recorded.</p>"


def form_page(form: Form, *, refused: bool) -> str:
    """The form; what was typed is not shown again."""
    return _PAGE.format(
        told=_REFUSED if refused else _INTRODUCTION, relay=html.escape(form.relay_secret, quote=True)
    )
