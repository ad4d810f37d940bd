"""What somebody sees who follows an invitation: HTML, no JavaScript."""

import html
from collections.abc import Sequence
from datetime import datetime
from urllib.parse import quote

from core.pages import page


def invitation_page(
    organisation: str, email: str | None, expires_at: datetime, path: str, connections: Sequence[str]
) -> str:
    """The way to each connection's identity provider; `email` is the address it must vouch for, if any. Opening this
    page uses nothing up: programs open links before people do."""
    address = f" with the address <strong>{html.escape(email)}</strong>" if email else ""
    links = "".join(
        f'<a class="button" href="{html.escape(path, quote=True)}/{quote(name)}">{html.escape(label)}</a>'
        for name, label in _labels(connections)
    )
    return page(
        f"{organisation} invites you",
        f"<p>Sign in at your organisation{address}. The invitation holds until "
        f"{expires_at:%Y-%m-%d %H:%M} UTC and works once.</p>{links}",
    )


def _labels(connections: Sequence[str]) -> list[tuple[str, str]]:
    if len(connections) == 1:
        return [(connections[0], "Sign in")]
    return [(name, f"Sign in with {name}") for name in connections]


def accepted_page(organisation: str) -> str:
    return page(
        "You are known now",
        f"<p>Open the app of {html.escape(organisation)} and sign in there as you just did.</p>",
    )
