"""A tenant's keys rotated under people who are signed in, and replaced at once when one has leaked."""

import asyncio
import base64
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import httpx
import pytest
from lxml import etree
from sqlalchemy import select, update

from auth.keys.errors import BadRotation, KeyInUse, KeyNotFound, RotationUnderWay
from auth.keys.models import TenantKey
from auth.keys.rotation import list_keys, retire
from auth.keys.service import KeyRing
from auth.oidc.service import secret_of
from auth.oidc.settings import find_oidc
from auth.oidc.settings import set_connection as set_openid
from auth.saml.errors import SamlRefused
from auth.saml.request import new_sp_key
from auth.saml.validation import validate_response
from clinic.patients.models import Patient
from clinic.reports.service import JWS_TYPE, signed_statement
from core.ids import new_id
from gateway.app import create_app
from gateway.assembly import assemble
from gateway.keys import rotate_key
from reference.idp.response import build_response
from tenants.directory.cache import Directory
from tenants.directory.service import find_tenant, next_epoch
from tests.fixtures.saml import REQUEST_ID, Parties
from tests.fixtures.world import Person, World

NOW, LATER = timedelta(0), timedelta(hours=1)


@pytest.fixture
async def slug(world: World) -> str:
    """A tenant of the test's own."""
    name = f"keys-{new_id().hex[-10:]}"
    await world.create_tenant(name)
    return name


async def rotate(
    world: World,
    slug: str,
    purpose: str = "token",
    use_after: timedelta = NOW,
    retire_after: timedelta = LATER,
    *,
    revoke_now: bool = False,
) -> UUID:
    made = await rotate_key(
        world.settings,
        world.admin,
        slug,
        purpose,
        use_after=use_after,
        retire_after=retire_after,
        revoke_now=revoke_now,
    )
    await world.parts[Directory].refresh()
    return made.id


async def states(world: World, slug: str, purpose: str = "token") -> dict[UUID, str]:
    async with world.admin.control() as session:
        tenant = await find_tenant(session, slug)
        return {key.id: state for key, state in await list_keys(session, tenant) if key.purpose == purpose}


async def let_pass(world: World, slug: str, time: timedelta) -> None:
    """Everything decided about the tenant's keys lies so much longer back."""
    async with world.admin.control() as session:
        tenant = await find_tenant(session, slug)
        await session.execute(
            update(TenantKey)
            .where(TenantKey.tenant_id == tenant.id)
            .values(active_from=TenantKey.active_from - time, retires_at=TenantKey.retires_at - time)
        )
        tenant.epoch = await next_epoch(session)
    await world.parts[Directory].refresh()


async def published(world: World, slug: str) -> set[str]:
    answer = await (await world.http(f"{slug}.localhost")).get("/.well-known/jwks.json")
    assert answer.headers["Cache-Control"] == "public, max-age=300"
    return {key["kid"] for key in answer.json()["keys"]}


def kid_of(person: Person) -> UUID:
    header = person.token.split(".")[0]
    return UUID(json.loads(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4)))["kid"])


async def status(person: Person) -> int:
    return (await person.http.get("/v1/me")).status_code


async def eventually(holds: Callable[[], Awaitable[bool]], *, within_s: float = 30) -> None:
    async with asyncio.timeout(within_s):
        while not await holds():
            await asyncio.sleep(0.05)


async def test_nobody_notices_a_rotation(world: World, slug: str) -> None:
    before = await world.person("coordinator", tenant=slug)
    old = kid_of(before)
    new = await rotate(world, slug, use_after=timedelta(minutes=10))
    # Published before it signs: who keeps the key set for five minutes has it by then.
    assert await states(world, slug) == {old: "active", new: "next"}
    assert await published(world, slug) == {str(old), str(new)}
    during = await world.person("coordinator", tenant=slug)
    assert kid_of(during) == old

    await let_pass(world, slug, timedelta(minutes=10))
    assert await states(world, slug) == {old: "retiring", new: "active"}
    assert await published(world, slug) == {str(old), str(new)}
    after = await world.person("coordinator", tenant=slug)
    assert kid_of(after) == new
    assert [await status(person) for person in (before, during, after)] == [200, 200, 200]

    await let_pass(world, slug, LATER)
    assert await states(world, slug) == {old: "retired", new: "active"}
    assert await published(world, slug) == {str(new)}
    assert [await status(person) for person in (before, during, after)] == [401, 401, 200]


async def test_time_alone_brings_the_turn_and_the_end(world: World, slug: str) -> None:
    """Nothing is written when a key's turn comes: no worker need run, and no process need hear of it."""
    world_settings = world.settings.model_copy(update={"access_token_s": 1})
    before = await world.person("coordinator", tenant=slug)
    made = await rotate_key(
        world_settings,
        world.admin,
        slug,
        "token",
        use_after=timedelta(seconds=1),
        retire_after=timedelta(seconds=1),
        revoke_now=False,
    )
    await world.parts[Directory].refresh()
    assert await status(before) == 200  # and is remembered now
    scope = world.tenant(slug).scope

    async def signs() -> bool:
        return (await world.parts[KeyRing].token_key(scope)).kid == str(made.id)

    async def refused() -> bool:
        return await status(before) == 401

    await eventually(signs)
    await eventually(refused)
    assert await published(world, slug) == {str(made.id)}


async def answered_elsewhere(
    world: World, people: list[Person], slug: str
) -> AsyncGenerator[list[int], None]:
    """What a gateway of its own, with caches of its own, answers them: now, and each time it is asked again."""
    app = create_app(assemble(world.settings))
    transport = httpx.ASGITransport(app=app, client=("127.0.0.1", 40001))
    base = f"http://{slug}.localhost"
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url=base) as http,
    ):
        while True:
            answers = [
                await http.get("/v1/me", headers={"Authorization": f"Bearer {each.token}"}) for each in people
            ]
            yield [answer.status_code for answer in answers]


async def test_a_leaked_keys_tokens_are_refused_everywhere_within_a_second(world: World, slug: str) -> None:
    victim = await world.person("coordinator", tenant=slug)
    await rotate(
        world, slug, use_after=timedelta(minutes=10)
    )  # and a next key, which may have leaked as well
    async with aclosing(answered_elsewhere(world, [victim], slug)) as elsewhere:
        assert await anext(elsewhere) == [200]
        assert await anext(elsewhere) == [200], "remembered"
        new = await rotate(world, slug, revoke_now=True)
        assert await status(victim) == 401
        began = time.monotonic()
        while await anext(elsewhere) != [401]:
            # A view of the tenants older than a second is not used; the rest is for a loaded machine.
            assert time.monotonic() - began < 15
            await asyncio.sleep(0.01)
    assert sorted((await states(world, slug)).values()) == ["active", "retired", "retired"]
    assert await published(world, slug) == {str(new)}
    assert await status(await world.person("coordinator", tenant=slug)) == 200


async def test_a_rotation_is_called_off_or_hastened(world: World, slug: str) -> None:
    before = await world.person("coordinator", tenant=slug)
    old = kid_of(before)

    async def retire_now(key_id: UUID) -> None:
        async with world.admin.control() as session:
            await retire(session, slug, key_id)
        await world.parts[Directory].refresh()

    with pytest.raises(KeyInUse):
        await retire_now(old)
    with pytest.raises(KeyNotFound):
        await retire_now(new_id())
    with pytest.raises(BadRotation):
        await rotate(world, slug, retire_after=timedelta(seconds=599))
    called_off = await rotate(world, slug, use_after=LATER)
    with pytest.raises(RotationUnderWay):
        await rotate(world, slug)
    await retire_now(called_off)
    assert await states(world, slug) == {old: "active", called_off: "retired"}
    await let_pass(world, slug, timedelta(days=400))
    assert await status(before) == 200

    new = await rotate(world, slug, use_after=LATER)
    await retire_now(old)
    await retire_now(old)
    assert await states(world, slug) == {old: "retired", called_off: "retired", new: "active"}
    assert await status(before) == 401
    assert kid_of(await world.person("coordinator", tenant=slug)) == new


async def test_what_a_retired_key_signed_stays_verifiable_in_reports(world: World, slug: str) -> None:
    scope = world.tenant(slug).scope
    signed = await world.parts[KeyRing].sign(scope, b'{"sha256": "0"}', typ=JWS_TYPE)
    await rotate(world, slug, revoke_now=True)
    assert await signed_statement(world.database, scope, signed) == {"sha256": "0"}
    assert await signed_statement(world.database, world.tenant().scope, signed) is None


async def test_patients_are_read_after_their_tenants_data_key_was_rotated(world: World, slug: str) -> None:
    referrer = await world.person("referrer", tenant=slug)
    patient = {"name": "Ida Ivarsen", "birth_date": "1980-02-03", "sex": "female"}
    made = [(await referrer.http.post("/v1/patients", json=patient)).json()["id"] for _ in range(2)]
    new = await rotate(world, slug, "data", NOW, NOW)
    made.append((await referrer.http.post("/v1/patients", json=patient)).json()["id"])
    async with world.database.tenant(world.tenant(slug).scope) as session:
        assert set(await session.scalars(select(Patient.key_id))) == {new}
    for patient_id in made:
        answer = await referrer.http.get(f"/v1/patients/{patient_id}")
        assert answer.json()["name"] == "Ida Ivarsen"
    assert list((await states(world, slug, "data")).values()) == ["active", "retired"]


async def test_client_secrets_are_sealed_by_the_new_data_key(world: World, slug: str) -> None:
    scope, keys = world.tenant(slug).scope, world.parts[KeyRing]
    async with world.admin.control() as session:
        await set_openid(
            session,
            slug,
            name="openid",
            issuer="https://openid.example",
            client_id="derma",
            client_auth="client_secret_basic",
            secret="correct horse",
            data_key=await keys.data_key(scope),
            role_mapping={"doctors": "physician"},
        )
    new = await rotate(world, slug, "data", NOW, NOW)
    async with world.admin.control() as session:
        found = await find_oidc(session, await find_tenant(session, slug), "openid")
    assert found is not None
    assert found[1].secret_key_id == new
    assert await secret_of(keys, scope, found[1]) == "correct horse"


async def test_metadata_shows_both_certificates_and_either_key_opens(world: World, slug: str) -> None:
    http = await world.http(f"{slug}.localhost")

    async def shown() -> list[str]:
        document = etree.fromstring((await http.get("/auth/saml/metadata")).content)
        found = document.findall(".//{*}KeyDescriptor[@use='signing']//{*}X509Certificate")
        assert len(document.findall(".//{*}KeyDescriptor[@use='encryption']")) == len(found)
        return ["".join((each.text or "").split()) for each in found]

    (old,) = await shown()
    new_key = await rotate(world, slug, "saml", use_after=timedelta(days=7), retire_after=timedelta(days=7))
    first, second = await shown()
    assert first == old
    await let_pass(world, slug, timedelta(days=7))
    assert await shown() == [second, old]
    await let_pass(world, slug, timedelta(days=7))
    assert await shown() == [second]
    assert (await states(world, slug, "saml"))[new_key] == "active"


def test_an_assertion_encrypted_to_another_key_of_ours_opens() -> None:
    parties = Parties.build()
    encrypted = base64.b64encode(build_response(parties.answer(), parties.key, encrypt=True)).decode()
    former = (parties.sp.private_key_pem, parties.sp.certificate_pem)
    new = replace(parties.sp, private_key_pem=(pair := new_sp_key("urn:new"))[0], certificate_pem=pair[1])
    with pytest.raises(SamlRefused, match="undecryptable"):
        validate_response(encrypted, new, parties.idp, REQUEST_ID)
    with pytest.raises(SamlRefused, match="undecryptable"):
        validate_response(encrypted, replace(new, other_keys=(pair,)), parties.idp, REQUEST_ID)
    opening = replace(new, other_keys=(former,))
    assert validate_response(encrypted, opening, parties.idp, REQUEST_ID).name_id == "u-gp"
