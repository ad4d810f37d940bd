"""Blobs in an Azure storage account. Import this module only where Azure is used: the SDK loads slowly."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from typing import Any, NoReturn

from azure.core.exceptions import (
    AzureError,
    HttpResponseError,
    ResourceExistsError,
    ResourceModifiedError,
    ResourceNotFoundError,
)
from azure.identity.aio import DefaultAzureCredential
from azure.storage.blob import (
    BlobProperties,
    ContentSettings,
    StorageErrorCode,
    UserDelegationKey,
    generate_blob_sas,
)
from azure.storage.blob.aio import BlobServiceClient, ContainerClient, LinearRetry, StorageStreamDownloader

from core.blobs import (
    LINK_S,
    BlobExists,
    BlobInfo,
    BlobNotFound,
    BlobReader,
    BlobStoreUnavailable,
    LinkRefused,
    LinksUnsupported,
    check_container,
    check_life,
    check_name,
    check_range,
)
from core.clock import utcnow

_BLOCK = 1024 * 1024  # bytes held in memory by one upload or download
_PING_S = 3.0
_KEY_LIFE = timedelta(hours=1)  # of what signs links where there is no account key; renewed at half of it
_SKEW = timedelta(minutes=15)  # how far the storage account's clock may be behind ours


class AzureBlobStore:
    """Blobs in a storage account, named by a connection string or by an account URL such as
    `https://account.blob.core.windows.net`, where the managed identity (or whatever else
    `DefaultAzureCredential` finds) signs in.

    `api_version` is the storage API version to speak, the SDK's newest if None. A request waits 5 s for a
    connection, 20 s for the next bytes, and is tried three times. `client_options` go to the SDK's
    `BlobServiceClient`, such as `connection_verify`, the file of the certificate authority to trust.
    """

    def __init__(
        self,
        connection_string: str | None,
        account_url: str | None,
        *,
        api_version: str | None = None,
        **client_options: Any,
    ) -> None:
        options: dict[str, Any] = {
            "api_version": api_version,
            "retry_policy": LinearRetry(backoff=1, retry_total=2, random_jitter_range=1),
            "connection_timeout": 5,
            "read_timeout": 20,
            "max_single_put_size": _BLOCK,
            "max_block_size": _BLOCK,
            "max_single_get_size": _BLOCK,
            "max_chunk_get_size": _BLOCK,
        } | client_options
        self._lent: tuple[UserDelegationKey, datetime] | None = None  # and when to ask for another
        self._credential: DefaultAzureCredential | None = None
        if connection_string:
            self._service = BlobServiceClient.from_connection_string(connection_string, **options)
        elif account_url:
            self._credential = DefaultAzureCredential()
            self._service = BlobServiceClient(account_url, self._credential, **options)
        else:
            raise ValueError("a connection string or an account URL is needed")

    async def create_container(self, name: str) -> None:
        with _port_errors():
            try:
                await self._container(name).create_container()
            except ResourceExistsError as error:
                # The same status tells that a container of this name is still being deleted.
                if _code(error) != StorageErrorCode.CONTAINER_ALREADY_EXISTS:
                    raise BlobStoreUnavailable("This container is still being deleted.", 30) from error

    async def delete_container(self, name: str) -> None:
        with _port_errors():
            try:
                await self._container(name).delete_container()
            except ResourceNotFoundError:
                pass
            except ResourceExistsError as error:
                if _code(error) != StorageErrorCode.CONTAINER_BEING_DELETED:
                    raise

    async def put(
        self,
        container: str,
        name: str,
        data: bytes | AsyncIterator[bytes],
        *,
        content_type: str,
        overwrite: bool = False,
    ) -> BlobInfo:
        blob = self._container(container).get_blob_client(check_name(name))
        size = 0

        async def counted(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
            nonlocal size
            async for piece in pieces:
                size += len(piece)
                yield piece

        with _port_errors():
            stored = await blob.upload_blob(
                data if isinstance(data, bytes) else counted(data),
                overwrite=overwrite,
                content_settings=ContentSettings(content_type=content_type),
            )
        size = len(data) if isinstance(data, bytes) else size
        return BlobInfo(name, size, stored["etag"], content_type, stored["last_modified"])

    async def open(
        self, container: str, name: str, *, offset: int = 0, length: int | None = None
    ) -> BlobReader:
        check_range(offset, length)
        blob = self._container(container).get_blob_client(check_name(name))
        with _port_errors():
            if length != 0:
                try:
                    download = await blob.download_blob(offset, length)
                except HttpResponseError as error:
                    if _code(error) != StorageErrorCode.INVALID_RANGE:
                        raise
                else:
                    of_whole = download.properties.content_range
                    assert of_whole  # "bytes 0-9/100": the SDK sets it for every range it has read
                    info = _info(download.properties, int(of_whole.rpartition("/")[2]))
                    return BlobReader(info, download.size, _chunks(download))
            return BlobReader(_info(await blob.get_blob_properties()), 0, _nothing())

    async def delete(self, container: str, name: str) -> None:
        with _port_errors(), suppress(ResourceNotFoundError):
            await self._container(container).delete_blob(check_name(name))

    async def link(self, container: str, name: str, *, disposition: str, seconds: int = LINK_S) -> str:
        check_life(seconds)
        blob = self._container(container).get_blob_client(check_name(name))
        account = self._service.account_name
        if account is None:
            raise LinksUnsupported("The storage account's name cannot be told from its address.")
        signer = await self._signer()
        # Without a start it works at once, whatever the account's clock says.
        signature = generate_blob_sas(
            account,
            container,
            name,
            **signer,
            permission="r",
            expiry=utcnow() + timedelta(seconds=seconds),
            protocol="https" if self._service.scheme == "https" else None,
            cache_control="no-store",
            content_disposition=disposition,
        )
        return f"{blob.url}?{signature}"

    async def follow(self, container: str, token: str) -> NoReturn:
        raise LinkRefused("Links to stored files lead elsewhere. Ask for a new one.")

    async def list(self, container: str, prefix: str = "") -> AsyncIterator[BlobInfo]:
        with _port_errors():
            async for properties in self._container(container).list_blobs(name_starts_with=prefix):
                yield _info(properties)

    async def ping(self) -> None:
        with _port_errors():
            try:
                async with asyncio.timeout(_PING_S):
                    # Needs no more rights than serving blobs does, unlike reading the service's properties.
                    async for _ in self._service.list_containers(results_per_page=1):
                        break
            except TimeoutError as error:
                raise BlobStoreUnavailable("The storage account does not answer.") from error

    async def close(self) -> None:
        await self._service.close()
        if self._credential:
            await self._credential.close()

    def _container(self, name: str) -> ContainerClient:
        return self._service.get_container_client(check_container(name))

    async def _signer(self) -> dict[str, Any]:
        """What signs a link: the account's key, or one that the account lends to who signed in."""
        if self._credential:
            return {"user_delegation_key": await self._lent_key()}
        account_key = getattr(self._service.credential, "account_key", None)
        if account_key is None:
            raise LinksUnsupported("The operator gave the gateway a signature, which cannot sign another.")
        return {"account_key": account_key}

    async def _lent_key(self) -> UserDelegationKey:
        now = utcnow()
        if self._lent is None or now >= self._lent[1]:
            with _port_errors():
                key = await self._service.get_user_delegation_key(now - _SKEW, now + _KEY_LIFE)
            self._lent = key, now + _KEY_LIFE / 2
        return self._lent[0]


def _code(error: HttpResponseError) -> str | None:
    return getattr(error, "error_code", None)  # the storage SDK adds it


@contextmanager
def _port_errors() -> Iterator[None]:
    try:
        yield
    except ResourceNotFoundError as error:
        raise BlobNotFound("There is no such file.") from error
    except (ResourceExistsError, ResourceModifiedError) as error:
        raise BlobExists("This file was stored before.") from error
    except HttpResponseError as error:
        # Another writer's commit discards the blocks that we had staged under the same name.
        if _code(error) == StorageErrorCode.INVALID_BLOCK_LIST:
            raise BlobExists("Another writer stored this file first.") from error
        raise BlobStoreUnavailable("The storage account refused the request.") from error
    except AzureError as error:
        raise BlobStoreUnavailable("The storage account does not answer.") from error


def _info(properties: BlobProperties, size: int | None = None) -> BlobInfo:
    return BlobInfo(
        name=properties.name,
        size=properties.size if size is None else size,
        etag=f'"{properties.etag.strip(chr(34))}"',  # listings give it without its quotes
        content_type=properties.content_settings.content_type or "application/octet-stream",
        last_modified=properties.last_modified,
    )


async def _chunks(download: StorageStreamDownloader[bytes]) -> AsyncGenerator[bytes, None]:
    with _port_errors():
        async for chunk in download.chunks():
            yield chunk


async def _nothing() -> AsyncGenerator[bytes, None]:
    return
    yield b""
