"""Every setting of the product, read once by `gateway.assembly` and passed down."""

import re
from base64 import b64decode
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    HttpUrl,
    SecretStr,
    StringConstraints,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from core.cells import HOME

VAULT = "azure-keyvault:"
"""Before the identifier of a vault's key, in place of a master key."""

_VAULT_KEY = re.compile(r"https://[a-zA-Z0-9.:-]+/keys/[a-zA-Z0-9-]+/[a-zA-Z0-9]+")


class Cell(BaseModel):
    """Another place for tenants' data: a database and a blob store. See `docs/configuration.md`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    database_url: SecretStr
    admin_database_url: SecretStr | None = None
    blob_directory: Path | None = None
    azure_connection_string: SecretStr | None = None
    azure_account_url: HttpUrl | None = None

    @model_validator(mode="after")
    def _has_one_store(self) -> Self:
        if [self.blob_directory, self.azure_connection_string, self.azure_account_url].count(None) != 2:
            raise ValueError("needs one of blob_directory, azure_connection_string and azure_account_url")
        return self


CellName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,30}$")]


class Settings(BaseSettings):
    """Environment variables with the prefix `DERMADETECT_`; see `docs/configuration.md`."""

    model_config = SettingsConfigDict(env_prefix="DERMADETECT_", frozen=True, extra="ignore")

    public_url: HttpUrl = Field(
        HttpUrl("http://localhost:8000"),
        description="Scheme, base domain and port under which tenants are reached: acme answers at "
        "acme.<base domain>. The platform host is the base domain itself.",
    )
    database_url: SecretStr | None = Field(
        None, description="The gateway's login: NOINHERIT, owner of nothing (`dermadetect doctor` checks it)."
    )
    admin_database_url: SecretStr | None = Field(
        None,
        description="The operator's login: owner, CREATEROLE. Needed by `migrate`, provisioning and the platform's API only.",
    )
    warm_tenants: int = Field(
        0, ge=0, le=100, description="How many tenants `dermadetect tenants warm` keeps prepared."
    )
    database_pooler: Literal["none", "transaction"] = Field(
        "none", description="`transaction` behind PgBouncer in transaction mode: no prepared statements."
    )
    database_pool_size: int = Field(16, ge=1, le=500, description="Connections for tenants' transactions.")
    statement_timeout_ms: int = Field(15_000, ge=100, description="Longest statement of a tenant, in ms.")
    master_key: SecretStr | None = Field(
        None,
        description="Wraps every tenant's keys: 32 random bytes in base64, which `openssl rand -base64 32` makes, or "
        "`azure-keyvault:` and the identifier of a key with its version. Losing it loses the tenants' data.",
    )
    master_key_previous: SecretStr | None = Field(
        None, description="The master key before this one, until `dermadetect keys rewrap` is through."
    )
    blob_directory: Path | None = Field(None, description="Keep blobs in this directory (one machine only).")
    azure_connection_string: SecretStr | None = Field(None, description="Keep blobs in this storage account.")
    azure_account_url: HttpUrl | None = Field(
        None, description="Keep blobs in this storage account, signed in by managed identity."
    )
    azure_api_version: str | None = Field(
        None, description="Storage API version to speak; only emulators and old appliances need it."
    )
    cells: dict[CellName, Cell] = Field(
        {},
        description="Further places for tenants' data, in JSON by name: each has its own `database_url`, "
        "`admin_database_url`, and one of `blob_directory`, `azure_connection_string` and `azure_account_url`.",
    )
    ai_url: HttpUrl | None = Field(None, description="Base URL of the AI Service.")
    ai_token: SecretStr | None = Field(None, description="Bearer token the AI Service expects, if any.")
    ai_deadline_s: float = Field(
        20.0, gt=0, le=120, description="Longest an AI call may take, retries included."
    )
    limits_storage: SecretStr = Field(
        SecretStr("memory://"),
        description="Where rate limits are counted: `memory://` for one process, `redis://host:port/0` for several.",
    )
    address_limit: str = Field("1200/minute", description="Requests of one client address, before sign-in.")
    trusted_proxies: str = Field(
        "", description="Comma-separated addresses whose X-Forwarded-For and X-Forwarded-Proto are believed."
    )
    platform_api: bool = Field(
        False,
        description="Serve the platform's API on the platform's host, with the operator's login.",
    )
    dns_resolvers: str = Field(
        "",
        description="Comma-separated addresses of DNS resolvers that verify tenants' own domains; "
        "empty: the machine's.",
    )
    sso_fetch_allow: str = Field(
        "",
        description="Comma-separated hosts of identity providers whose metadata may be fetched although they are not "
        "on the public internet; one on loopback also by http.",
    )
    max_body_bytes: int = Field(
        30_000_000, ge=10_000, description="Longest request body that holds photographs, in bytes."
    )
    max_json_bytes: int = Field(1_000_000, ge=10_000, description="Longest other request body, in bytes.")
    max_image_bytes: int = Field(20_000_000, ge=10_000, description="Largest uploaded image, in bytes.")
    max_image_pixels: int = Field(
        60_000_000, ge=10_000, description="Largest image, in pixels, before decoding."
    )
    upload_directory: Path | None = Field(
        None,
        description="Where uploads lie, encrypted, until they are stored; the system's directory for temporary "
        "files if unset.",
    )
    upload_space_bytes: int = Field(
        1_000_000_000,
        ge=1_000_000,
        description="Longest that all uploads of one process together may be at a time, in bytes.",
    )
    jail_workers: int = Field(2, ge=1, le=64, description="Processes that decode images, SAML and PDFs.")
    access_token_s: int = Field(600, ge=60, le=3600, description="Life of an access token, in seconds.")
    session_s: int = Field(
        36_000, ge=600, le=7_776_000, description="Longest life of a sign-in session, in seconds."
    )
    session_idle_s: int = Field(
        7_200,
        ge=600,
        le=7_776_000,
        description="How long a sign-in session lives on without a refresh, in seconds.",
    )
    invitation_days: int = Field(7, ge=1, le=90, description="How long an invitation holds, in days.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="Least severe log line."
    )

    @field_validator("master_key", "master_key_previous")
    @classmethod
    def _is_a_master_key(cls, value: SecretStr | None) -> SecretStr | None:
        given = value.get_secret_value() if value else ""
        if given.startswith(VAULT):
            if not _VAULT_KEY.fullmatch(given.removeprefix(VAULT)):
                raise ValueError("must be azure-keyvault:https://NAME.vault.azure.net/keys/NAME/VERSION")
        elif given and len(b64decode(given, validate=True)) != 32:
            raise ValueError("must be 32 bytes in base64; `openssl rand -base64 32` makes one")
        return value

    @field_validator("cells")
    @classmethod
    def _leaves_home_alone(cls, value: dict[str, Cell]) -> dict[str, Cell]:
        if HOME in value:
            raise ValueError(f"the cell {HOME!r} is what the other settings name")
        return value

    @property
    def base_domain(self) -> str:
        """`derma.example`, without port: what a tenant's slug is put before."""
        assert self.public_url.host
        return self.public_url.host

    def origin_of(self, host: str) -> str:
        """`https://acme.derma.example:8443`, the origin of a host of ours (no default port)."""
        parts = urlsplit(str(self.public_url))
        default = {"http": 80, "https": 443}[parts.scheme]
        port = "" if parts.port in (None, default) else f":{parts.port}"
        return f"{parts.scheme}://{host}{port}"
