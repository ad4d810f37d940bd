"""The master key wrapped by a key in a vault: a reference server on loopback that speaks Azure Key Vault's REST API."""

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from pydantic import ValidationError
from sqlalchemy import update

from auth.keys.masters import MasterKeys, Vault
from auth.keys.models import VaultedMasterKey
from auth.keys.rewrapping import Outcome, rewrap, survey
from auth.keys.service import KeyRing
from core.azure_keys import KeyVaultUnavailable
from core.crypto import CannotOpen, MasterKey, new_key
from core.database import Database
from core.settings import Settings
from gateway.app import create_app
from gateway.assembly import assemble, master_secrets
from tenants.directory.cache import Directory
from tests.fixtures.key_vault import KeyVault
from tests.fixtures.postgres import PostgresServer
from tests.fixtures.world import Person, World, open_world, settings_for


@pytest.fixture(scope="module")
async def vaulted(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """A gateway of this module's own, because all keys are wrapped anew."""
    logins = await postgres.create_database("vaulted")
    settings = settings_for(logins.admin_url, logins.gateway_url, tmp_path_factory.mktemp("blobs"))
    async with open_world(settings, "acme", "globex") as opened:
        yield opened


def local(world: World) -> MasterKey:
    """The master key that the world began with."""
    return MasterKey(base64.b64decode(master_secrets(world.settings)[0].get_secret_value()))


Ask = Callable[[str], Awaitable[httpx.Response]]


@asynccontextmanager
async def gateway(world: World, person: Person, *sources: MasterKey | Vault) -> AsyncIterator[Ask]:
    """A gateway process of its own that was given these master keys, as `person` asks it."""
    parts = assemble(world.settings)
    masters = MasterKeys(sources, parts[Database].control)
    parts.add(masters)
    parts.add(KeyRing(parts[Database], masters, parts[Directory]))
    app = create_app(parts)
    transport = httpx.ASGITransport(app=app, client=("127.0.0.1", 40002))
    base, headers = person.http.base_url, person.http.headers
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url=base, headers=headers) as http,
    ):
        yield http.get


@dataclass
class Record:
    """A patient of a tenant, whose identity only the tenant's data key opens."""

    referrer: Person
    path: str

    @classmethod
    async def make(cls, world: World, tenant: str) -> "Record":
        referrer = await world.person("referrer", tenant=tenant)
        new = {"name": "Ida Ivarsen", "birth_date": "1980-02-03", "sex": "female"}
        made = await referrer.http.post("/v1/patients", json=new)
        return cls(referrer, f"/v1/patients/{made.json()['id']}")


async def rewrapped(world: World, *sources: MasterKey | Vault) -> Outcome:
    return await rewrap(world.admin, MasterKeys(sources, world.admin.control))


async def wrapping(world: World) -> set[str]:
    async with world.admin.control() as session:
        return set(await survey(session))


def refused(answer: httpx.Response, slug: str) -> bool:
    assert answer.headers["Retry-After"]
    return answer.status_code == 503 and answer.json()["type"].endswith(f":{slug}")


async def test_a_vault_holds_the_master_key(vaulted: World, key_vault: KeyVault) -> None:
    world, first = vaulted, key_vault.add("1")
    acme, globex = [await Record.make(world, slug) for slug in ("acme", "globex")]
    async with key_vault.running():
        planned = await rewrap(
            world.admin, MasterKeys([first, local(world)], world.admin.control), dry_run=True
        )
        assert (planned.to, planned.left, planned.done) == (None, 6, 0)
        outcome = await rewrapped(world, first, local(world))
        assert (outcome.done, outcome.left, outcome.locked, outcome.broken) == (6, 0, {}, [])
        assert await wrapping(world) == {outcome.to} != {local(world).kek_id}
        assert key_vault.acts == ["wrapkey 1", "unwrapkey 1"], "not tried whether the vault opens it"

        started = key_vault.open("1")
        async with gateway(world, acme.referrer, started) as ask:
            assert (await ask("/v1/me")).status_code == 200
            assert len(key_vault.acts) == 2, "asked before a key was needed"
            answers = await asyncio.gather(*(ask(acme.path) for _ in range(5)))
            assert [answer.json()["name"] for answer in answers] == ["Ida Ivarsen"] * 5
            assert key_vault.acts[2:] == ["unwrapkey 1"], "asked more than once"
    # What was opened once needs no vault, for no tenant.
    async with gateway(world, globex.referrer, key_vault.open("1")) as ask:
        assert refused(await ask(globex.path), "key-vault-unavailable")
        assert (await ask("/v1/me")).status_code == 200, "verifying takes no private key"
        async with key_vault.running():
            assert (await ask(globex.path)).status_code == 200, "it is back, and nothing was restarted"
        assert (await ask(globex.path)).status_code == 200

    # The vault's key is rotated: its next version, and in the end the version before is disabled.
    second = key_vault.add("2")
    async with key_vault.running():
        outcome = await rewrapped(world, second, key_vault.open("1"))
        assert (outcome.done, outcome.left) == (6, 0)
        key_vault.disabled.add("1")
        async with gateway(world, acme.referrer, key_vault.open("2"), key_vault.open("1")) as ask:
            assert (await ask(acme.path)).json()["name"] == "Ida Ivarsen"
        # And back to a key of the settings.
        assert (await rewrapped(world, local(world), second)).done == 6
    assert (await acme.referrer.http.get(acme.path)).status_code == 200
    assert await wrapping(world) == {local(world).kek_id}


async def test_a_vault_that_does_not_let_us_in_is_away(key_vault: KeyVault) -> None:
    key = key_vault.add("1")
    async with key_vault.running():
        wrapped = await key.wrap(new_key())
        key_vault.disabled.add("1")
        with pytest.raises(KeyVaultUnavailable):
            await key.unwrap(wrapped)
        key_vault.disabled.clear()
        with pytest.raises(KeyVaultUnavailable):
            await key_vault.open("9").unwrap(wrapped)
        with pytest.raises(CannotOpen):
            await key_vault.add("2").unwrap(wrapped)
        with pytest.raises(CannotOpen):
            await key.unwrap(b"no ciphertext")


async def test_a_master_key_put_in_anothers_place_does_not_open(vaulted: World, key_vault: KeyVault) -> None:
    """Who can write the row and has the vault's public key can wrap a master key of their own, and no more."""
    key = key_vault.add("1")
    masters = MasterKeys([key], vaulted.admin.control)
    async with key_vault.running():
        made = await masters.make()
        assert await masters.make() == made
        theirs = await key.wrap(new_key())
        async with vaulted.admin.control() as session:
            row = VaultedMasterKey.vault_key == key.identifier
            await session.execute(update(VaultedMasterKey).where(row).values(wrapped=theirs))
        with pytest.raises(CannotOpen):
            await MasterKeys([key_vault.open("1")], vaulted.admin.control).current()


async def test_a_gateway_without_the_right_master_key_says_so(vaulted: World) -> None:
    record = await Record.make(vaulted, "acme")
    async with gateway(vaulted, record.referrer, MasterKey(new_key())) as ask:
        assert refused(await ask(record.path), "master-key-unknown")
        assert (await ask("/v1/me")).status_code == 200
    async with gateway(vaulted, record.referrer, MasterKey(new_key()), local(vaulted)) as ask:
        assert (await ask(record.path)).status_code == 200
    outcome = await rewrapped(vaulted, MasterKey(new_key()))
    assert (outcome.done, outcome.locked) == (0, {local(vaulted).kek_id: 6})


@pytest.mark.parametrize(
    "given",
    [
        "azure-keyvault:https://v.vault.azure.net/keys/master",  # the version of today is not tomorrow's
        "azure-keyvault:http://v.vault.azure.net/keys/master/1",
        "azure-keyvault:https://v.vault.azure.net/secrets/master/1",
        "c2hvcnQ=",
    ],
)
def test_a_setting_that_names_no_master_key_is_refused(given: str) -> None:
    for name in ("master_key", "master_key_previous"):
        setting: dict[str, Any] = {name: given}
        with pytest.raises(ValidationError):
            Settings(**setting)
