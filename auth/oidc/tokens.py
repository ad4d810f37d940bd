"""Tokens that an OpenID provider signs: ID tokens (OpenID Connect Core 1.0) and logout tokens (Back-Channel Logout 1.0).

joserfc verifies the signature, with an algorithm and a key chosen here and never by the token; Authlib checks the
claims; what both leave open is demanded here.
"""

import json
import time
from base64 import urlsafe_b64decode
from typing import Any

from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import (
    BadSignatureError,
    ClaimError,
    ExpiredTokenError,
    InvalidClaimError,
    JoseError,
    MissingClaimError,
)
from joserfc.jws import JWSRegistry

from auth.oidc.errors import OidcRefused
from auth.oidc.provider import Provider, Providers

MAX_TOKEN_LENGTH = 64 * 1024  # group claims make them long
MAX_SUBJECT_LENGTH = 255  # OpenID Connect Core 1.0, 2
LEEWAY_S = 60  # by which a provider's clock may differ
MAX_LOGOUT_AGE_S = 600
LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"


async def read_id_token(
    providers: Providers,
    provider: Provider,
    token: str,
    *,
    client_id: str,
    nonce: str,
    access_token: str | None,
) -> dict[str, Any]:
    """The claims of a valid ID token for us and for this very sign-in. Raises `OidcRefused`."""
    header, claims = await _verified(providers, provider, token, types=(None, "JWT"))
    _check(
        header,
        claims,
        provider,
        client_id,
        params={"nonce": nonce, "client_id": client_id, "access_token": access_token},
    )
    if not isinstance(claims["sub"], str) or not 0 < len(claims["sub"]) <= MAX_SUBJECT_LENGTH:
        raise OidcRefused("oidc.sub", "the subject is not a text of at most 255 characters")
    return claims


async def read_logout_token(
    providers: Providers, provider: Provider, token: str, *, client_id: str
) -> dict[str, Any]:
    """The claims of a valid logout token for us: `jti`, and `sub` or `sid` or both. Raises `OidcRefused`."""
    header, claims = await _verified(providers, provider, token, types=(None, "JWT", "logout+jwt"))
    if "sub" not in claims and "sid" not in claims:
        raise OidcRefused("oidc.logout-of-nobody", "the logout token names neither person nor session")
    _check(header, claims | {"sub": claims.get("sub", "-")}, provider, client_id, params={})
    events = claims.get("events")
    if not isinstance(events, dict) or not isinstance(events.get(LOGOUT_EVENT), dict):
        raise OidcRefused("oidc.logout-event", "the logout token tells of no logout")
    if claims["iat"] < time.time() - MAX_LOGOUT_AGE_S:  # so that used ones need not be remembered for long
        raise OidcRefused("oidc.logout-old", "the logout token was made more than ten minutes ago")
    if "nonce" in claims:  # else an ID token could be passed for one
        raise OidcRefused("oidc.logout-nonce", "the logout token has a nonce")
    for name in ("jti", "sub", "sid"):
        if name == "jti" or name in claims:
            value = claims.get(name)
            if not isinstance(value, str) or not 0 < len(value) <= MAX_SUBJECT_LENGTH:
                raise OidcRefused(f"oidc.{name}", f"the logout token's {name} is not a short text")
    return claims


async def _verified(
    providers: Providers, provider: Provider, token: str, *, types: tuple[str | None, ...]
) -> tuple[dict[str, Any], dict[str, Any]]:
    header = _header(token)
    algorithm, key_id = header.get("alg"), header.get("kid")
    if algorithm not in provider.algorithms:
        raise OidcRefused("oidc.algorithm", "the token's algorithm is none that the provider has announced")
    if header.get("typ") not in types or not isinstance(key_id, str | None):
        raise OidcRefused("oidc.header", "the token is of another type")
    key = await providers.key(provider, algorithm, key_id)
    # Unknown members of the header are ignored (RFC 7515, 4); `crit` is not.
    registry = JWSRegistry(algorithms=[algorithm], strict_check_header=False)
    registry.max_header_length = MAX_TOKEN_LENGTH  # its own, 512 characters, is less than a certificate
    try:
        return header, dict(jwt.decode(token, key, registry=registry).claims)
    except BadSignatureError:
        raise OidcRefused("oidc.signature", "the signature is not the provider's") from None
    except (JoseError, ValueError, TypeError, AttributeError, RecursionError):
        raise OidcRefused("oidc.malformed", "the token is not a signed JWT") from None


def _header(token: str) -> dict[str, Any]:
    if len(token) > MAX_TOKEN_LENGTH:
        raise OidcRefused("oidc.too-long", "the token is longer than 64 KiB")
    try:
        encoded, _, _ = token.split(".")
        header = json.loads(urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise OidcRefused("oidc.malformed", "the token is not a signed JWT")
    return header


def _check(
    header: dict[str, Any], claims: dict[str, Any], provider: Provider, client_id: str, params: dict[str, Any]
) -> None:
    # Exactly us: another audience beside us could pass the token on as its own (OpenID Connect Core 1.0, 3.1.3.7).
    if claims.get("aud") not in (client_id, [client_id]):
        raise OidcRefused("oidc.aud", "the token is for another client")
    options: dict[str, Any] = {"iss": {"essential": True, "value": provider.issuer}}
    try:
        CodeIDToken(claims, header, options, params).validate(leeway=LEEWAY_S)
    except ExpiredTokenError:
        raise OidcRefused("oidc.expired", "the token has expired") from None
    except (InvalidClaimError, MissingClaimError) as error:
        missing = "-missing" if isinstance(error, MissingClaimError) else ""
        check = f"oidc.{error.claim.replace('_', '-')}{missing}"
        raise OidcRefused(check, f"the claim {error.claim} is not as it must be") from None
    except (ClaimError, JoseError, ValueError, TypeError, AttributeError):
        raise OidcRefused("oidc.claims", "the claims are not as they must be") from None
