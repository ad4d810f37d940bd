"""One contract, both stores; the storage account by its key and by managed identity."""

import asyncio
import os
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import pytest

from core.blobs import (
    BlobExists,
    BlobNotFound,
    BlobStore,
    BlobStoreUnavailable,
    LinksUnsupported,
    TenantBlobs,
    open_blob_store,
)
from tests.fixtures.azurite import API_VERSION, start_azurite
from tests.fixtures.managed_identity import KeylessAccount

JPEG = "image/jpeg"
MIB = 1024 * 1024
HOSTILE = [
    *("", "/", "/etc/passwd", "..", "../x", "a/../x", "a/..", "a//b", "a/", ".hidden", "a/.x", "a\\b", "a\0"),
    *("a\nb", "a\n", "C:x", "a~b", "a.", "a./b", "%2e%2e/x", "ä", "a b", "a?b", "x" * 201),
]


@pytest.fixture(params=["local", "azure", "keyless"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[BlobStore]:
    if request.param == "local":
        opened = open_blob_store(tmp_path / "blobs")
    elif request.param == "keyless":
        opened = request.getfixturevalue("keyless_account").open_store()
    else:
        opened = open_blob_store(
            azure_connection_string=request.getfixturevalue("azurite"), azure_api_version=API_VERSION
        )
    yield opened
    await opened.close()


@pytest.fixture
async def container(store: BlobStore) -> str:
    name = f"t-{uuid4().hex}"
    await store.create_container(name)
    return name


@pytest.fixture
def blobs(store: BlobStore, container: str) -> TenantBlobs:
    return TenantBlobs(store, container)


async def content(blobs: TenantBlobs, name: str, offset: int = 0, length: int | None = None) -> bytes:
    reader = await blobs.open(name, offset=offset, length=length)
    read = await reader.read()
    assert reader.length == len(read)
    return read


class TestBothStores:
    async def test_what_is_put_is_read_and_listed(self, blobs: TenantBlobs) -> None:
        put = await blobs.put("cases/1/images/a.jpg", b"\x00\xffpixels\n", content_type=JPEG)
        reader = await blobs.open("cases/1/images/a.jpg")
        assert await reader.read() == b"\x00\xffpixels\n"
        assert reader.info == put
        assert (put.name, put.size, put.content_type) == ("cases/1/images/a.jpg", 9, JPEG)
        assert put.etag.startswith('"')
        assert put.etag.endswith('"')
        assert abs(put.last_modified.timestamp() - time.time()) < 60
        assert [info async for info in blobs.list()] == [put]

    async def test_an_empty_blob(self, blobs: TenantBlobs) -> None:
        async def nothing() -> AsyncIterator[bytes]:
            return
            yield b""

        for name, data in ("bytes", b""), ("stream", nothing()):
            assert (await blobs.put(name, data, content_type=JPEG)).size == 0
            assert await content(blobs, name) == b""
            assert await content(blobs, name, 5) == b""

    async def test_a_stream_is_stored_and_read_in_bounded_pieces(self, blobs: TenantBlobs) -> None:
        whole = os.urandom(3 * MIB + 17)

        async def stream() -> AsyncIterator[bytes]:
            for start in range(0, len(whole), 100_001):
                yield whole[start : start + 100_001]

        assert (await blobs.put("big", stream(), content_type=JPEG)).size == len(whole)
        reader = await blobs.open("big")
        chunks = [chunk async for chunk in reader.chunks]
        assert b"".join(chunks) == whole
        assert max(map(len, chunks)) <= MIB
        assert await content(blobs, "big", MIB - 1, MIB + 2) == whole[MIB - 1 : 2 * MIB + 1]

    @pytest.mark.parametrize(
        ("offset", "length"),
        [(0, 1), (0, 10), (0, 11), (9, 1), (9, None), (3, 4), (10, None), (10, 5), (99, 1), (4, 0)],
    )
    async def test_ranges(self, blobs: TenantBlobs, offset: int, length: int | None) -> None:
        await blobs.put("ten", b"0123456789", content_type=JPEG)
        end = None if length is None else offset + length
        assert await content(blobs, "ten", offset, length) == b"0123456789"[offset:end]
        assert (await blobs.open("ten", offset=offset, length=length)).info.size == 10

    async def test_ranges_that_begin_before_the_blob(self, blobs: TenantBlobs) -> None:
        await blobs.put("ten", b"0123456789", content_type=JPEG)
        for offset, length in ((-1, None), (0, -1)):
            with pytest.raises(ValueError, match="not a range"):
                await blobs.open("ten", offset=offset, length=length)

    async def test_a_reader_may_stop_early(self, blobs: TenantBlobs) -> None:
        await blobs.put("big", bytes(2 * MIB), content_type=JPEG)
        unread = await blobs.open("big")
        await unread.aclose()
        begun = await blobs.open("big")
        await anext(begun.chunks)
        await begun.aclose()
        assert [chunk async for chunk in begun.chunks] == []

    async def test_nothing_is_overwritten_unless_asked(self, blobs: TenantBlobs) -> None:
        async def stream() -> AsyncIterator[bytes]:
            yield b"third"

        first = await blobs.put("a", b"first", content_type=JPEG)
        for data in b"second", stream():
            with pytest.raises(BlobExists):
                await blobs.put("a", data, content_type="text/plain")
        assert (await blobs.open("a")).info == first
        replaced = await blobs.put("a", b"second", content_type="text/plain", overwrite=True)
        assert replaced.etag != first.etag
        assert await content(blobs, "a") == b"second"
        assert (await blobs.open("a")).info.content_type == "text/plain"

    async def test_of_many_writers_one_wins(self, blobs: TenantBlobs) -> None:
        contents = [bytes([n]) * (MIB + MIB // 2) for n in range(8)]

        async def stream(whole: bytes) -> AsyncIterator[bytes]:
            yield whole[:MIB]
            await asyncio.sleep(0.01)
            yield whole[MIB:]

        results = await asyncio.gather(
            *(blobs.put("a", stream(whole), content_type=JPEG) for whole in contents), return_exceptions=True
        )
        winners = [n for n, result in enumerate(results) if not isinstance(result, BaseException)]
        assert len(winners) == 1
        assert all(isinstance(r, BlobExists) for n, r in enumerate(results) if n not in winners)
        assert await content(blobs, "a") == contents[winners[0]]

    async def test_writers_that_replace_at_once_do_not_mix(self, blobs: TenantBlobs) -> None:
        begun, other_is_done = asyncio.Event(), asyncio.Event()

        async def stream() -> AsyncIterator[bytes]:
            yield b"1" * (2 * MIB)
            begun.set()
            await other_is_done.wait()
            yield b"1" * MIB

        slow = asyncio.create_task(blobs.put("a", stream(), content_type=JPEG, overwrite=True))
        await begun.wait()
        await blobs.put("a", b"2" * (2 * MIB), content_type=JPEG, overwrite=True)
        other_is_done.set()
        try:
            await slow
        except BlobExists:  # a storage account drops the blocks of the slower writer
            assert await content(blobs, "a") == b"2" * (2 * MIB)
        else:
            assert await content(blobs, "a") == b"1" * (3 * MIB)

    async def test_a_broken_upload_leaves_nothing(self, blobs: TenantBlobs) -> None:
        async def upload(breaks: bool) -> AsyncIterator[bytes]:
            yield bytes(MIB)
            if breaks:
                raise ConnectionResetError("the client went away")

        with pytest.raises(ConnectionResetError):
            await blobs.put("a", upload(breaks=True), content_type=JPEG)
        with pytest.raises(BlobNotFound):
            await blobs.open("a")
        assert [info async for info in blobs.list()] == []
        await blobs.put("a", upload(breaks=False), content_type=JPEG)
        assert len(await content(blobs, "a")) == MIB

    async def test_a_cancelled_upload_leaves_nothing(self, blobs: TenantBlobs) -> None:
        stalled = asyncio.Event()

        async def stall() -> AsyncIterator[bytes]:
            yield bytes(2 * MIB)
            stalled.set()
            await asyncio.Event().wait()

        upload = asyncio.create_task(blobs.put("a", stall(), content_type=JPEG))
        await stalled.wait()
        upload.cancel()
        with pytest.raises(asyncio.CancelledError):
            await upload
        assert [info async for info in blobs.list()] == []

    async def test_deleting_twice(self, blobs: TenantBlobs) -> None:
        await blobs.put("a", b"1", content_type=JPEG)
        await blobs.delete("a")
        await blobs.delete("a")
        with pytest.raises(BlobNotFound):
            await blobs.open("a")

    async def test_listing_by_prefix_in_order(self, blobs: TenantBlobs) -> None:
        for name in ("b", "a/2", "a", "a/1", "a.x", "ab/1"):
            await blobs.put(name, name.encode(), content_type=JPEG)
        assert [info.name async for info in blobs.list()] == ["a", "a.x", "a/1", "a/2", "ab/1", "b"]
        assert [(info.name, info.size) async for info in blobs.list("a/")] == [("a/1", 3), ("a/2", 3)]
        assert [info.name async for info in blobs.list("../")] == []

    async def test_containers_do_not_share_names(self, store: BlobStore, container: str) -> None:
        other = f"t-{uuid4().hex}"
        await store.create_container(other)
        await store.put(container, "a", b"ours", content_type=JPEG)
        with pytest.raises(BlobNotFound):
            await store.open(other, "a")
        await store.put(other, "a", b"theirs", content_type=JPEG)
        await store.delete_container(other)
        assert await (await store.open(container, "a")).read() == b"ours"

    async def test_containers_come_and_go(self, store: BlobStore, container: str) -> None:
        await store.put(container, "a", b"1", content_type=JPEG)
        await store.create_container(container)
        assert [info.name async for info in store.list(container)] == ["a"]
        await store.delete_container(container)
        await store.delete_container(container)
        with pytest.raises(BlobNotFound):
            await store.put(container, "a", b"1", content_type=JPEG)
        with pytest.raises(BlobNotFound):
            await store.open(container, "a")
        with pytest.raises(BlobNotFound):
            await anext(aiter(store.list(container)))
        await store.delete(container, "a")

    @pytest.mark.parametrize("name", HOSTILE)
    async def test_hostile_names(self, store: BlobStore, container: str, name: str) -> None:
        with pytest.raises(ValueError, match="not a blob name"):
            await store.put(container, name, b"1", content_type=JPEG)
        with pytest.raises(ValueError, match="not a blob name"):
            await store.open(container, name)
        with pytest.raises(ValueError, match="not a blob name"):
            await store.delete(container, name)
        with pytest.raises(ValueError, match="not a blob name"):
            await store.link(container, name, disposition="inline")
        assert [info async for info in store.list(container)] == []

    @pytest.mark.parametrize("name", ["", "..", "a/b", "A-b", "1ab", "ab", "a--b", "ab-", "abc\n", "a" * 62])
    async def test_hostile_containers(self, store: BlobStore, name: str) -> None:
        for refused in (store.create_container(name), store.delete_container(name), store.open(name, "a")):
            with pytest.raises(ValueError, match="not a container name"):
                await refused
        with pytest.raises(ValueError, match="not a container name"):
            TenantBlobs(store, name)

    # What is read through links is in tests/clinic/test_links.py, since it takes a gateway.
    @pytest.mark.parametrize("seconds", [-1, 0, 61])
    async def test_no_link_lives_longer_than_a_minute(self, blobs: TenantBlobs, seconds: int) -> None:
        with pytest.raises(ValueError, match="life of a link"):
            await blobs.link("a", disposition="inline", seconds=seconds)

    async def test_ping(self, store: BlobStore) -> None:
        await store.ping()


async def all_refuse(store: BlobStore, container: str) -> None:
    """Each verb says within seconds that the store is away."""

    async def first_listed() -> None:
        await anext(aiter(store.list(container)))

    async with asyncio.timeout(15):
        for attempt in asyncio.as_completed(
            [
                store.ping(),
                store.create_container(container),
                store.put(container, "a", b"1", content_type=JPEG),
                store.open(container, "a"),
                store.delete(container, "a"),
                first_listed(),
                store.delete_container(container),
            ]
        ):
            with pytest.raises(BlobStoreUnavailable) as refusal:
                await attempt
            assert refusal.value.status == 503


async def test_a_stopped_storage_account_is_unavailable(azurite: str, tmp_path: Path) -> None:
    service = start_azurite(tmp_path)
    store = open_blob_store(azure_connection_string=service.connection_string, azure_api_version=API_VERSION)
    try:
        await store.create_container("t-a")
        await store.put("t-a", "a", bytes(3 * MIB), content_type=JPEG)
        reader = await store.open("t-a", "a")
        service.stop()
        with pytest.raises(BlobStoreUnavailable):
            await reader.read()
        await all_refuse(store, "t-a")
    finally:
        service.stop()
        await store.close()


async def test_without_its_account_a_managed_identity_signs_nothing(keyless_account: KeylessAccount) -> None:
    away = replace(keyless_account, url="https://127.0.0.1:9/devstoreaccount1").open_store()
    try:
        with pytest.raises(BlobStoreUnavailable):
            await away.link("t-a", "a", disposition="inline")
    finally:
        await away.close()


async def test_a_lent_key_signs_many_links(keyless_account: KeylessAccount) -> None:
    store = keyless_account.open_store()
    try:
        links = [await store.link("t-a", "a", disposition="inline")]
        await asyncio.sleep(1)  # another key would show another second
        links.append(await store.link("t-a", "b", disposition="inline"))
    finally:
        await store.close()
    asked = {parameter["ske"][0] for parameter in (parse_qs(urlsplit(link).query) for link in links)}
    assert len(asked) == 1
    lives = datetime.fromisoformat(asked.pop()) - datetime.now(UTC)
    assert timedelta(minutes=59) < lives < timedelta(minutes=61)


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_link_to_an_https_account_is_for_https_alone(scheme: str) -> None:
    endpoint = f"{scheme}://127.0.0.1:9/devstoreaccount1"
    store = open_blob_store(
        azure_connection_string=f"BlobEndpoint={endpoint};AccountName=devstoreaccount1;AccountKey=a2V5"
    )
    link = await store.link("t-a", "a", disposition="inline")
    await store.close()
    assert parse_qs(urlsplit(link).query).get("spr") == {"http": None, "https": ["https"]}[scheme]


@pytest.mark.parametrize(
    "opened",
    [
        {
            "azure_connection_string": "BlobEndpoint=https://acct.blob.core.windows.net;"
            "SharedAccessSignature=sv=2024-11-04&sig=x"
        },
        {"azure_account_url": "https://files.example"},
    ],
    ids=["signature", "nameless"],
)
async def test_what_cannot_sign_says_so(opened: dict[str, str]) -> None:
    store = open_blob_store(**opened)  # type: ignore[arg-type]
    with pytest.raises(LinksUnsupported) as refusal:
        await store.link("t-a", "a", disposition="inline")
    assert refusal.value.status == 501
    await store.close()


async def test_processes_share_the_key_of_their_links(tmp_path: Path) -> None:
    stores = [open_blob_store(tmp_path) for _ in range(8)]
    links = await asyncio.gather(*(store.link("t-a", "a", disposition="inline") for store in stores))
    for link in links:
        name = await stores[0].follow("t-a", link.removeprefix("/files/"))
        assert name == ("a", "inline")
    (key,) = tmp_path.iterdir()
    assert key.stat().st_mode & 0o777 == 0o600


async def test_a_vanished_directory_is_unavailable(tmp_path: Path) -> None:
    store = open_blob_store(tmp_path / "blobs")
    await store.create_container("t-a")
    shutil.rmtree(tmp_path / "blobs")
    for attempt in (
        store.put("t-a", "a", b"1", content_type=JPEG),
        store.link("t-a", "a", disposition="inline"),
        store.follow("t-a", "AAAA"),
    ):
        with pytest.raises(BlobStoreUnavailable):
            await attempt
    (tmp_path / "blobs").touch()  # a file where the directory should be: refused even for root
    await all_refuse(store, "t-a")


async def test_an_unfinished_file_is_never_a_blob_and_goes_in_time(tmp_path: Path) -> None:
    store = open_blob_store(tmp_path)
    await store.create_container("t-a")
    young, old = tmp_path / "t-a" / ".young", tmp_path / "t-a" / ".old"
    for unfinished in young, old:
        unfinished.write_bytes(b'{"content_type": "image/jpeg"')
    os.utime(old, (time.time() - 100_000,) * 2)
    assert [info async for info in store.list("t-a")] == []
    assert young.exists()
    assert not old.exists()


async def test_an_upload_leaves_no_other_file(tmp_path: Path) -> None:
    blobs = TenantBlobs(store := open_blob_store(tmp_path), "t-a")
    await store.create_container("t-a")
    await blobs.put("a/b", b"1", content_type=JPEG)
    await blobs.put("a/b", b"2", content_type=JPEG, overwrite=True)
    with pytest.raises(BlobExists):
        await blobs.put("a/b", b"3", content_type=JPEG)
    assert [path.name for path in (tmp_path / "t-a").iterdir()] == ["a~b"]


def test_exactly_one_place_is_chosen(tmp_path: Path) -> None:
    for choice in ((None, None, None), (tmp_path, "UseDevelopmentStorage=true", None)):
        with pytest.raises(ValueError, match="exactly one"):
            open_blob_store(*choice)


def test_the_storage_sdk_loads_only_when_used(tmp_path: Path) -> None:
    script = "import sys, core.blobs; assert not [m for m in sys.modules if m.startswith('azure')]"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path)
