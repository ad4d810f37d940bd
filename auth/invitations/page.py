"""What somebody sees who follows an invitation: HTML, no JavaScript."""

import html
from collections.abc import Sequence
from datetime import datetime
from urllib.parse import quote

_PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="robots" content="noindex">
<style>body{{font:1.1rem/1.6 system-ui,sans-serif;max-width:34rem;margin:12vh auto;padding:0 1.5rem;color:#1d2b36}}
a.go{{display:inline-block;margin:.3rem .6rem .3rem 0;padding:.4rem 1.2rem;border:1px solid;border-radius:.3rem}}</style>
</head><body><main><h1>{title}</h1>{text}</main></body></html>"""


def invitation_page(
    organisation: str, email: str | None, expires_at: datetime, path: str, connections: Sequence[str]
) -> str:
    """The way to each connection's identity provider; `email` is the address it must vouch for, if any. Opening this
    page uses nothing up: programs open links before people do."""
    address = f" with the address <strong>{html.escape(email)}</strong>" if email else ""
    links = "".join(
        f'<a class="go" href="{html.escape(path, quote=True)}/{quote(name)}">{html.escape(label)}</a>'
        for name, label in _labels(connections)
    )
    return _PAGE.format(
        title=f"{html.escape(organisation)} invites you",
        text=f"<p>Sign in at your organisation{address}. The invitation holds until "
        f"{expires_at:%Y-%m-%d %H:%M} UTC and works once.</p><p>{links}</p>",
    )


def _labels(connections: Sequence[str]) -> list[tuple[str, str]]:
    if len(connections) == 1:
        return [(connections[0], "Sign in")]
    return [(name, f"Sign in with {name}") for name in connections]


def accepted_page(organisation: str) -> str:
    return _PAGE.format(
        title="You are known now",
        text=f"<p>Open the app of {html.escape(organisation)} and sign in there as you just did.</p>",
    )
