"""A small SAML 2.0 identity provider for demonstrations, development and tests.

It asks for no password: whoever opens the page chooses whom to be. It must never stand in for a real one.
"""

import base64
from html import escape

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from reference.idp.config import IdpConfig, ServiceProvider
from reference.idp.messages import MAX_BYTES, BadMessage, idp_metadata, read_request, read_sp_metadata
from reference.idp.response import Answer, build_response

WARNING = "Reference identity provider. It signs anyone in as anyone, without a password. Never use it in production."
_HEADERS = {"Cache-Control": "no-store"}


def create_app(config: IdpConfig) -> Starlette:
    """The identity provider as an ASGI application.

    `GET /metadata`; `GET /sso` (HTTP-Redirect) shows the directory, `POST /sso` answers for the chosen person;
    `PUT /service-providers` registers the service provider whose metadata is the body.
    """
    service_providers = {sp.entity_id: sp for sp in config.service_providers}

    async def metadata(request: Request) -> Response:
        return Response(idp_metadata(config), media_type="application/samlmetadata+xml")

    async def choose(request: Request) -> Response:
        asked = read_request(request.url.query, service_providers, config.sso_url)
        return HTMLResponse(_choose_page(config, asked.sp, request.url.query), headers=_HEADERS)

    async def answer(request: Request) -> Response:
        form = await request.form()
        # The query travels through the form and is verified again; nothing is remembered in between.
        asked = read_request(str(form.get("query", "")), service_providers, config.sso_url)
        user = next((u for u in config.directory(asked.sp) if u.name_id == form.get("user")), None)
        if user is None:
            raise BadMessage("no such person in the directory")
        xml = build_response(
            Answer(config.entity_id, asked.sp, user, asked.id), config.key, config.sign, config.encrypt
        )
        return HTMLResponse(_post_page(asked.sp, xml, asked.relay_state), headers=_HEADERS)

    async def register(request: Request) -> Response:
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BYTES:
                raise BadMessage("the metadata is too large")
        sp = read_sp_metadata(body)
        service_providers[sp.entity_id] = sp
        return Response(status_code=204)

    async def refuse(request: Request, error: Exception) -> Response:
        return PlainTextResponse(f"Refused: {error}\n", status_code=400)

    return Starlette(
        routes=[
            Route("/metadata", metadata),
            Route("/sso", choose),
            Route("/sso", answer, methods=["POST"]),
            Route("/service-providers", register, methods=["PUT"]),
        ],
        exception_handlers={BadMessage: refuse},
    )


def _choose_page(config: IdpConfig, sp: ServiceProvider, query: str) -> str:
    buttons = "".join(
        f'<li><button name="user" value="{escape(user.name_id)}">{escape(user.display_name)}</button> '
        f"{escape(user.email)} <small>{escape(', '.join(user.groups))}</small></li>"
        for user in config.directory(sp)
    )
    return _page(
        "Who signs in?",
        f"<p>At <code>{escape(sp.entity_id)}</code></p>"
        f'<form method="post" action="{escape(config.sso_url)}">'
        f'<input type="hidden" name="query" value="{escape(query)}"><ul>{buttons}</ul></form>',
    )


def _post_page(sp: ServiceProvider, xml: bytes, relay_state: str | None) -> str:
    fields = {"SAMLResponse": base64.b64encode(xml).decode()}
    if relay_state is not None:
        fields["RelayState"] = relay_state
    inputs = "".join(
        f'<input type="hidden" name="{name}" value="{escape(value)}">' for name, value in fields.items()
    )
    return _page(
        "Signing in",
        f'<form method="post" action="{escape(sp.acs_url)}">{inputs}'
        "<noscript><button>Continue</button></noscript></form>"
        "<script>document.forms[0].submit()</script>",
    )


def _page(title: str, body: str) -> str:
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        f"<title>{title}</title><h1>{title}</h1>{body}<p><strong>{WARNING}</strong></p></html>"
    )
