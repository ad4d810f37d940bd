"""The blob store and the gateway are killed in the middle of uploads, again and again: nothing is lost, nothing left.

Azurite writes the index of its blobs to the disk every five seconds only, so that a SIGKILL takes what it has just
acknowledged, which a storage account does not do. Here its connections break at a random moment, and it is killed
when its index is written.
"""

import asyncio
import contextlib
import hashlib
import io
import random
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image as Picture
from sqlalchemy import select, text

from clinic.images.models import VARIANTS, Image
from clinic.images.sweeper import sweep_images
from core.blobs import BlobStores
from core.settings import Settings
from tenants.plans import storage
from tests.cli.conftest import Command, answer
from tests.clinic.journey import NEW_CASE, ok
from tests.fixtures.azurite import API_VERSION, start_azurite
from tests.fixtures.postgres import PostgresServer
from tests.fixtures.servers import free_port
from tests.fixtures.world import Person, World, open_world, settings_for
from tests.gateway.test_outage import unlimited

CLIENTS, KILLS, A_CASE = 5, 3, 8
INDEX_S = 5.5  # until Azurite has surely written its index
SLUG = "killed"  # of its own, since roles outlive their database
HOST = {"Host": f"{SLUG}.localhost"}


@dataclass
class Relay:
    """A port that leads to another one, until it is cut."""

    target: int
    cut: bool = False
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[int]:
        async with await asyncio.start_server(self._connect, "127.0.0.1", 0) as server:
            yield server.sockets[0].getsockname()[1]
            self.break_off()

    def break_off(self) -> None:
        self.cut = True
        for writer in self._writers:
            writer.transport.abort()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with contextlib.suppress(OSError):
            if not self.cut:
                behind, before = await asyncio.open_connection("127.0.0.1", self.target)
                self._writers.add(before)
                await asyncio.gather(self._pump(reader, before), self._pump(behind, writer))
        writer.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.transport.abort()
        self._writers.discard(writer)


@dataclass
class Uploads:
    """What clients sent, and what they were told. `chance` decides who gives up after a failure."""

    origin: str
    chance: random.Random
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    acknowledged: list[tuple[Person, dict[str, Any], str]] = field(default_factory=list)
    answers: Counter[int | str] = field(default_factory=Counter)

    async def send_all(self, person: Person) -> None:
        """Photographs, each again until it is acknowledged or, sometimes, given up after a failure."""
        headers = HOST | {"Authorization": f"Bearer {person.token}"}
        async with httpx.AsyncClient(
            base_url=self.origin, headers=headers, timeout=60, trust_env=False
        ) as http:
            while not self.stop.is_set():
                case = await self._post(http, "/v1/cases", json=NEW_CASE)
                for _ in range(A_CASE if case else 0):
                    file = io.BytesIO()
                    Picture.frombytes("RGB", (120, 90), self.chance.randbytes(32_400)).save(file, "PNG")
                    path, png = f"/v1/cases/{case['id']}/images", {"Content-Type": "image/png"}
                    image = await self._post(
                        http, f"{path}?view=close_up", content=file.getvalue(), headers=png
                    )
                    if image:
                        sent = hashlib.sha256(file.getvalue()).hexdigest()
                        self.acknowledged.append((person, image, sent))
                    if self.stop.is_set():
                        break

    async def _post(self, http: httpx.AsyncClient, path: str, **request: Any) -> dict[str, Any]:
        while True:
            try:
                response = await http.post(path, **request)
                self.answers[response.status_code] += 1
                if response.status_code in (200, 201):
                    return dict(response.json())
                assert response.status_code == 503, response.text
            except httpx.TransportError:
                self.answers["no answer"] += 1
            if self.stop.is_set() or self.chance.random() < 0.15:
                return {}
            await asyncio.sleep(0.3)


@pytest.mark.soak
async def test_killed_again_and_again_nothing_is_lost_and_nothing_left(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    seed = random.randrange(1_000_000)
    print(f"seed {seed}")
    chance, port, gateway_port = random.Random(seed), free_port(), free_port()
    uploads = Uploads(f"http://127.0.0.1:{gateway_port}", chance)
    azurite = await asyncio.to_thread(start_azurite, tmp_path, port=port, lasting=True)
    relay = Relay(port)
    try:
        async with relay.listening() as relayed:
            store_url = azurite.connection_string.replace(f":{port}/", f":{relayed}/")
            logins = await postgres.create_database("killed")
            settings = settings_for(
                logins.admin_url,
                logins.gateway_url,
                tmp_path,
                azure_connection_string=store_url,
                azure_api_version=API_VERSION,
            )
            async with open_world(settings, SLUG) as world:
                await unlimited(world, SLUG)
                people = [await world.person("referrer", tenant=SLUG) for _ in range(CLIENTS)]
                async with asyncio.TaskGroup() as clients:
                    for person in people:
                        clients.create_task(uploads.send_all(person))
                    for _ in range(KILLS):
                        async with gateway(settings, gateway_port):  # killed when the block ends
                            await asyncio.sleep(chance.uniform(1, 3))
                            relay.break_off()
                            await asyncio.sleep(INDEX_S)
                            await asyncio.to_thread(azurite.stop)
                            azurite = await asyncio.to_thread(
                                start_azurite, tmp_path, port=port, lasting=True
                            )
                            relay.cut = False
                            await asyncio.sleep(chance.uniform(1, 3))
                    uploads.stop.set()
                print(uploads.answers, len(uploads.acknowledged))
                assert len(uploads.acknowledged) > 10
                assert uploads.answers[503]
                assert uploads.answers["no answer"]
                async with gateway(settings, gateway_port):
                    await asyncio.gather(
                        *(can_be_read(uploads.origin, *each) for each in uploads.acknowledged)
                    )
                await reconciles(world, uploads)
    finally:
        await asyncio.to_thread(azurite.stop)


@contextlib.asynccontextmanager
async def gateway(settings: Settings, port: int) -> AsyncIterator[None]:
    """A gateway in a process of its own, which is killed at the end."""
    secrets = {
        "DATABASE_URL": settings.database_url,
        "MASTER_KEY": settings.master_key,
        "AZURE_CONNECTION_STRING": settings.azure_connection_string,
    }
    named = {f"DERMADETECT_{name}": value.get_secret_value() for name, value in secrets.items() if value}
    options = {
        "azure_api_version": API_VERSION,
        "address_limit": settings.address_limit,
        "log_level": "ERROR",  # nobody reads what it says
    }
    with Command(named).running("serve", "--port", str(port), **options) as process:
        await asyncio.to_thread(answer, f"http://127.0.0.1:{port}/healthy", process, timeout=60)
        yield


async def can_be_read(origin: str, person: Person, image: dict[str, Any], sent: str) -> None:
    """What was acknowledged is there, the same, for the one who sent it."""
    headers = HOST | {"Authorization": f"Bearer {person.token}"}
    path = f"/v1/cases/{image['case_id']}/images/{image['id']}"
    async with httpx.AsyncClient(base_url=origin, headers=headers, timeout=60, trust_env=False) as http:
        assert ok(await http.get(path)) == image
        content = (await http.get(f"{path}/content?variant=original")).content
    assert hashlib.sha256(content).hexdigest() == image["sha256"]
    assert image["upload_sha256"] == sent


async def reconciles(world: World, uploads: Uploads) -> None:
    """After the sweeper, rows, blobs and the count of bytes are the same story."""
    scope = world.tenant(SLUG).scope
    stores = world.parts[BlobStores]
    blobs = stores.of(scope)
    async with world.database.tenant(scope) as session:
        await session.execute(
            text("UPDATE images SET updated_at = now() - interval '16 minutes' WHERE status = 'reserved'")
        )
    counts = await sweep_images(world.database, stores, scope)
    print(counts)
    assert set(counts) <= {"finished", "removed"}
    async with world.database.tenant(scope) as session:
        rows = list(await session.scalars(select(Image)))
        used = await storage.used(session)
    assert {row.status for row in rows} == {"stored"}
    assert {str(row.id) for row in rows} >= {image["id"] for _, image, _ in uploads.acknowledged}
    content = {blob.name: await (await blobs.open(blob.name)).read() async for blob in blobs.list("")}
    assert set(content) == {name for row in rows for name in row.blobs}
    for row in rows:
        original, display, thumbnail = (content[row.blob(variant)] for variant in VARIANTS)
        assert hashlib.sha256(original).hexdigest() == row.sha256
        assert hashlib.sha256(display).hexdigest() == row.display_sha256
        assert Picture.open(io.BytesIO(thumbnail)).size == (120, 90)
    assert used == sum(map(len, content.values())) == sum(row.stored_size for row in rows)
