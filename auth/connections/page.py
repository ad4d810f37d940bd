"""The pages on which people say where they sign in. They work without scripts, load nothing, and send no form that
would end in another host: the content security policy holds for what a form is redirected to as well."""

import html
from collections.abc import Sequence
from urllib.parse import urlencode

from auth.connections.models import Connection
from core.pages import FORM_REM, page

_FORM = """{note}<form action="/auth/sign-in" method="get">{hidden}
<label for="login_hint">Your e-mail address at work</label>
<input id="login_hint" name="login_hint" type="email" autocomplete="username" maxlength="320" required autofocus>
<button>Continue</button></form>"""

_UNKNOWN = (
    '<p role="alert">No sign-in belongs to this address alone. Choose one below, or try another address.</p>'
)


def choice_page(
    organisation: str, connections: Sequence[Connection], asked: Sequence[tuple[str, str]], *, unknown: bool
) -> str:
    """Asks for an e-mail address, or for one of the connections by name. `asked` are the parameters that the app has
    sent, which go on with the choice; `unknown` says that an address was given and chose none."""
    hidden = "".join(
        f'<input type="hidden" name="{html.escape(name)}" value="{html.escape(value)}">'
        for name, value in asked
    )
    links = "".join(
        f'<li><a class="button" href="{_authorize(asked, each)}">{html.escape(each.name)}</a></li>'
        for each in connections
    )
    form = _FORM.format(note=_UNKNOWN if unknown else "", hidden=hidden)
    return page(
        f"Sign in to {organisation}",
        f'{form}<nav aria-label="Sign-ins"><p>or with</p><ul class="choices">{links}</ul></nav>',
        width_rem=FORM_REM,
    )


def onward_page(organisation: str, chosen: Connection, asked: Sequence[tuple[str, str]]) -> str:
    """Goes on to the provider by itself, or at a click."""
    address = _authorize(asked, chosen)
    return page(
        f"Sign in to {organisation}",
        f'<p>You are being sent on.</p><p><a class="button" href="{address}">Continue</a></p>',
        head=f'<meta http-equiv="refresh" content="0; url={address}">',
        width_rem=FORM_REM,
    )


def _authorize(asked: Sequence[tuple[str, str]], connection: Connection) -> str:
    return html.escape("/auth/authorize?" + urlencode([*asked, ("connection", connection.name)]))
