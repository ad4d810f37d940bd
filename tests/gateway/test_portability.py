"""A tenant carried away and brought back: everything a clinic has done, through real files."""

import asyncio
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from auth.keys.errors import KeysLocked
from auth.keys.service import KeyRing
from auth.oidc.service import secret_of
from auth.oidc.settings import find_oidc
from auth.oidc.settings import set_connection as set_openid
from auth.saml.settings import find_saml, set_connection
from core.blobs import BlobStores
from gateway.lifecycle import export_tenant, purge_tenant, restore_tenant
from migrations.rendering import head
from tenants.directory.cache import Directory
from tenants.directory.errors import SlugTaken, WrongState
from tenants.directory.models import Host, Tenant
from tenants.directory.service import rename
from tenants.lifecycle.service import close
from tenants.plans.service import set_quota
from tenants.portability.bundle import Manifest, read_manifest, verify
from tenants.portability.errors import BundleExists, BundleRefused
from tenants.provisioning.service import Step, provision, roll_back
from tests.clinic.journey import Clinic, ok
from tests.clinic.test_reports import answered, issue, pdf_of, token_in
from tests.fixtures.world import World


def stores_of(world: World) -> BlobStores:
    return world.parts[BlobStores]


async def export(world: World, slug: str, target: Path, passphrase: str | None = None) -> Manifest:
    return await export_tenant(
        world.settings, world.admin, stores_of(world), slug, target, passphrase=passphrase
    )


async def restore(
    world: World, bundle: Path, slug: str | None = None, passphrase: str | None = None
) -> Tenant:
    tenant = await restore_tenant(
        world.settings, world.admin, stores_of(world), bundle, slug=slug, passphrase=passphrase
    )
    await world.parts[Directory].refresh()
    return tenant


async def content(world: World, tenant: Tenant, manifest: Manifest) -> dict[str, str]:
    """A digest of every table's rows but the patients', which are sealed anew."""
    async with world.admin.connection() as connection:
        await connection.execute(f"SET search_path = {tenant.scope.schema}")
        return {
            table.name: await connection.fetchval(
                f"SELECT count(*) || coalesce(md5(string_agg(t::text, ',' ORDER BY t::text)), '') FROM {table.name} AS t"
            )
            for table in manifest.tables
            if table.name != "patients"
        }


async def blobs(world: World, tenant: Tenant) -> dict[str, bytes]:
    store, container = stores_of(world).at(), tenant.scope.container
    return {
        blob.name: await (await store.open(container, blob.name)).read()
        async for blob in store.list(container)
    }


async def sees_everything(world: World, slug: str, case: dict[str, Any], report: dict[str, Any]) -> None:
    """A coordinator of the tenant who has just signed in reads what was there before."""
    who = await world.person("coordinator", tenant=slug)
    shown = ok(await who.http.get(f"/v1/cases/{case['id']}"))
    assert shown["status"] == "answered"
    patient = ok(await who.http.get(f"/v1/patients/{shown['patient_id']}"))
    assert patient["name"] == "Ada Example"
    (image,) = ok(await who.http.get(f"/v1/cases/{case['id']}/images"))["items"]
    looked = await who.http.get(f"/v1/cases/{case['id']}/images/{image['id']}/content")
    assert (looked.status_code, looked.headers["Content-Type"]) == (200, "image/jpeg")
    token = token_in(await pdf_of(who, report))
    public = await world.http(f"{slug}.localhost")
    assert ok(await public.get(f"/verify/{token}"))["sha256"] == report["sha256"]


@pytest.fixture(scope="module")
async def source(
    world: World, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Tenant, dict[str, Any], dict[str, Any], Path]:
    """A clinic with an answered case and its report, and its bundle, wrapped by a passphrase."""
    tenant = await world.create_tenant("portable")
    clinic = await Clinic.open(world, "portable")
    physician, case = await answered(clinic)
    report = ok(await issue(physician, case), 201)
    await clinic.draft()
    async with world.admin.control() as session:
        await set_quota(session, "portable", "ai_calls", 4711)
        await set_connection(
            session,
            "portable",
            idp_entity_id="https://idp.example",
            sso_url="https://idp.example/sso",
            certificates=["MII"],
            role_mapping={"doctors": "physician"},
        )
        await set_openid(
            session,
            "portable",
            name="openid",
            issuer="https://openid.example",
            client_id="derma",
            client_auth="client_secret_basic",
            secret="the provider knows it",
            data_key=await world.parts[KeyRing].data_key(tenant.scope),
        )
    bundle = tmp_path_factory.mktemp("bundles") / "portable"
    await export(world, "portable", bundle, "correct horse")
    return tenant, case, report, bundle


Source = tuple[Tenant, dict[str, Any], dict[str, Any], Path]


async def test_a_tenant_is_restored_beside_the_one_it_came_from(world: World, source: Source) -> None:
    tenant, case, report, bundle = source
    manifest, _ = verify(bundle)
    # Two photographs, which are displayed as they are, their thumbnails, and a report.
    assert (manifest.blobs.count, manifest.blobs.missing) == (5, 0)
    with pytest.raises(KeysLocked):
        await restore(world, bundle, "portable-copy")
    with pytest.raises(KeysLocked):
        await restore(world, bundle, "portable-copy", "wrong horse")
    with pytest.raises(SlugTaken):
        await restore(world, bundle, "acme", "correct horse")
    with pytest.raises(WrongState):  # the tenant itself is not purged
        await restore(world, bundle, None, "correct horse")

    copy = await restore(world, bundle, "portable-copy", "correct horse")
    assert copy.key != tenant.key
    assert await content(world, copy, manifest) == await content(world, tenant, manifest)
    assert await blobs(world, copy) == await blobs(world, tenant)
    record = world.tenant("portable-copy")
    assert (record.state, record.home_host, record.limits["ai_calls"]) == (
        "active", "portable-copy.localhost", 4711
    )  # fmt: skip
    async with world.admin.control() as session:
        was, now = [(await find_saml(session, each, "main")) for each in (tenant, copy)]
    assert was is not None
    assert now is not None
    assert was[0].id == now[0].id, "its people are known by it"
    assert now[0].role_mapping == {"doctors": "physician"}
    assert now[1].idp_entity_id == "https://idp.example"
    async with world.admin.control() as session:
        openid = await find_oidc(session, copy, "openid")
    assert openid is not None
    assert await secret_of(world.parts[KeyRing], copy.scope, openid[1]) == "the provider knows it"
    for slug in ("portable-copy", "portable"):
        await sees_everything(world, slug, case, report)
    async with world.admin.connection() as connection:
        left = f"SELECT count(*) FROM {copy.scope.schema}.sessions WHERE created_at < $1"
        assert await connection.fetchval(left, copy.created_at) == 0, "everybody signs in anew"


async def test_a_purged_tenant_comes_back_to_its_hosts(world: World, source: Source, tmp_path: Path) -> None:
    old = await world.create_tenant("returning")
    clinic = await Clinic.open(world, "returning")
    physician, case = await answered(clinic)
    report = ok(await issue(physician, case), 201)
    bundle = tmp_path / "bundle"
    await export(world, "returning", bundle)
    old_key = clinic.admin.http.headers["Authorization"]
    async with world.admin.control() as session:
        await close(session, "returning", "by mistake", timedelta(0))
    await purge_tenant(world.settings, world.admin, stores_of(world), "returning", now=True)
    with pytest.raises(WrongState):
        await export(world, "returning", tmp_path / "nothing")

    new = await restore(world, bundle)
    assert (new.slug, new.home_host) == ("returning", "returning.localhost")
    assert new.key != old.key
    await sees_everything(world, "returning", case, report)
    public = await world.http("returning.localhost", Authorization=old_key)
    assert (await public.get("/v1/cases")).status_code == 401, "tokens of the purged tenant are nothing here"
    async with world.admin.control() as session:
        purged = await session.get_one(Tenant, old.id)
        assert (purged.state, purged.slug) == ("closed", old.key)
    assert (await restore(world, bundle)).id == new.id, "again: nothing new"
    with pytest.raises(SlugTaken):
        await restore(world, source[3], "returning", "correct horse")


async def test_a_restore_that_is_undone_gives_the_purged_tenant_its_hosts_back(world: World) -> None:
    old = await world.create_tenant("giving")
    async with world.admin.control() as session:
        await rename(session, "giving", "given", world.settings.base_domain)
        await close(session, "given", "by mistake", timedelta(0))
    await purge_tenant(world.settings, world.admin, stores_of(world), "given", now=True)

    async def fail(tenant: Tenant) -> None:
        raise RuntimeError("the disk is full")

    async def begin(slug: str, name: str, successor_of: str | None) -> None:
        await provision(
            world.admin,
            [Step("schema", fail)],
            slug=slug,
            name=name,
            plan=old.plan,
            base_domain=world.settings.base_domain,
            schema_revision=head("tenant"),
            successor_of=successor_of,
        )

    for _ in range(2):  # the second time all is as it was before the first
        with pytest.raises(RuntimeError):
            await begin("given", old.name, old.key)
        await roll_back(world.admin, [Step("schema", fail)], slug="given", name=old.name, plan=old.plan)
        async with world.admin.control() as session:
            purged = await session.get_one(Tenant, old.id)
            owned = set(await session.scalars(select(Host.host).where(Host.tenant_id == old.id)))
        assert (purged.state, purged.slug, purged.home_host) == ("closed", "given", "giving.localhost")
        assert owned == {"giving.localhost", "given.localhost"}
        for slug in ("given", "giving"):
            with pytest.raises(SlugTaken):
                await begin(slug, "Somebody Else", None)


async def test_an_export_under_load_has_every_blob_that_its_rows_name(world: World, tmp_path: Path) -> None:
    tenant = await world.create_tenant("busy")
    clinic = await Clinic.open(world, "busy")
    done = asyncio.Event()

    async def upload() -> None:
        while not done.is_set():
            await clinic.draft()

    uploads = [asyncio.create_task(upload()) for _ in range(3)]
    await asyncio.sleep(0.5)
    for n in range(3):
        manifest = await export(world, "busy", tmp_path / str(n))
        assert manifest.blobs.missing == 0
        verify(tmp_path / str(n))
    done.set()
    await asyncio.gather(*uploads)
    images = next(table for table in manifest.tables if table.name == "images")
    assert images.rows > 3

    store = stores_of(world).at()
    name = next(iter(await blobs(world, tenant)))
    await store.delete(tenant.scope.container, name)
    assert (await export(world, "busy", tmp_path / "lossy")).blobs.missing == 1
    with pytest.raises(BundleExists):
        await export(world, "busy", tmp_path / "lossy")


# Hostile bundles


def _edit(name: str, change: Callable[[Any], None]) -> Callable[[Path], None]:
    def hostile(bundle: Path) -> None:
        document = json.loads((bundle / name).read_text())
        change(document)
        (bundle / name).write_text(json.dumps(document))

    return hostile


def _manifest(change: Callable[[Any], None]) -> Callable[[Path], None]:
    return _edit("manifest.json", change)


def _index(change: Callable[[list[dict[str, Any]]], None]) -> Callable[[Path], None]:
    """Change the index of blobs, with a manifest that agrees."""

    def hostile(bundle: Path) -> None:
        lines = [json.loads(line) for line in (bundle / "blobs.jsonl").read_text().splitlines()]
        change(lines)
        text = "".join(json.dumps(line) + "\n" for line in lines).encode()
        (bundle / "blobs.jsonl").write_bytes(text)
        agreed = {
            "size": len(text),
            "sha256": hashlib.sha256(text).hexdigest(),
            "count": len(lines),
            "bytes": sum(line["size"] for line in lines),
        }
        _manifest(lambda m: m["blobs"].update(agreed))(bundle)

    return hostile


def _first_blob(bundle: Path) -> Path:
    return next(path for path in sorted((bundle / "blobs").rglob("*")) if path.is_file())


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def _overwrite(path: Path, text: str) -> None:
    path.write_text(text)


def _link(bundle: Path) -> None:
    blob = _first_blob(bundle)
    blob.rename(bundle.parent / "elsewhere")
    blob.symlink_to(bundle.parent / "elsewhere")


def _folder_link(bundle: Path) -> None:
    (bundle / "tables").rename(bundle.parent / "tables-elsewhere")
    (bundle / "tables").symlink_to(bundle.parent / "tables-elsewhere")


def _pipe(bundle: Path) -> None:
    _first_blob(bundle).unlink()
    os.mkfifo(_first_blob(bundle).parent / "pipe")


HOSTILE: dict[str, tuple[Callable[[Path], None], str]] = {
    "a blob changed": (lambda b: _flip(_first_blob(b)), "blobs/cases/"),
    "a blob gone": (lambda b: _first_blob(b).unlink(), "cannot be opened"),
    "a blob that grows": (lambda b: os.truncate(_first_blob(b), 1 << 40), "blobs/cases/"),
    "a blob that is a link": (_link, "cannot be opened"),
    "a folder that is a link": (_folder_link, "tables/"),
    "a blob that is a pipe": (_pipe, "cannot be opened"),
    "a blob nobody names": (lambda b: (b / "blobs" / "more").touch(), "no list names"),
    "a blob outside": (_index(lambda x: x[0].update(name="../../etc/passwd")), "blobs.jsonl"),
    "a blob with an absolute name": (_index(lambda x: x[0].update(name="/etc/passwd")), "blobs.jsonl"),
    "a blob named twice": (_index(lambda x: x.insert(0, x[0])), "twice"),
    "a blob of negative size": (_index(lambda x: x[0].update(size=-1)), "is not the file"),
    "an endless line": (lambda b: _flip_index(b), "blobs.jsonl"),
    "a row changed": (lambda b: _flip(b / "tables" / "users.copy"), "tables/users.copy"),
    "a table outside": (_manifest(lambda m: m["tables"][0].update(name="../users")), "tables.0.name"),
    "a table twice": (_manifest(lambda m: m["tables"].append(m["tables"][0])), "twice"),
    "a column with SQL": (_manifest(lambda m: m["tables"][0]["columns"].append('id") FROM')), "columns"),
    "a format of another age": (_manifest(lambda m: m.update(format="dermadetect-tenant/9")), "format"),
    "a word more": (_manifest(lambda m: m.update(run="rm")), "run"),
    "a manifest that is none": (lambda b: _overwrite(b / "manifest.json", "[" * 100_000), "manifest.json"),
    "a huge manifest": (lambda b: os.truncate(b / "manifest.json", 1 << 34), "larger"),
    "other settings": (_edit("control.json", lambda c: c.update(ai_model="evil")), "control.json"),
}


def _flip_index(bundle: Path) -> None:
    (bundle / "blobs.jsonl").write_text("{" * 5000)


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_bundle_is_refused_by_name(
    world: World, source: Source, tmp_path: Path, name: str
) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(source[3], bundle)
    spoil, named = HOSTILE[name]
    spoil(bundle)
    with pytest.raises(BundleRefused) as refused:
        await restore(world, bundle, "hostile", "correct horse")
    assert named in refused.value.detail


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda t: t.update(name="pg_user"), "pg_user"),
        (lambda t: t["columns"].append("secret"), "secret"),
        (lambda t: t.update(rows=t["rows"] + 1), "rows"),
    ],
)
async def test_rows_that_do_not_fit_are_refused_and_nothing_is_served(
    world: World, source: Source, tmp_path: Path, change: Callable[[Any], None], named: str
) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(source[3], bundle)

    def spoil(manifest: dict[str, Any]) -> None:
        users = next(table for table in manifest["tables"] if table["name"] == "users")
        change(users)
        if users["name"] != "users":
            (bundle / "tables/users.copy").rename(bundle / f"tables/{users['name']}.copy")

    _manifest(spoil)(bundle)
    slug = f"misfit-{named.replace('_', '')}"
    with pytest.raises(BundleRefused) as refused:
        await restore(world, bundle, slug, "correct horse")
    assert named in refused.value.detail
    assert (await (await world.http(f"{slug}.localhost")).get("/v1/me")).status_code == 404
    with pytest.raises(WrongState):  # half of that bundle is not made whole by another
        await restore(world, source[3], slug, "correct horse")


async def test_a_bundle_of_another_release_is_refused(world: World, source: Source, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(source[3], bundle)
    _manifest(lambda m: m.update(schema_revision="9999"))(bundle)
    assert read_manifest(bundle)[0].schema_revision == "9999"
    with pytest.raises(BundleRefused, match="revision 9999"):
        await restore(world, bundle, "future", "correct horse")
