"""Verbs on reports.

A report is a row and a PDF: reserve the row → render in the jail → store the PDF → commit with hash and signature.
What a crash leaves is removed by `clinic.images.sweeper`, and the next request makes a new one.
"""

import hashlib
import json
import secrets
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey
from sqlalchemy import exists, func, select, text
from sqlalchemy.orm import aliased

from auth.keys.models import TenantKey
from auth.keys.service import KeyRing
from clinic.cases.errors import NotYourPart, WrongStatus
from clinic.cases.models import Case
from clinic.cases.visibility import find_case, may_see
from clinic.patients.service import open_identity
from clinic.reports.composition import Material, choose_locale, compose, content_sha256, gather
from clinic.reports.errors import ReportInProgress, ReportInterrupted, ReportNotFound, ReportUnrenderable
from clinic.reports.models import Report
from clinic.reports.rendering import render_report
from clinic.reports.schemas import Verification
from clinic.reports.wording import Locale
from core.access import Principal
from core.blobs import BlobStores
from core.database import Database, TenantScope, TenantSession
from core.jail import Jail, JailCrash, JailTimeout
from tenants.audit.service import audit
from tenants.directory.cache import TenantRecord
from tenants.directory.models import Tenant
from tenants.plans import storage

RENDERING_S = 30.0
JWS_TYPE = "dermadetect-report+jws"
REPORTABLE = ("answered", "closed")

# Longer than rendering and storing take; after that the maker of a reserved report is taken for dead.
_IN_PROGRESS = timedelta(minutes=2)
_RING = text("SELECT doorbell.ring('sweep-images', now() + interval '15 minutes')")


@dataclass(frozen=True)
class Press:
    """What it takes to issue a report of `tenant`, whose home is `origin`."""

    tenant: TenantRecord
    origin: str
    database: Database
    stores: BlobStores
    jail: Jail
    keys: KeyRing


async def issue_report(
    press: Press, principal: Principal, case_id: UUID, wanted: Locale | None
) -> tuple[Report, bool]:
    """The report of an answered case, and whether this call made it: a case that has not changed since has it
    already. A later one supersedes that of the same language.

    Raises `CaseNotFound`, `NotYourPart`, `WrongStatus`, `ReportInProgress`, `ReportInterrupted`,
    `ReportUnrenderable`, `BlobNotFound`.
    """
    scope = press.tenant.scope
    token = secrets.token_urlsafe(24)
    async with press.database.tenant(scope) as session:
        report, material = await _reserve(session, principal, case_id, wanted, hash_token(token))
    if material is None:
        return report, False
    try:
        pdf = await _render(press, material, report, f"{press.origin}/verify/{token}")
        blobs = press.stores.of(scope)
        await blobs.put(report.blob, pdf, content_type="application/pdf")
        sha256 = hashlib.sha256(pdf).hexdigest()
        statement = {
            "sha256": sha256,
            "content_sha256": content_sha256(material.case),
            "case": material.case.reference,
            "report": str(report.id),
            "issued_at": report.created_at.isoformat(),
        }
        signature = await press.keys.sign(scope, json.dumps(statement).encode(), typ=JWS_TYPE)
    except Exception:
        # So that the next attempt meets its own failure, and not this one's reservation.
        async with press.database.tenant(scope) as session:
            if reserved := await session.get(Report, report.id):
                await session.delete(reserved)
        raise
    async with press.database.tenant(scope) as session:
        stored = await session.scalar(select(Report).where(Report.id == report.id).with_for_update())
        if stored is None:
            raise ReportInterrupted("It was cleared away while it was being stored; ask again.")
        stored.status, stored.sha256, stored.size, stored.signature = "stored", sha256, len(pdf), signature
        audit(session, principal, "report.issue", report.id, case_id=str(case_id), locale=report.locale)
        # Counted, and never refused: a full store must not withhold what a physician answered.
        await storage.add(session, len(pdf))
    return stored, True


async def _reserve(
    session: TenantSession, principal: Principal, case_id: UUID, wanted: Locale | None, verify_hash: str
) -> tuple[Report, Material | None]:
    """The report there is, or a reserved one with what it shall be made of."""
    # The case's lock orders requests for the same report.
    case, stands = await find_case(session, principal, case_id, lock=True)
    if stands.isdisjoint({"assignee", "coordinator", "owner"}):
        raise NotYourPart("A report is issued by those who care for the case.", action="report")
    if case.status not in REPORTABLE:
        raise WrongStatus(
            "There is a report once the case is answered.", case_status=case.status, action="report"
        )
    locale = choose_locale(wanted, case.locale)
    same = select(Report).where(Report.case_id == case_id, Report.locale == locale).order_by(Report.id.desc())
    latest = await session.scalar(same.where(Report.status == "stored").limit(1))
    if latest is not None and latest.case_version == case.version:
        return latest, None
    if await session.scalar(
        same.where(Report.status == "reserved", Report.created_at > func.now() - _IN_PROGRESS).limit(1)
    ):
        raise ReportInProgress("Somebody has just asked for it; ask again in a few seconds.")
    report = Report(
        case_id=case_id,
        case_version=case.version,
        locale=locale,
        created_by=principal.subject,
        verify_hash=verify_hash,
        supersedes=latest.id if latest else None,
    )
    session.add(report)
    await session.flush()
    await session.execute(_RING)
    return report, await gather(session, case)


async def _render(press: Press, material: Material, report: Report, verify_url: str) -> bytes:
    scope = press.tenant.scope
    blobs = press.stores.of(scope)
    data_key = await press.keys.data_key_by_id(scope, material.patient.key_id)
    content = compose(
        material,
        report,
        choose_locale(None, report.locale),
        organisation=press.tenant.name,
        identity=open_identity(scope, material.patient, data_key),
        pictures={
            image.id: await (await blobs.open(image.blob("display"))).read() for image in material.images
        },
        verify_url=verify_url,
    )
    try:
        return await press.jail.run(RENDERING_S, render_report, content)
    except (JailTimeout, JailCrash) as error:
        raise ReportUnrenderable("Rendering took too long or too much memory.") from error


async def list_reports(
    session: TenantSession, principal: Principal, case_id: UUID, limit: int, after: UUID | None
) -> list[Report]:
    """At most `limit` reports of a case before the one `after`, newest first. Raises `CaseNotFound`."""
    await find_case(session, principal, case_id)
    audit(session, principal, "case.read", case_id, part="reports")
    query = select(Report).where(Report.case_id == case_id, Report.status == "stored")
    if after is not None:
        query = query.where(Report.id < after)
    return list(await session.scalars(query.order_by(Report.id.desc()).limit(limit)))


async def read_report(session: TenantSession, principal: Principal, report_id: UUID) -> Report:
    """A report of a case the principal may see, for reading, which is audited. Raises `ReportNotFound`."""
    query = (
        select(Report)
        .join(Case, Case.id == Report.case_id)
        .where(Report.id == report_id, Report.status == "stored", may_see(principal.roles))
    )
    report = await session.scalar(query, {"subject": principal.subject})
    if report is None:
        raise ReportNotFound("No such report, or not one you are concerned with.")
    audit(session, principal, "report.view", report.id)
    return report


def hash_token(token: str) -> str:
    """What is kept of the token printed on a report. It has 192 random bits, so a plain hash is enough."""
    return hashlib.sha256(token.encode()).hexdigest()


async def verify(database: Database, tenant: TenantRecord, token: str) -> Verification:
    """What anybody who holds a report with this token may know of it. Raises `ReportNotFound`."""
    later = aliased(Report)
    async with database.tenant(tenant.scope) as session:
        row = (
            await session.execute(
                select(
                    Report.sha256,
                    Report.signature,
                    Report.created_at,
                    exists()
                    .where(later.supersedes == Report.id, later.status == "stored")
                    .label("superseded"),
                ).where(Report.verify_hash == hash_token(token), Report.status == "stored")
            )
        ).one_or_none()
    statement = await signed_statement(database, tenant.scope, row.signature) if row else None
    if row is None or statement is None or statement["sha256"] != row.sha256:
        raise ReportNotFound("No report of this organisation carries this code. Check the address.")
    return Verification(
        organisation=tenant.name,
        issued_at=row.created_at,
        superseded=row.superseded,
        sha256=row.sha256,
        content_sha256=statement["content_sha256"],
    )


async def signed_statement(database: Database, tenant: TenantScope, signature: str) -> dict[str, Any] | None:
    """What the tenant signed, None if it did not. A key that was retired since has still signed it."""
    try:
        parsed = jws.extract_compact(signature.encode())
        key_id = UUID(parsed.headers()["kid"])
    except (JoseError, ValueError, KeyError):
        return None
    async with database.control() as session:
        public = await session.scalar(
            select(TenantKey.public)
            .join(Tenant, Tenant.id == TenantKey.tenant_id)
            .where(TenantKey.id == key_id, TenantKey.purpose == "token", Tenant.key == tenant.key)
        )
    if public is None or parsed.headers().get("typ") != JWS_TYPE:
        return None
    try:
        verified = jws.deserialize_compact(signature, ECKey.import_key(public), algorithms=["ES256"])
    except JoseError:
        return None
    statement: dict[str, Any] = json.loads(verified.payload)
    return statement
