"""What the authorization server says."""

from typing import Literal

from pydantic import BaseModel, Field

_BY_SECRET = ["client_secret_basic", "client_secret_post"]


class TokenResponse(BaseModel):
    """RFC 6749, 5.1."""

    access_token: str = Field(description="JWT, to be sent as `Authorization: Bearer …`.")
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105  # the name of a scheme
    expires_in: int = Field(description="Seconds.")
    scope: str = Field(description="What the token allows, space-separated.")
    refresh_token: str | None = Field(
        None, description="Gives the next tokens, once. For apps that were registered for it."
    )


class Introspection(BaseModel):
    """RFC 7662, 2.2. A token that does not hold has no other member than `active`."""

    active: bool
    token_type: str | None = None
    sub: str | None = Field(None, description="The user, or the machine client itself.")
    sid: str | None = Field(None, description="The sign-in session.")
    roles: list[str] | None = None
    scope: str | None = None
    act: dict[str, str] | None = Field(None, description="The machine client that acts for the user.")
    iss: str | None = None
    aud: str | None = None
    iat: int | None = None
    nbf: int | None = None
    exp: int | None = None
    jti: str | None = None


class SignedOut(BaseModel):
    """The session has ended here, and the browser can end it at the identity provider."""

    continue_at: str = Field(description="Send the browser there; it is used once, within ten minutes.")


class ServerMetadata(BaseModel):
    """RFC 8414."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    revocation_endpoint: str
    introspection_endpoint: str
    jwks_uri: str
    scopes_supported: list[str]
    response_types_supported: list[str] = ["code"]
    response_modes_supported: list[str] = ["query"]
    grant_types_supported: list[str] = ["authorization_code", "refresh_token", "client_credentials"]
    code_challenge_methods_supported: list[str] = ["S256"]
    token_endpoint_auth_methods_supported: list[str] = ["none", *_BY_SECRET]
    revocation_endpoint_auth_methods_supported: list[str] = ["none", *_BY_SECRET]
    introspection_endpoint_auth_methods_supported: list[str] = _BY_SECRET
    authorization_response_iss_parameter_supported: bool = True


class JwkSet(BaseModel):
    """RFC 7517: the public keys that verify this tenant's tokens and reports."""

    keys: list[dict[str, str]]
