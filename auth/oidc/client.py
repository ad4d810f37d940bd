"""Ourselves as a client of an OpenID provider: Authlib knows the protocol, our fetcher knows where one may go.

Authlib's own HTTP client would follow redirects into any network and read answers without end.
"""

import base64
import json
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote_plus

from authlib.oauth2.auth import ClientAuth
from authlib.oauth2.base import OAuth2Error
from authlib.oauth2.client import OAuth2Client

from auth.connections.fetching import Fetcher, ProviderUnreachable
from auth.oidc.errors import OidcRefused
from auth.oidc.provider import MAX_DOCUMENT, Provider

ASSERTION_LIFE_S = 60
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

Sign = Callable[[bytes], Awaitable[str]]
"""Makes a JWS of a payload, with a key that the provider finds at our JWKS."""


class CodeClient(OAuth2Client):  # type: ignore[misc]  # Authlib has no types
    """Authlib's client with our transport. Its `fetch_token` gives an awaitable."""

    def __init__(self, fetcher: Fetcher | None, **options: Any) -> None:
        super().__init__(None, code_challenge_method="S256", **options)
        self._fetcher = fetcher
        self.register_client_auth_method(("client_secret_basic", _basic))

    async def _fetch_token(
        self, url: str, body: str = "", headers: Any = None, auth: Any = None, **_: Any
    ) -> dict[str, Any]:
        assert self._fetcher is not None
        url, headers, body = auth.prepare("POST", url, dict(headers), body)
        answer = await self._fetcher.ask(
            "POST", url, content=body.encode(), headers=headers, at_most=MAX_DOCUMENT
        )
        if answer.status_code >= 500:
            raise ProviderUnreachable("The identity provider's token endpoint failed; try again.")
        try:
            return dict(self.parse_response_token(answer))
        except OAuth2Error as error:
            # What an administrator can mend is told apart: our registration, or a code that was spent.
            check = "oidc.client-refused" if error.error in _OURS else "oidc.code-refused"
            raise OidcRefused(check, "the provider's token endpoint refused") from None
        except Exception:
            raise OidcRefused("oidc.token-response", "the token endpoint's answer is not one") from None


_OURS = ("invalid_client", "unauthorized_client", "unsupported_grant_type", "invalid_scope")


def _basic(
    client: ClientAuth, method: str, uri: str, headers: dict[str, str], body: str
) -> tuple[str, dict[str, str], str]:
    """RFC 6749, 2.3.1: both are form-encoded first, which Authlib leaves out."""
    pair = f"{quote_plus(client.client_id)}:{quote_plus(client.client_secret)}"
    headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
    return uri, headers, body


async def redeem_code(
    fetcher: Fetcher,
    provider: Provider,
    *,
    client_id: str,
    client_auth: str,
    secret: str | None,
    sign: Sign,
    code: str,
    redirect_uri: str,
    verifier: str,
) -> dict[str, Any]:
    """The token response for a code (OpenID Connect Core 1.0, 3.1.3). Raises `OidcRefused`, `ProviderUnreachable`."""
    extra = {}
    if client_auth == "private_key_jwt":
        extra = {
            "client_assertion_type": ASSERTION_TYPE,
            "client_assertion": await sign(_assertion(client_id, provider)),
        }
    client = CodeClient(
        fetcher,
        client_id=client_id,
        client_secret=secret,
        token_endpoint_auth_method="none" if extra else client_auth,
    )
    answer: dict[str, Any] = await client.fetch_token(
        provider.token_endpoint,
        grant_type="authorization_code",
        code=code,
        redirect_uri=redirect_uri,
        code_verifier=verifier,
        **extra,
    )
    return answer


def _assertion(client_id: str, provider: Provider) -> bytes:
    """RFC 7523, section 3. The audience is the issuer alone, which no other server can be mistaken for
    (draft-ietf-oauth-rfc7523bis)."""
    now = int(time.time())
    claims = {
        "iss": client_id,
        "sub": client_id,
        "aud": provider.issuer,
        "jti": secrets.token_urlsafe(16),
        "iat": now,
        "exp": now + ASSERTION_LIFE_S,
    }
    return json.dumps(claims).encode()


async def ask_userinfo(
    fetcher: Fetcher, provider: Provider, access_token: str, subject: str
) -> dict[str, Any]:
    """More claims of somebody whose ID token said little (OpenID Connect Core 1.0, 5.3). Raises `OidcRefused`,
    `ProviderUnreachable`."""
    assert provider.userinfo_endpoint is not None
    answer = await fetcher.ask(
        "GET",
        provider.userinfo_endpoint,
        headers={"Authorization": f"Bearer {access_token}", "Accept": "application/json"},
        at_most=MAX_DOCUMENT,
    )
    if answer.status_code >= 500:
        raise ProviderUnreachable("The identity provider's userinfo endpoint failed; try again.")
    try:
        claims = answer.json()
    except (ValueError, RecursionError):
        claims = None
    if answer.status_code != 200 or not isinstance(claims, dict):
        raise OidcRefused("oidc.userinfo", "the userinfo endpoint's answer is not one")
    if claims.get("sub") != subject:  # else another's claims could be taken for theirs (5.3.2)
        raise OidcRefused("oidc.userinfo-subject", "the userinfo endpoint tells of somebody else")
    return claims
