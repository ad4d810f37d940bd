"""The cookie that binds a sign-in to the browser that began it."""

import secrets
from typing import Annotated

from fastapi import Cookie, Response

COOKIE = "__Host-dd-login"
_LENGTH = 43  # of 256 random bits in base64

BrowserSecret = Annotated[str, Cookie(alias=COOKIE, max_length=200)]
"""What the browser brought along, or an empty text."""


def keep_or_make(brought: str) -> str:
    """One secret per browser, not per sign-in: two tabs must not spoil each other's."""
    return brought if len(brought) == _LENGTH else secrets.token_urlsafe(32)


def set_browser_secret(response: Response, secret: str) -> None:
    """SameSite=None: a SAML identity provider's answer is a cross-site POST, which carries no stricter cookie."""
    response.set_cookie(COOKIE, secret, max_age=600, secure=True, httponly=True, samesite="none")
