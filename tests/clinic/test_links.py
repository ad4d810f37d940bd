"""Where a tenant prefers signed links, both stores hand out links that read one file for a minute and do nothing else."""

import asyncio
import base64
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import func, select

from core.blobs import BlobStore, BlobStores, TenantBlobs, open_blob_store
from core.cells import HOME
from core.telemetry import JsonFormatter
from gateway.app import create_app
from gateway.assembly import assemble
from tenants.audit.models import AuditEvent
from tenants.directory.cache import Directory
from tenants.directory.service import resume, suspend, update_tenant
from tests.clinic.journey import NEW_CASE, ok, photograph
from tests.fixtures.azurite import API_VERSION
from tests.fixtures.world import World

PHOTOGRAPH = base64.b64decode(photograph()["data"])


@dataclass
class Shelf:
    """A tenant that prefers links, a photograph of it in one of the stores, and two clients of its host: somebody
    who may see it, and anyone at all. Both reach the storage account over the network."""

    world: World
    slug: str
    app: FastAPI
    blobs: TenantBlobs
    path: str
    image_id: UUID
    reader: httpx.AsyncClient
    anyone: httpx.AsyncClient

    @property
    def blob(self) -> str:
        return f"cases/{self.path.split('/')[3]}/{self.image_id}/original"

    async def link(self, **options: Any) -> str:
        return await self.blobs.link(self.blob, disposition="inline", **options)

    async def becomes(self, status: int) -> None:
        """Return when the photograph is answered with `status`, as whoever asks after a second must be."""
        changed = asked = time.monotonic()
        while (await self.reader.get(self.path)).status_code != status:
            assert asked - changed < 1, "the gateway has not noticed"
            await asyncio.sleep(0.01)
            asked = time.monotonic()


@pytest.fixture(scope="module", params=["local", "azure", "keyless"])
async def shelf(
    request: pytest.FixtureRequest, world: World, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Shelf]:
    trust, slug = True, f"links-{request.param}"
    store: BlobStore
    if request.param == "local":
        store = open_blob_store(tmp_path_factory.mktemp("links"))
    elif request.param == "azure":
        connection = request.getfixturevalue("azurite")
        store = open_blob_store(azure_connection_string=connection, azure_api_version=API_VERSION)
    else:
        account = request.getfixturevalue("keyless_account")
        store, trust = account.open_store(), account.trust()
    await world.create_tenant(slug)
    async with world.admin.control() as session:
        await update_tenant(session, slug, {"image_links": "signed"})
    await world.parts[Directory].refresh()
    container = world.tenant(slug).scope.container
    person = await world.person("referrer", tenant=slug)
    parts = assemble(world.settings)
    parts.add(BlobStores({HOME: store}))
    app = create_app(parts)
    async with app.router.lifespan_context(app), contextlib.AsyncExitStack() as clients:
        await store.create_container(container)
        reader, anyone = [
            await clients.enter_async_context(
                httpx.AsyncClient(
                    transport=httpx.ASGITransport(app),
                    mounts={"all://127.0.0.1": httpx.AsyncHTTPTransport(verify=trust)},
                    base_url=f"http://{slug}.localhost",
                    headers=headers,
                )
            )
            for headers in ({"Authorization": f"Bearer {person.token}"}, {})
        ]
        case = ok(await reader.post("/v1/cases", json=NEW_CASE), 201)
        image = ok(await reader.post(f"/v1/cases/{case['id']}/images", json=photograph()), 201)
        path = f"/v1/cases/{case['id']}/images/{image['id']}/content?variant=original"
        blobs = TenantBlobs(store, container)
        yield Shelf(world, slug, app, blobs, path, UUID(image["id"]), reader, anyone)


async def test_the_link_reads_the_file_without_a_token(shelf: Shelf) -> None:
    answer = await shelf.reader.get(shelf.path)
    assert (answer.status_code, answer.content) == (307, b"")
    assert answer.headers["Cache-Control"] == "no-store"
    link = answer.headers["Location"]
    read = await shelf.anyone.get(link)
    assert (read.status_code, read.content) == (200, PHOTOGRAPH)
    assert read.headers["Content-Type"] == "image/jpeg"
    assert read.headers["Cache-Control"] == "no-store"
    assert read.headers["Content-Disposition"] == f'inline; filename="{shelf.image_id}-original.jpg"'
    part = await shelf.anyone.get(link, headers={"Range": "bytes=2-5"})
    assert (part.status_code, part.content) == (206, PHOTOGRAPH[2:6])
    assert part.headers["Content-Range"] == f"bytes 2-5/{len(PHOTOGRAPH)}"
    assert part.headers["ETag"] == read.headers["ETag"]


async def test_a_client_that_follows_redirects_notices_nothing(shelf: Shelf) -> None:
    read = await shelf.reader.get(shelf.path, follow_redirects=True, headers={"Range": "bytes=0-1"})
    assert (read.status_code, read.content) == (206, b"\xff\xd8")


async def test_the_link_expires(shelf: Shelf) -> None:
    link = await shelf.link(seconds=2)
    assert (await shelf.anyone.get(link)).status_code == 200
    await asyncio.sleep(2)
    assert (await shelf.anyone.get(link)).status_code == 403


async def test_the_link_changes_nothing(shelf: Shelf) -> None:
    link = await shelf.link()
    written = {"x-ms-blob-type": "BlockBlob", "If-Match": "*"}
    for method in ("PUT", "POST", "PATCH", "DELETE"):
        refused = await shelf.anyone.request(method, link, content=b"changed", headers=written)
        assert refused.status_code >= 400, method
    for sub in (
        "comp=metadata",
        "comp=properties",
        "comp=block&blockid=AAAA",
        "comp=blocklist",
        "comp=lease",
    ):
        again = f"{link}{'&' if '?' in link else '?'}{sub}"
        assert (await shelf.anyone.put(again, content=b"", headers=written)).status_code >= 400, sub
    assert (await shelf.anyone.get(link)).content == PHOTOGRAPH
    assert [info.name async for info in shelf.blobs.list(shelf.blob)] == [shelf.blob]


async def test_the_link_opens_no_other_file(shelf: Shelf) -> None:
    link, other = await shelf.link(), f"neighbour-{time.time_ns()}"
    await shelf.blobs.put(other, b"secret", content_type="image/jpeg")
    store = shelf.app.state.parts[BlobStores].at()
    foreign = shelf.world.tenant("globex").scope.container
    await store.create_container(foreign)
    await store.put(foreign, shelf.blob, b"secret", content_type="image/jpeg", overwrite=True)
    if link.startswith("/"):
        attempts = [f"http://globex.localhost{link}"]
    else:
        container = shelf.world.tenant(shelf.slug).scope.container
        attempts = [
            link.replace(shelf.blob, other),
            link.replace(container, foreign),
            link.replace(f"/{shelf.blob}?", "?restype=container&comp=list&"),
            link.replace(f"/{container}/{shelf.blob}?", "?comp=list&"),
        ]
    for attempt in attempts:
        assert attempt != link
        refused = await shelf.anyone.get(attempt)
        assert refused.status_code == 403, attempt
        assert b"secret" not in refused.content
        assert other.encode() not in refused.content


async def test_a_link_that_was_changed_is_refused(shelf: Shelf) -> None:
    link = await shelf.link()
    if link.startswith("/"):
        start = link.rindex("/") + 1
        changed = [
            link[:at] + ("A" if link[at] != "A" else "B") + link[at + 1 :]
            for at in range(start, len(link) - 4)
        ]
        changed += [f"/files/{token}" for token in ("x", "====", "%C3%A4", "AQ==", link[start:-8])]
        changed += [f"{link[:-8]}!{link[-8:]}"]
    else:
        url = httpx.URL(link)
        others = {"se": "2099-01-01T00:00:00Z", "sp": "rw", "sr": "c", "rscd": "attachment", "rscc": "public"}
        others |= {"rsct": "text/html", "sig": base64.b64encode(bytes(32)).decode()}
        if "skoid" in url.params:
            others |= {"skoid": str(UUID(int=1)), "ske": "2099-01-01T00:00:00Z"}
        changed = [str(url.copy_set_param(name, value)) for name, value in others.items()]
        changed += [str(url.copy_remove_param(name)) for name in ("rscc", "sig", "se")]
    for attempt in changed:
        refused = await shelf.anyone.get(attempt)
        assert refused.status_code == 403, (refused.status_code, attempt)


async def test_looking_by_link_is_audited(shelf: Shelf) -> None:
    viewed = select(func.count()).where(
        AuditEvent.action == "image.view", AuditEvent.subject == shelf.image_id
    )
    counts = []
    for _ in range(2):
        async with shelf.world.database.tenant(shelf.world.tenant(shelf.slug).scope) as session:
            counts.append(await session.scalar(viewed) or 0)
        assert (await shelf.reader.get(shelf.path)).status_code == 307
    assert counts[1] == counts[0] + 1


async def test_who_may_not_look_gets_no_link(shelf: Shelf) -> None:
    stranger = await shelf.world.person("referrer", tenant=shelf.slug)
    for headers, status in ({"Authorization": f"Bearer {stranger.token}"}, 404), ({}, 401):
        refused = await shelf.anyone.get(shelf.path, headers=headers)
        assert refused.status_code == status
        assert "Location" not in refused.headers


async def test_no_log_line_holds_a_link(shelf: Shelf, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        link = (await shelf.reader.get(shelf.path)).headers["Location"]
        await shelf.anyone.get(link)
    secret = link.rsplit("/files/")[-1] if link.startswith("/") else httpx.URL(link).params["sig"]
    ours = [record for record in caplog.records if not record.name.startswith(("httpx", "httpcore"))]
    assert ours
    for record in ours:
        assert secret[:20] not in JsonFormatter().format(record) + record.getMessage()


async def test_the_preference_is_followed_within_a_second(shelf: Shelf) -> None:
    for preferred, status in (("streamed", 200), ("signed", 307)):
        async with shelf.world.admin.control() as session:
            await update_tenant(session, shelf.slug, {"image_links": preferred})
        await shelf.becomes(status)


async def test_the_links_of_the_gateway_itself_end_with_suspension(shelf: Shelf) -> None:
    link = await shelf.link()
    async with shelf.world.admin.control() as session:
        await suspend(session, shelf.slug, "unpaid")
    try:
        await shelf.becomes(403)
        # A storage account knows nothing of it; there the minute has to pass.
        assert (await shelf.anyone.get(link)).status_code == (403 if link.startswith("/") else 200)
    finally:
        async with shelf.world.admin.control() as session:
            await resume(session, shelf.slug)
        await shelf.becomes(307)
