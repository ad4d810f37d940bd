"""A key in an Azure Key Vault. Import this module only where one is used: the SDK loads slowly."""

import asyncio
import logging
from collections.abc import Awaitable
from typing import Any, TypeVar

from azure.core.exceptions import AzureError, HttpResponseError
from azure.identity.aio import DefaultAzureCredential
from azure.keyvault.keys.crypto import KeyWrapAlgorithm
from azure.keyvault.keys.crypto.aio import CryptographyClient

from core.crypto import CannotOpen
from core.problems import Unavailable

log = logging.getLogger(__name__)

_LIMIT_S = 10.0  # for one wrapping or unwrapping, sign-in at the vault and second tries included
_ALGORITHM = KeyWrapAlgorithm.rsa_oaep_256

T = TypeVar("T")


class KeyVaultUnavailable(Unavailable):
    """The vault is away, or does not let us in; the log has its status."""

    slug, title = "key-vault-unavailable", "The key vault is unavailable"


class VaultKey:
    """An RSA key, named by its identifier with the version, such as `https://NAME.vault.azure.net/keys/NAME/VERSION`. It
    wraps by RSA-OAEP with SHA-256 (RFC 8017), and its private part never leaves the vault.

    Whatever `DefaultAzureCredential` finds signs in; it needs the rights to wrap and to unwrap. `client_options` go to
    the SDK's `CryptographyClient`, such as `connection_verify`, the file of the certificate authority to trust.
    """

    def __init__(self, identifier: str, **client_options: Any) -> None:
        self.identifier = identifier
        options = {"retry_total": 2, "retry_backoff_factor": 0.2, "connection_timeout": 3, "read_timeout": 5}
        self._credential = DefaultAzureCredential()
        self._client = CryptographyClient(identifier, self._credential, **options | client_options)

    async def wrap(self, secret: bytes) -> bytes:
        """Encrypt 32 bytes. Raises `KeyVaultUnavailable`."""
        return (await _answer(self._client.wrap_key(_ALGORITHM, secret))).encrypted_key

    async def unwrap(self, wrapped: bytes) -> bytes:
        """Decrypt what `wrap` made. Raises `CannotOpen`, `KeyVaultUnavailable`."""
        return (await _answer(self._client.unwrap_key(_ALGORITHM, wrapped))).key

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.close()
        await self._credential.close()


async def _answer(asked: Awaitable[T]) -> T:
    try:
        async with asyncio.timeout(_LIMIT_S):
            return await asked
    except HttpResponseError as error:
        if error.status_code == 400:
            raise CannotOpen("the vault's key does not open it") from None
        failure, status = type(error).__name__, error.status_code
    except (AzureError, TimeoutError) as error:
        failure, status = type(error).__name__, None
    log.warning("key vault unavailable", extra={"error": failure, "status": status})
    raise KeyVaultUnavailable(
        "The vault that holds the master key does not answer, or does not let this process in; try again."
    )
