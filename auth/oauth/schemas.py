"""What the authorization server says."""

from typing import Literal

from pydantic import BaseModel, Field


class TokenResponse(BaseModel):
    """RFC 6749, 5.1."""

    access_token: str = Field(description="JWT, to be sent as `Authorization: Bearer …`.")
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105  # the name of a scheme
    expires_in: int = Field(description="Seconds.")
    scope: str = Field(description="What the token allows, space-separated.")


class ServerMetadata(BaseModel):
    """RFC 8414."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    scopes_supported: list[str]
    response_types_supported: list[str] = ["code"]
    grant_types_supported: list[str] = ["authorization_code"]
    code_challenge_methods_supported: list[str] = ["S256"]
    token_endpoint_auth_methods_supported: list[str] = ["none"]
    authorization_response_iss_parameter_supported: bool = True


class JwkSet(BaseModel):
    """RFC 7517: the public keys that verify this tenant's tokens and reports."""

    keys: list[dict[str, str]]
