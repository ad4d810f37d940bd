"""The frame of every page that people see. It runs no script and loads nothing, and is legible in a narrow window, in a
wide one, and on a dark screen."""

import html

_FRAME = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="robots" content="noindex">{head}
<style>:root{{color-scheme:light dark}}
body{{font:1.05rem/1.6 system-ui,sans-serif;max-width:{width}rem;margin:12vh auto;padding:0 1.5rem;overflow-wrap:anywhere}}
h1{{font-size:1.5rem;line-height:1.3}}h2{{font-size:1.1rem}}code{{user-select:all}}dd{{margin:0 0 .8rem}}
label{{display:block}}ul.choices{{list-style:none;padding:0}}[role=alert]{{border-left:.3rem solid #b3261e;padding-left:.8rem}}
input,button,.button{{display:block;box-sizing:border-box;width:100%;font:inherit;padding:.6rem .8rem;margin:.4rem 0 .8rem;
border:1px solid #5a6b78;border-radius:.4rem}}
button,.button{{background:#14546c;color:#fff;border-color:#14546c;text-align:center;text-decoration:none;cursor:pointer}}
:focus-visible{{outline:3px solid #e0a100;outline-offset:2px}}</style></head>
<body><main><h1>{title}</h1>{body}</main></body></html>"""

FORM_REM, TEXT_REM = 24, 34


def page(title: str, body: str, *, head: str = "", width_rem: int = TEXT_REM) -> str:
    """A whole document. `title` is text, `body` and `head` are HTML; `width_rem` is how wide it becomes at most."""
    return _FRAME.format(title=html.escape(title), body=body, head=head, width=width_rem)
