"""The pages on which people say where they sign in. They work without scripts, load nothing, and send no form that
would end in another host: the content security policy holds for what a form is redirected to as well."""

import html
from collections.abc import Sequence
from urllib.parse import urlencode

from auth.connections.models import Connection

_FRAME = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">{head}
<style>body{{font:1.1rem/1.6 system-ui,sans-serif;max-width:26rem;margin:12vh auto;padding:0 1.5rem;color:#1d2b36}}
h1{{font-size:1.5rem}}label,input,.choice{{display:block;box-sizing:border-box;width:100%}}
input,.choice{{font:inherit;padding:.6rem .8rem;margin:.4rem 0;border:1px solid #5a6b78;border-radius:.4rem}}
input[type=submit],.choice{{text-align:center;text-decoration:none;background:#14546c;color:#fff;border-color:#14546c}}
input[type=submit]{{cursor:pointer}}:focus-visible{{outline:3px solid #e0a100;outline-offset:2px}}
ul{{list-style:none;padding:0}}</style>
<main><h1>{title}</h1>{body}</main></html>"""

_FORM = """{note}<form action="/auth/sign-in" method="get">{hidden}
<label for="login_hint">Your e-mail address at work</label>
<input id="login_hint" name="login_hint" type="email" autocomplete="username" maxlength="320" required autofocus>
<input type="submit" value="Continue"></form>"""

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
        f'<li><a class="choice" href="{_authorize(asked, each)}">{html.escape(each.name)}</a></li>'
        for each in connections
    )
    form = _FORM.format(note=_UNKNOWN if unknown else "", hidden=hidden)
    return _page(
        f"Sign in to {organisation}", f'{form}<nav aria-label="Sign-ins"><p>or with</p><ul>{links}</ul></nav>'
    )


def onward_page(organisation: str, chosen: Connection, asked: Sequence[tuple[str, str]]) -> str:
    """Goes on to the provider by itself, or at a click."""
    address = _authorize(asked, chosen)
    return _page(
        f"Sign in to {organisation}",
        f'<p>You are being sent on.</p><p><a class="choice" href="{address}">Continue</a></p>',
        head=f'<meta http-equiv="refresh" content="0; url={address}">',
    )


def _authorize(asked: Sequence[tuple[str, str]], connection: Connection) -> str:
    return html.escape("/auth/authorize?" + urlencode([*asked, ("connection", connection.name)]))


def _page(title: str, body: str, head: str = "") -> str:
    return _FRAME.format(title=html.escape(title), head=head, body=body)
