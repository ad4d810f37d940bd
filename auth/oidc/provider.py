"""What OpenID providers publish: their discovery document and their keys.

Both are kept for an hour, by the issuer, for all tenants: they say the same to everybody.
"""

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, JWKRegistry, OKPKey, RSAKey

from auth.connections.fetching import Fetcher
from auth.oidc.errors import OidcRefused, ProviderUnusable

PublicKey = RSAKey | ECKey | OKPKey

KEEP_S = 3600.0
ASK_AGAIN_S = 30.0  # how often at most an unknown key makes us ask for the provider's keys anew
MAX_DOCUMENT = 256 * 1024
MAX_KEYS = 100
MIN_RSA_BITS = 2048

# Asymmetric ones alone: who can verify a shared secret's signature could have made it.
KEY_TYPES = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), "RSA"),
    **dict.fromkeys(("ES256", "ES384", "ES512"), "EC"),
    "Ed25519": "OKP",
}


@dataclass(frozen=True, slots=True)
class Provider:
    """A discovery document, as far as we use it (OpenID Connect Discovery 1.0, section 3).

    `algorithms` are those of its ID tokens that we take. `names_itself`: its authorization responses carry `iss`
    (RFC 9207).
    """

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str | None
    end_session_endpoint: str | None
    algorithms: tuple[str, ...]
    client_auth: tuple[str, ...]
    pkce: tuple[str, ...]
    names_itself: bool


def discovery_url(issuer: str) -> str:
    """Discovery 1.0, 4.1."""
    return issuer.rstrip("/") + "/.well-known/openid-configuration"


def read_discovery(issuer: str, document: bytes) -> Provider:
    """Raises `ProviderUnusable`."""
    members = _object(document, "discovery document")
    if members.get("issuer") != issuer:
        # To the letter: else one provider could speak for another (Discovery 1.0, 4.3).
        raise ProviderUnusable("The discovery document names another issuer than the connection does.")
    algorithms = _texts(members, "id_token_signing_alg_values_supported", ("RS256",))
    return Provider(
        issuer=issuer,
        authorization_endpoint=_address(members, "authorization_endpoint"),
        token_endpoint=_address(members, "token_endpoint"),
        jwks_uri=_address(members, "jwks_uri"),
        userinfo_endpoint=_optional(members, "userinfo_endpoint"),
        end_session_endpoint=_optional(members, "end_session_endpoint"),
        algorithms=tuple(each for each in algorithms if each in KEY_TYPES),
        client_auth=_texts(members, "token_endpoint_auth_methods_supported", ("client_secret_basic",)),
        pkce=_texts(members, "code_challenge_methods_supported", ()),
        names_itself=members.get("authorization_response_iss_parameter_supported") is True,
    )


def read_keys(document: bytes) -> list[PublicKey]:
    """The public keys of a JWK set (RFC 7517) that could verify an ID token. Raises `ProviderUnusable`."""
    listed = _object(document, "key set").get("keys")
    if not isinstance(listed, list) or len(listed) > MAX_KEYS:
        raise ProviderUnusable(f"The key set does not list `keys`, {MAX_KEYS} at most.")
    keys = []
    for each in listed:
        # Others may be there for encryption, or of a kind that is newer than we are.
        if isinstance(each, dict) and each.get("use", "sig") == "sig" and _is_strong(each):
            try:
                key = JWKRegistry.import_key(each)
            except (JoseError, ValueError, TypeError, KeyError):
                continue
            if isinstance(key, PublicKey):
                keys.append(key)
    return keys


def _is_strong(jwk: Mapping[str, Any]) -> bool:
    if jwk.get("kty") == "RSA":
        return isinstance(jwk.get("n"), str) and len(jwk["n"]) * 6 >= MIN_RSA_BITS
    return jwk.get("kty") in ("EC", "OKP")


def pick(keys: Sequence[PublicKey], algorithm: str, key_id: str | None) -> PublicKey | None:
    """The key that a token's header means. Without an id, the only one of its kind (OpenID Connect Core 1.0, 10.1)."""
    fitting = [
        key
        for key in keys
        if key.key_type == KEY_TYPES[algorithm] and (key.get("alg") or algorithm) == algorithm
    ]
    named = [key for key in fitting if key_id is None or key.kid == key_id]
    return named[0] if len(named) == 1 else None


class Providers:
    """Asks providers, and remembers what they said. Raises `AddressRefused` and `ProviderUnreachable` where they
    cannot be asked, `ProviderUnusable` where they make no sense."""

    def __init__(self, fetcher: Fetcher) -> None:
        self.fetcher = fetcher
        self._found: dict[str, tuple[float, Provider]] = {}
        self._keys: dict[str, tuple[float, list[PublicKey]]] = {}
        self._asking: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def find(self, issuer: str) -> Provider:
        """The provider's discovery document."""
        async with self._asking[issuer]:
            asked_at, provider = self._found.get(issuer, (0.0, None))
            if provider is None or time.monotonic() - asked_at > KEEP_S:
                document = await self.fetcher.fetch(discovery_url(issuer), at_most=MAX_DOCUMENT)
                provider = read_discovery(issuer, document)
                self._found[issuer] = (time.monotonic(), provider)
            return provider

    async def key(self, provider: Provider, algorithm: str, key_id: str | None) -> PublicKey:
        """The key that verifies a token. One that is unknown makes us ask again, since providers change their keys,
        but not at once. Raises `OidcRefused`."""
        for keep_s in (KEEP_S, ASK_AGAIN_S):
            if key := pick(await self._keys_of(provider, keep_s), algorithm, key_id):
                return key
        raise OidcRefused("oidc.unknown-key", "no published key of the provider fits the token")

    async def count_keys(self, provider: Provider) -> int:
        """How many keys it publishes that could verify an ID token."""
        return len(await self._keys_of(provider, KEEP_S))

    async def _keys_of(self, provider: Provider, keep_s: float) -> list[PublicKey]:
        async with self._asking[provider.issuer]:
            asked_at, keys = self._keys.get(provider.jwks_uri, (0.0, None))
            if keys is None or time.monotonic() - asked_at > keep_s:
                keys = read_keys(await self.fetcher.fetch(provider.jwks_uri, at_most=MAX_DOCUMENT))
                self._keys[provider.jwks_uri] = (time.monotonic(), keys)
            return keys


def _object(document: bytes, name: str) -> dict[str, Any]:
    try:
        members = json.loads(document)
    except (ValueError, RecursionError):
        members = None
    if not isinstance(members, dict):
        raise ProviderUnusable(f"The {name} is not a JSON object.")
    return members


def _texts(members: Mapping[str, Any], name: str, default: tuple[str, ...]) -> tuple[str, ...]:
    values = members.get(name, default)
    if not isinstance(values, list | tuple) or not all(isinstance(each, str) for each in values):
        raise ProviderUnusable(f"The discovery document's `{name}` is not a list of texts.")
    return tuple(values)


def _optional(members: Mapping[str, Any], name: str) -> str | None:
    return _address(members, name) if members.get(name) is not None else None


def _address(members: Mapping[str, Any], name: str) -> str:
    """Browsers are sent to some of them, so that the rules of the fetcher are not enough."""
    value = members.get(name)
    try:
        parts = urlsplit(value) if isinstance(value, str) else None
    except ValueError:
        parts = None
    loopback = parts and parts.scheme == "http" and parts.hostname in ("127.0.0.1", "::1", "localhost")
    if not parts or not parts.hostname or parts.fragment or not (parts.scheme == "https" or loopback):
        raise ProviderUnusable(f"The discovery document's `{name}` is not a https address.")
    assert isinstance(value, str)
    return value
