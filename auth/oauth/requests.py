"""What the token, revocation and introspection endpoints have in common: how a client sends its request, and that every
mistake in it is told in the form of RFC 6749, 5.2."""

import binascii
from base64 import b64decode
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Annotated, Any
from urllib.parse import unquote_plus

from fastapi import Depends, Form, Header, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute

from auth.oauth.errors import InvalidClient, OAuthError


class OAuthRoute(APIRoute):
    """Refuses repeated parameters (RFC 6749, 3.2), and has a refusal of its own form for those that are too long."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def checked(request: Request) -> Response:
            form = await request.form()
            names = [name for name, _ in form.multi_items()]
            if len(names) != len(set(names)) or any("\0" in str(value) for value in form.values()):
                raise OAuthError("invalid_request", "Send each parameter once, as text.")
            try:
                return await handle(request)
            except RequestValidationError as error:
                wrong = ", ".join(sorted({str(each["loc"][-1])[:40] for each in error.errors()}))
                raise OAuthError("invalid_request", f"Not as they should be: {wrong}.") from None

        return checked


@dataclass(frozen=True, slots=True)
class Presented:
    """The id and secret that a client sent; a public client has no secret."""

    client_id: str
    secret: str = field(repr=False)


async def _presented(
    authorization: Annotated[str, Header(max_length=1000, include_in_schema=False)] = "",
    client_id: Annotated[str, Form(max_length=63)] = "",
    client_secret: Annotated[str, Form(max_length=200)] = "",
) -> Presented:
    """By `client_secret_basic` or by `client_secret_post` (RFC 6749, 2.3.1), not by both."""
    if not authorization:
        return Presented(client_id, client_secret)
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        raise InvalidClient
    try:
        name, _, secret = b64decode(encoded.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        raise InvalidClient from None
    basic = Presented(unquote_plus(name), unquote_plus(secret))
    if client_secret or client_id not in ("", basic.client_id) or "\0" in basic.client_id:
        raise OAuthError("invalid_request", "Send the client's id and secret in one way only.")
    return basic


PresentedClient = Annotated[Presented, Depends(_presented)]
