"""A changed connection tried against the last sign-ins (`set --dry-run`), and what is kept for that."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, update

from auth.connections.models import KeptSignIn
from auth.connections.settings import find_connection
from auth.keys.service import KeyRing
from auth.oidc.settings import set_connection
from auth.people.administration import deactivate
from auth.people.models import User
from auth.saml.errors import SamlRefused
from auth.saml.parties import IdentityProvider
from auth.saml.service import service_provider
from auth.saml.validation import validate_response
from core.clock import utcnow
from gateway.assembly import tidy
from gateway.keys import rotate_key
from reference.idp.config import IdpConfig, ServiceProvider, SigningKey
from reference.idp.config import User as Person
from reference.idp.messages import idp_metadata
from reference.idp.response import Answer, build_response, encrypt_assertion
from tenants.directory.cache import Directory
from tenants.directory.service import find_tenant
from tests.cli.conftest import Command
from tests.fixtures.browser import Browser, SignIn
from tests.fixtures.openid import CLIENT_ID, CLIENT_SECRET, ScriptedProviders, new_key
from tests.fixtures.paper_idp import PaperIdp
from tests.fixtures.servers import serving
from tests.fixtures.world import World

SLUG = "tryco"
IDP = IdpConfig("https://idp.tryco.example")
PEOPLE = ("u-1", "u-2")


@pytest.fixture(scope="module")
async def idp(world: World) -> PaperIdp:
    """A tenant at which two people have signed in, one by an encrypted assertion."""
    made = await PaperIdp.open(world, SLUG, IDP)
    async with Browser(world.app) as browser:
        sign_in = SignIn(browser, made.origin)
        for name, edit in zip(PEOPLE, (None, encrypt_assertion), strict=True):
            form = await made.answer(sign_in, *([edit] if edit else []), name_id=name)
            assert (await sign_in.answer(form)).status_code == 303
    return made


@pytest.fixture
async def sign_in(idp: PaperIdp) -> AsyncIterator[SignIn]:
    async with Browser(idp.world.app) as browser:
        yield SignIn(browser, idp.origin)


async def tried(world: World, *change: str, code: int = 0, kind: str = "saml") -> dict[str, Any]:
    """What `sso saml set --dry-run` says of a change, in a thread, because it brings an event loop of its own."""
    settings = {
        f"DERMADETECT_{name.upper()}": value.get_secret_value()
        for name in ("database_url", "admin_database_url", "master_key")
        if (value := getattr(world.settings, name))
    }
    command = Command(settings | {"DERMADETECT_BLOB_DIRECTORY": str(world.settings.blob_directory)})
    line = ("sso", kind, "set", SLUG, *change, "--dry-run", "--json")
    result = await asyncio.to_thread(command.run, *line, code=code)
    said: dict[str, Any] = json.loads(result.stdout)
    return said


async def rows(world: World) -> list[KeptSignIn]:
    async with world.database.tenant(world.tenant(SLUG).scope) as session:
        return list((await session.scalars(select(KeptSignIn).order_by(KeptSignIn.id))).all())


def metadata(directory: Path, *keys: SigningKey) -> str:
    """The provider's metadata with these keys."""
    documents = [idp_metadata(IdpConfig(IDP.base_url, key)).decode() for key in keys]
    start, end = "<md:KeyDescriptor", "</md:KeyDescriptor>"
    described = [each[each.index(start) : each.index(end) + len(end)] for each in documents]
    file = directory / "metadata.xml"
    file.write_text(documents[0].replace(described[0], "".join(described)))
    return str(file)


async def test_a_changed_mapping_shows_who_would_lose_which_role(idp: PaperIdp) -> None:
    found = await tried(idp.world, "--role", "doctors=referrer", code=3)
    assert (found["tried"], found["lose"], found["refused"], found["unproven"]) == (2, 2, 0, 0)
    assert {each["person"] for each in found["people"]} == {f"{name}@{SLUG}.example" for name in PEOPLE}
    for each in found["people"]:
        assert (each["roles"], each["loses"], each["gains"]) == (["physician"], ["physician"], ["referrer"])
    gardeners = await tried(idp.world, "--role", "gardeners=physician", code=3)
    assert {each["refused_by"] for each in gardeners["people"]} == {"login.no-role"}
    same = await tried(idp.world, "--role", "doctors=physician", "--role", "others=referrer")
    assert (same["tried"], same["lose"]) == (2, 0)


async def test_nothing_is_changed_by_trying(idp: PaperIdp) -> None:
    async with idp.world.admin.control() as session:
        before = await find_tenant(session, SLUG)
    await tried(idp.world, "--role", "doctors=referrer", "--groups-attribute", "memberOf", code=3)
    async with idp.world.admin.control() as session:
        after = await find_tenant(session, SLUG)
        connection = await find_connection(session, after, "main")
    assert connection is not None
    assert (connection.role_mapping, connection.groups_attribute) == ({"doctors": "physician"}, "groups")
    assert after.epoch == before.epoch


async def test_a_changed_certificate_is_tried_on_real_signatures(idp: PaperIdp, tmp_path: Path) -> None:
    new = SigningKey.generate()
    alone = await tried(idp.world, "--metadata", metadata(tmp_path, new), code=3)
    assert alone["refused"] == 2
    assert {each["refused_by"] for each in alone["people"]} == {"saml.invalid-signature"}
    both = await tried(idp.world, "--metadata", metadata(tmp_path, new, IDP.key))
    assert (both["tried"], both["lose"]) == (2, 0)


async def test_a_changed_policy_is_tried_too(idp: PaperIdp) -> None:
    found = await tried(idp.world, "--require-encryption", code=3)
    losers = [each["person"] for each in found["people"] if each["loses"]]
    assert losers == [f"{PEOPLE[0]}@{SLUG}.example"]  # the other one's came encrypted


async def test_granted_roles_stay(idp: PaperIdp) -> None:
    async with idp.world.database.tenant(idp.world.tenant(SLUG).scope) as session:
        person = update(User).where(User.external_id == PEOPLE[0])
        await session.execute(person.values(granted_roles=["coordinator"]))
    try:
        found = await tried(idp.world, "--role", "gardeners=physician", code=3)
        by_person = {each["person"]: each for each in found["people"]}
        first, second = (by_person[f"{name}@{SLUG}.example"] for name in PEOPLE)
        assert (first["loses"], first["refused_by"]) == (["physician"], None)
        assert second["refused_by"] == "login.no-role"
    finally:
        async with idp.world.database.tenant(idp.world.tenant(SLUG).scope) as session:
            await session.execute(person.values(granted_roles=[]))


async def test_a_response_is_checked_as_of_the_moment_at_which_it_came() -> None:
    then = utcnow() - timedelta(days=20)
    origin = "https://tryco.example"
    sp = service_provider(origin, IDP.key.private_pem.decode(), IDP.key.certificate_pem.decode())
    idp = IdentityProvider(IDP.entity_id, IDP.sso_url, (IDP.key.certificate_pem.decode(),))
    answer = Answer(
        IDP.entity_id,
        ServiceProvider(sp.entity_id, sp.acs_url),
        Person("u-1", "u-1@tryco.example", "Una", ("doctors",)),
        "_request",
        issued_at=then,
    )
    field = base64.b64encode(build_response(answer, IDP.key)).decode()
    assert validate_response(field, sp, idp, "_request", then).name_id == "u-1"
    for moment in (None, then + timedelta(hours=9), then - timedelta(hours=1)):
        with pytest.raises(SamlRefused) as refused:
            validate_response(field, sp, idp, "_request", moment)
        assert refused.value.check_id in ("saml.expired", "saml.not-yet-valid")
    assert validate_response(field, sp, idp, "_request", then).name_id == "u-1"


async def test_what_is_kept_is_the_newest_and_sealed(idp: PaperIdp, sign_in: SignIn) -> None:
    before = await rows(idp.world)
    assert (await sign_in.answer(await idp.answer(sign_in, name_id=PEOPLE[0]))).status_code == 303
    after = await rows(idp.world)
    assert [row.id for row in after] == [row.id for row in before]
    assert [row.sealed != old.sealed for row, old in zip(after, before, strict=True)] == [True, False]
    for row in after:
        for plain in (b"tryco.example", b"SAML", b"response"):
            assert plain not in row.sealed


async def test_what_is_sealed_for_somebody_is_nobody_elses(idp: PaperIdp) -> None:
    scope = idp.world.tenant(SLUG).scope
    first, second = await rows(idp.world)

    async def put(row: KeptSignIn, sealed: bytes) -> None:
        async with idp.world.database.tenant(scope) as session:
            await session.execute(update(KeptSignIn).where(KeptSignIn.id == row.id).values(sealed=sealed))

    await put(second, first.sealed)
    try:
        found = await tried(idp.world, "--role", "doctors=physician")
        assert found["unproven"] == 1
        assert "login.kept-unreadable" in {each["refused_by"] for each in found["people"]}
    finally:
        await put(second, second.sealed)
    assert (await tried(idp.world, "--role", "doctors=physician"))["unproven"] == 0


async def test_nothing_is_kept_longer_than_thirty_days_nor_of_who_is_gone(
    idp: PaperIdp, sign_in: SignIn
) -> None:
    world, scope = idp.world, idp.world.tenant(SLUG).scope
    for name in ("u-old", "u-gone"):
        assert (await sign_in.answer(await idp.answer(sign_in, name_id=name))).status_code == 303
    async with world.database.tenant(scope) as session:
        ids = dict((await session.execute(select(User.external_id, User.id))).all())
        long_ago = utcnow() - timedelta(days=30, minutes=1)
        old = update(KeptSignIn).where(KeptSignIn.user_id == ids["u-old"])
        await session.execute(old.values(signed_in_at=long_ago))
    await deactivate(world.database, scope, None, ids["u-gone"], None)
    assert (await tried(world, "--role", "doctors=physician"))["tried"] == 2
    assert len(await rows(world)) == 4
    await tidy(world.database, scope)
    assert {row.user_id for row in await rows(world)} == {ids[name] for name in PEOPLE}


async def test_what_a_leaked_key_seals_is_not_kept(idp: PaperIdp, sign_in: SignIn) -> None:
    world = idp.world
    at_once = {"use_after": timedelta(0), "retire_after": timedelta(0)}
    await rotate_key(world.settings, world.admin, SLUG, "data", revoke_now=False, **at_once)
    assert (await tried(world, "--role", "doctors=physician"))["unproven"] == 0, "former keys go on opening"
    await rotate_key(world.settings, world.admin, SLUG, "data", revoke_now=True, **at_once)
    await world.heard()
    assert await rows(world) == []
    for name in PEOPLE:
        assert (await sign_in.answer(await idp.answer(sign_in, name_id=name))).status_code == 303
    assert (await tried(world, "--role", "doctors=physician"))["tried"] == 2


async def test_a_tenant_may_have_nothing_kept(idp: PaperIdp, sign_in: SignIn) -> None:
    world, scope = idp.world, idp.world.tenant(SLUG).scope
    await idp.connect(common={"keep_sign_ins": False})
    try:
        assert (await sign_in.answer(await idp.answer(sign_in, name_id="u-3"))).status_code == 303
        assert len(await rows(world)) == 2
        await tidy(world.database, scope)
        assert await rows(world) == []
        assert (await tried(world, "--role", "doctors=referrer"))["tried"] == 0
    finally:
        await idp.connect(common={"keep_sign_ins": True})


async def test_a_changed_mapping_of_an_openid_provider(idp: PaperIdp) -> None:
    world = idp.world
    providers = ScriptedProviders()
    with serving(providers) as url:
        provider = providers.add(url, new_key("only"))
        async with world.admin.control() as session:
            await set_connection(
                session,
                SLUG,
                name="openid",
                issuer=provider.issuer,
                client_id=CLIENT_ID,
                client_auth="client_secret_basic",
                secret=CLIENT_SECRET,
                data_key=await world.parts[KeyRing].data_key(world.tenant(SLUG).scope),
                role_mapping={"doctors": "physician"},
            )
        await world.parts[Directory].refresh()
        async with Browser(world.app, "198.51.100.250") as browser:
            sign_in = SignIn(browser, idp.origin)
            redirect = await sign_in.authorize(connection="openid")
            back = await browser.get(redirect.headers["Location"])
            assert (await browser.get(back.headers["Location"])).status_code == 303
        same = (
            "--connection",
            "openid",
            "--issuer",
            provider.issuer,
            "--client-id",
            CLIENT_ID,
            "--keep-secret",
        )
        found = await tried(world, *same, "--role", "doctors=referrer", code=3, kind="oidc")
        assert [(each["loses"], each["gains"]) for each in found["people"]] == [(["physician"], ["referrer"])]
        elsewhere = await tried(world, *same, "--groups-claim", "realm.roles", code=3, kind="oidc")
        assert [each["refused_by"] for each in elsewhere["people"]] == ["login.no-role"]
        off = await tried(world, *same, "--disable", code=3, kind="oidc")
        assert [each["refused_by"] for each in off["people"]] == ["login.connection-removed"]
    async with world.database.tenant(world.tenant(SLUG).scope) as session:
        assert await session.scalar(select(func.count()).select_from(KeptSignIn)) == 1
