"""What benchmarks run on: a PostgreSQL of their own, migrated, with tenants that the product's own verbs made."""

import base64
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from uuid import UUID

import clinic.assignments.models
import clinic.physicians.models  # noqa: F401  # tables that a case refers to
from auth.connections.models import Connection
from auth.keys.service import KeyRing
from auth.oauth.service import register_client
from auth.people.service import sign_in
from auth.tokens.service import granted_scope, issue
from clinic.cases.schemas import NewCase
from clinic.cases.service import create_case
from clinic.patients.schemas import NewPatient
from core.access import Principal
from core.blobs import BlobStores
from core.clock import utcnow
from core.database import AdminDatabase, Database, TenantScope
from core.embedded_postgres import EmbeddedPostgres
from core.ids import new_id
from core.logins import Logins
from core.parts import Parts
from core.settings import Settings
from gateway.assembly import assemble, disassemble, open_admin_database, provisioning_steps
from migrations.fleet import migrate
from migrations.rendering import head
from migrations.runner import login_of
from tenants.directory.cache import Directory
from tenants.plans.service import set_quota
from tenants.provisioning.service import provision

UNLIMITED = 1_000_000_000

CASE = NewCase(
    patient=NewPatient(name="Ada Example", birth_date=date(1984, 5, 17), sex="female"),
    complaint="A mole on the left shoulder that has changed its colour within two months.",
    history="No earlier skin disease. Father had a melanoma at 61. Takes no medicines.",
    body_site="left shoulder",
    symptoms=["itching", "change of colour"],
    duration_days=60,
    fitzpatrick=2,
    region="DE-BE",
    locale="en",
)


@dataclass(frozen=True)
class Visitor:
    """Somebody signed in at a tenant of their own, and a case that they may read."""

    scope: TenantScope
    host: str
    case_id: UUID
    token: str = field(repr=False)

    @property
    def path(self) -> str:
        return f"/v1/cases/{self.case_id}"


@dataclass(frozen=True)
class Stage:
    """A migrated database and the settings of a gateway on it, with limits that no benchmark reaches."""

    directory: Path
    settings: Settings
    logins: Logins
    parts: Parts
    admin: AdminDatabase

    async def visitor(self, slug: str) -> Visitor:
        """Provision the tenant `slug` and give it a referrer with a case."""
        tenant = await provision(
            self.admin,
            provisioning_steps(self.settings, self.admin, self.parts[BlobStores]),
            slug=slug,
            name=slug.title(),
            plan="enterprise",
            base_domain=self.settings.base_domain,
            schema_revision=head("tenant"),
        )
        async with self.admin.control() as control:
            for metric in ("requests", "requests_per_minute_user", "requests_per_minute_tenant"):
                await set_quota(control, slug, metric, UNLIMITED)
        await self.parts[Directory].refresh()
        record = self.parts[Directory].at_host(tenant.home_host)
        assert record is not None
        keys = self.parts[KeyRing]
        data_key = await keys.data_key(record.scope)
        async with self.parts[Database].tenant(record.scope) as session:
            client = await register_client(session, "bench", "Benchmark", ["https://app.example/callback"])
            started = await sign_in(
                session,
                connection=Connection(id=new_id(), audience="staff", provision="create", email_domains=[]),
                external_id=f"referrer@{slug}.example",
                email=f"referrer@{slug}.example",
                display_name="Robin Roe",
                roles=["referrer"],
                seat_limit=5000,
                client_id=client.id,
            )
            started.expires_at = utcnow() + timedelta(hours=10)  # as if the app had taken it up
            scope = granted_scope("", ["referrer"])
            principal = Principal(
                record.scope,
                "user",
                started.user_id,
                started.id,
                frozenset(["referrer"]),
                frozenset(scope.split()),
            )
            case_id = await create_case(session, principal, data_key, CASE)
        origin = self.settings.origin_of(record.home_host)
        issued = await issue(keys, record, origin, started, scope, self.settings.access_token_s)
        return Visitor(record.scope, record.home_host, case_id, issued.access_token)


@asynccontextmanager
async def open_stage() -> AsyncIterator[Stage]:
    """A PostgreSQL with its defaults for durability, migrated; stopped and deleted at the end."""
    directory = Path(tempfile.mkdtemp(prefix="dermadetect-bench-"))
    postgres = EmbeddedPostgres(directory / "postgres")
    try:
        with postgres:
            logins = await postgres.bootstrap()
            settings = Settings(
                database_url=logins.gateway_url,
                admin_database_url=logins.admin_url,
                master_key=base64.b64encode(os.urandom(32)).decode(),
                blob_directory=directory / "blobs",
                address_limit=f"{UNLIMITED}/minute",
                access_token_s=3600,
            )
            admin = open_admin_database(settings)
            await migrate(admin, login_of(logins.gateway_url))
            parts = assemble(settings)
            try:
                yield Stage(directory, settings, logins, parts, admin)
            finally:
                await disassemble(parts)
                await admin.close()
    finally:
        postgres.destroy()
        shutil.rmtree(directory)
