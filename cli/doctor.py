"""`dermadetect doctor`: whether what the gateway stands on is as it should be, and what to do where it is not."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import typer

from cli.output import Json, show, tell, warn
from cli.run import FAILED, run, settings, told

if TYPE_CHECKING:
    from core.blobs import BlobStore
    from core.settings import Settings

LIMIT_S = 10.0


@dataclass(frozen=True)
class Check:
    """One thing looked at. `state` is `ok`, `wrong`, `warning` for what will be wrong, or `off` for what is not set up and
    need not be."""

    name: str
    state: str
    detail: str
    remedy: str | None = None


def doctor(as_json: Json = False) -> None:
    """Check settings, database logins, migrations, blob store, AI Service, limiter, and tenants' identity providers.

    Each finding says what to do. Exit code 1 when something is wrong. Writes and deletes one small blob in a
    container of its own; changes nothing else.

      dermadetect doctor
      dermadetect doctor --json | jq '.[] | select(.state == "wrong")'
    """
    checks = run(_examine)
    show([asdict(check) for check in checks], as_json=as_json, title="Health")
    wrong = [check for check in checks if check.state == "wrong"]
    later = [check for check in checks if check.state == "warning"]
    for check in wrong + later:
        warn(f"{check.name}: {check.detail}", check.remedy or "see the logs")
    if wrong:
        raise typer.Exit(FAILED)
    if not later:
        tell("All is well.")


async def _examine() -> list[Check]:
    from cli.doctor_database import admin_login, gateway_login, revisions

    configured = settings()
    parts: list[tuple[str, Callable[[Settings], Awaitable[list[Check]]]]] = [
        ("master key", _master_key),
        ("gateway login", gateway_login),
        ("operator login", admin_login),
        ("migrations", revisions),
        ("blob store", _blobs),
        ("AI Service", _ai),
        ("rate limits", _limits),
        ("identity providers", _identity_providers),
    ]
    found = await asyncio.gather(
        *(_guarded(name, examine, configured) for name, examine in parts),
        *(_cell(name, configured) for name in configured.cells),
    )
    return [check for checks in found for check in checks]


async def _cell(name: str, configured: "Settings") -> "list[Check]":
    """What a cell must have as the home must."""
    from cli.doctor_database import admin_login, gateway_login

    there = configured.model_copy(update=dict(configured.cells[name]))
    parts = (("gateway login", gateway_login), ("operator login", admin_login), ("blob store", _blobs))
    found = await asyncio.gather(*(_guarded(part, examine, there) for part, examine in parts))
    return [replace(check, name=f"{name}: {check.name}") for checks in found for check in checks]


async def _guarded(
    name: str, examine: "Callable[[Settings], Awaitable[list[Check]]]", configured: "Settings"
) -> list[Check]:
    from gateway.assembly import NotConfigured

    try:
        async with asyncio.timeout(LIMIT_S):
            return await examine(configured)
    except NotConfigured as missing:
        return [Check(name, "wrong", missing.title, missing.detail)]
    except Exception as failure:  # any failure is what this command is asked to find
        return [
            Check(name, "wrong", told(failure), "check that it runs, and that address and password are right")
        ]


async def _master_key(configured: "Settings") -> list[Check]:
    from contextlib import aclosing

    from asyncpg import PostgresError
    from sqlalchemy.exc import SQLAlchemyError

    from auth.keys.errors import MasterKeyUnknown
    from auth.keys.rewrapping import survey_tenants
    from gateway.assembly import NotConfigured, master_keys, master_secrets, open_database

    master_secrets(configured)
    try:
        database = open_database(configured)
    except NotConfigured:
        return []  # the gateway's login tells
    try:
        async with aclosing(master_keys(configured, database.control)) as masters:
            name = (await masters.current()).kek_id
            try:
                async with database.control() as session:
                    found = await survey_tenants(session)
            except (OSError, PostgresError, SQLAlchemyError):
                return [Check("master key", "ok", f"id {name}")]  # the gateway's login tells the rest
            for kek_id in found:
                try:
                    await masters.named(kek_id)
                except MasterKeyUnknown as problem:
                    remedy = "give every process that master key as DERMADETECT_MASTER_KEY_PREVIOUS"
                    return [Check("master key", "wrong", f"{found[kek_id]} keys: {problem.detail}", remedy)]
    finally:
        await database.close()
    others = found.total() - found[name]
    waiting = f"; {others} keys are wrapped by the one before: dermadetect keys rewrap" if others else ""
    return [Check("master key", "ok", f"id {name}{waiting}")]


async def _blobs(configured: "Settings") -> list[Check]:
    from core.ids import new_id
    from gateway.assembly import blob_stores

    stores, container = blob_stores(configured), f"doctor-{new_id().hex}"
    store = stores.at()
    try:
        await store.create_container(container)
        try:
            await store.put(container, "probe", b"probe", content_type="text/plain")
            reader = await store.open(container, "probe")
            if await reader.read() != b"probe":
                return [Check("blob store", "wrong", "a blob came back changed", "do not use this store")]
            links = await _signed_links(store, container)
            await store.delete(container, "probe")
        finally:
            await store.delete_container(container)
    finally:
        await stores.close()
    return [Check("blob store", "ok", "written, read and deleted"), links]


async def _signed_links(store: "BlobStore", container: str) -> Check:
    from core.problems import Problem

    try:
        await store.link(container, "probe", disposition="inline")
    except Problem as problem:
        return Check(
            "signed links", "off", f"no tenant can be given `--image-links signed`: {problem.detail}"
        )
    return Check("signed links", "ok", "can be made")


async def _ai(configured: "Settings") -> list[Check]:
    from clinic.ai.client import AiClient

    if configured.ai_url is None:
        return [Check("AI Service", "off", "none configured; cases go on without it (DERMADETECT_AI_URL)")]
    client = AiClient(base_url=str(configured.ai_url), token=None, deadline_s=LIMIT_S)
    try:
        await client.ping()
    finally:
        await client.aclose()
    return [Check("AI Service", "ok", str(configured.ai_url))]


async def _limits(configured: "Settings") -> list[Check]:
    from core.limits import RateLimits

    where = configured.limits_storage.get_secret_value()
    limits = RateLimits(where)
    try:
        await limits.ping()
    finally:
        await limits.close()
    if where.startswith("memory://"):
        return [Check("rate limits", "ok", "counted in process; several processes need redis://")]
    return [Check("rate limits", "ok", "counted in Redis")]


async def _identity_providers(configured: "Settings") -> list[Check]:
    """What will keep the people of some tenant from signing in: a certificate that ends, metadata that cannot be read."""
    from asyncpg import PostgresError
    from sqlalchemy import select
    from sqlalchemy.exc import SQLAlchemyError

    from auth.connections.models import Connection
    from auth.saml.models import SamlConnection
    from auth.saml.refresh import warnings_of
    from gateway.assembly import NotConfigured, open_database
    from tenants.directory.models import Tenant

    try:
        database = open_database(configured)
    except NotConfigured:
        return []  # the gateway's login tells
    query = (
        select(Tenant.slug, Connection.name, SamlConnection)
        .join(Connection, Connection.tenant_id == Tenant.id)
        .join(
            SamlConnection,
            (SamlConnection.tenant_id == Connection.tenant_id) & (SamlConnection.id == Connection.id),
        )
        .where(Tenant.state == "active", Connection.enabled)
        .order_by(Tenant.slug, Connection.name)
    )
    try:
        async with database.control() as session:
            found = (await session.execute(query)).all()
    except (OSError, PostgresError, SQLAlchemyError):
        return []  # the gateway's login and the migrations tell
    finally:
        await database.close()
    return [
        Check(
            "identity providers", "warning", f"{slug}, {name}: {warning}", "dermadetect sso saml show " + slug
        )
        for slug, name, row in found
        for warning in warnings_of(row)
    ] or [
        Check(
            "identity providers", "ok", f"no certificate of {len(found)} SAML connections ends within 30 days"
        )
    ]
