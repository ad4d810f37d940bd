"""Verbs that ask the AI Service, and what its answers do to a case.

What identifies a patient is not sent: cases go under a pseudonym, complaint and history stay here, ages are whole years, and
photographs are what physicians see, freed of its metadata.
"""

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import select

from clinic.ai.client import AiClient, AiReply
from clinic.ai.errors import AiInputRejected, AiModelPinned
from clinic.ai.models import AiResult
from clinic.ai.schemas import AskedImage, CaseQuestion, Question
from clinic.cases.lifecycle import TARGET_HOURS
from clinic.cases.models import Case
from clinic.cases.visibility import find_case
from clinic.images.models import Image
from clinic.images.service import inspect, spool_base64
from clinic.patients.models import Patient
from core.access import Principal
from core.ai_contract import (
    MAX_IMAGE_BYTES,
    MAX_IMAGES,
    MAX_REQUEST_BYTES,
    AiContext,
    AiEndpoint,
    AiImage,
    AiRequest,
    AiResponse,
    RedFlagsResponse,
)
from core.blobs import BlobStores, TenantBlobs
from core.clock import utcnow
from core.database import Database, TenantScope, TenantSession
from core.ids import new_id
from core.jail import Jail
from core.parts import Parts
from core.settings import Settings
from core.spool import Spool
from core.statements import insertion
from tenants.audit.service import audit, audited, fetch_audited
from tenants.directory.cache import Directory, TenantRecord
from tenants.plans.counter import UsageCounter
from tenants.plans.errors import QuotaExceeded

NEVER_REFUSED = frozenset({AiEndpoint.RED_FLAGS, AiEndpoint.TRIAGE})
"""An emergency is looked for whatever the plan says."""

_ROOM_FOR_IMAGES = MAX_REQUEST_BYTES - 1024**2  # what is left of a request for base64


_KEEP = audited(
    insertion(
        AiResult.__table__,
        *(
            "id",
            "case_id",
            "endpoint",
            "requested_by",
            "input_hash",
            "image_hashes",
            "model_name",
            "model_version",
        ),
        *("latency_ms", "response"),
    ).returning(AiResult.id, AiResult.endpoint),
    "ai.ask",
    detail=["endpoint"],
)


@dataclass(frozen=True)
class Asking:
    """What asking on behalf of one tenant takes."""

    scope: TenantScope
    directory: Directory
    database: Database
    client: AiClient
    counter: UsageCounter
    stores: BlobStores
    jail: Jail
    spool: Spool
    max_image_bytes: int
    max_image_pixels: int

    @classmethod
    def of(cls, parts: Parts, scope: TenantScope) -> "Asking":
        """With these parts."""
        settings = parts[Settings]
        return cls(
            scope=scope,
            directory=parts[Directory],
            database=parts[Database],
            client=parts[AiClient],
            counter=parts[UsageCounter],
            stores=parts[BlobStores],
            jail=parts[Jail],
            spool=parts[Spool],
            max_image_bytes=settings.max_image_bytes,
            max_image_pixels=settings.max_image_pixels,
        )

    @property
    def tenant(self) -> TenantRecord:
        """As the directory knows it now."""
        tenant = self.directory.by_key(self.scope.key)
        assert tenant is not None  # who got as far as this has found the tenant there
        return tenant

    def model_version(self, wanted: str | None) -> str | None:
        """The version to ask for: the tenant's pin, else the one `wanted`. Raises `AiModelPinned`."""
        pin = self.tenant.ai_model
        if pin is not None and wanted not in (None, pin):
            raise AiModelPinned("Leave `model_version` out, or name the pinned one.", model_version=pin)
        return pin or wanted


@dataclass(frozen=True)
class Subject:
    """What a question about a case is made of."""

    case: Case
    patient: Patient
    images: Sequence[Image]


async def ask(asking: Asking, principal: Principal, endpoint: AiEndpoint, question: Question) -> AiResponse:
    """Ask without a case; the answer is kept. Raises `AiModelPinned`, `QuotaExceeded`, what `AiClient.ask` raises, and
    what `clinic.images` raises for a photograph it refuses."""
    request_id, model_version = str(new_id()), asking.model_version(question.model_version)
    request = AiRequest(
        request_id=request_id,
        case_ref=pseudonym(asking.scope, request_id),
        locale=question.locale,
        model_version=model_version,
        images=_bounded([await _inspected(asking, image) for image in question.images]),
        context=question.context,
        answers=question.answers,
    )
    await count(asking, endpoint)
    reply = await asking.client.ask(asking.scope, endpoint, request)
    result = _result(principal, endpoint, request, reply, case_id=None)
    async with asking.database.statements(asking.scope) as statements:
        await fetch_audited(statements, principal, _KEEP, result | {"response": json.dumps(reply.document)})
    return reply.response


async def ask_about_case(
    asking: Asking, principal: Principal, endpoint: AiEndpoint, case_id: UUID, question: CaseQuestion
) -> AiResponse:
    """Ask about a case and its photographs; the answer is kept, and red flags mark an emergency.

    Raises `CaseNotFound` and what `ask` raises.
    """
    async with asking.database.tenant(asking.scope) as session:
        case, _ = await find_case(session, principal, case_id)
        subject = await gather(session, case)
    request = await request_about(asking, subject, str(new_id()), question)
    await count(asking, endpoint)
    reply = await asking.client.ask(asking.scope, endpoint, request)
    async with asking.database.tenant(asking.scope) as session:
        keep(session, principal, endpoint, request, reply, case_id)
        if isinstance(reply.response, RedFlagsResponse) and reply.response.emergency:
            await mark_emergency(session, principal, case_id)
    return reply.response


async def gather(session: TenantSession, case: Case) -> Subject:
    """What a question about this case is made of."""
    patient = await session.get_one(Patient, case.patient_id)
    images = await session.scalars(
        select(Image)
        .where(Image.case_id == case.id, Image.status == "stored")
        .order_by(Image.id)
        .limit(MAX_IMAGES)
    )
    return Subject(case, patient, images.all())


async def request_about(
    asking: Asking, subject: Subject, request_id: str, question: CaseQuestion
) -> AiRequest:
    """The question as the contract has it, with the photographs. Raises `AiModelPinned`, `AiInputRejected`,
    `BlobNotFound` and `BlobStoreUnavailable`."""
    case, blobs = subject.case, asking.stores.of(asking.scope)
    model_version = asking.model_version(question.model_version)
    return AiRequest(
        request_id=request_id,
        case_ref=pseudonym(asking.scope, case.id),
        locale=case.locale,
        model_version=model_version,
        images=_bounded([await _display_copy(blobs, image, case.body_site) for image in subject.images]),
        context=AiContext(
            age_years=max(0, utcnow().year - subject.patient.birth_year),
            sex=subject.patient.sex,
            fitzpatrick=case.fitzpatrick,
            duration_days=case.duration_days,
            symptoms=case.symptoms,
        ),
        answers=question.answers,
    )


async def list_results(
    session: TenantSession, principal: Principal, case_id: UUID, limit: int, after: UUID | None
) -> list[AiResult]:
    """At most `limit` answers about a case before the one `after`, newest first. Raises `CaseNotFound`."""
    await find_case(session, principal, case_id)
    audit(session, principal, "case.read", case_id, part="ai-results")
    query = select(AiResult).where(AiResult.case_id == case_id)
    if after is not None:
        query = query.where(AiResult.id < after)
    return list(await session.scalars(query.order_by(AiResult.id.desc()).limit(limit)))


def pseudonym(tenant: TenantScope, subject: UUID | str) -> str:
    """32 characters that name a case to the AI Service. The id they hide has 74 random bits (RFC 9562, 5.7), too
    many to be found by trying."""
    return hashlib.sha256(f"case_ref|{tenant.key}|{subject}".encode()).hexdigest()[:32]


async def count(asking: Asking, endpoint: AiEndpoint) -> None:
    """Count a call that is about to be made: not before everything else that can be refused here has been.
    Raises `QuotaExceeded`, save for what looks for emergencies."""
    try:
        await asking.counter.consume(asking.tenant, "ai_calls")
    except QuotaExceeded:
        if endpoint not in NEVER_REFUSED:
            raise
        await asking.counter.count_beyond(asking.tenant, "ai_calls")


async def _inspected(asking: Asking, image: AskedImage) -> AiImage:
    limit = asking.max_image_bytes
    async with asking.spool.open() as file:
        await spool_base64(file, image.data, limit)
        seen = await inspect(
            asking.jail, file, image.media_type, max_bytes=limit, max_pixels=asking.max_image_pixels
        )
        display = seen.display or await file.read(seen.original)
    return AiImage(
        image_id=image.image_id,
        sha256=seen.display_sha256,
        base64=_encoded(display),
        modality=image.modality,
        view=image.view,
        body_site=image.body_site,
    )


async def _display_copy(blobs: TenantBlobs, image: Image, case_site: str | None) -> AiImage:
    display = await (await blobs.open(image.blob("display"))).read()
    dermoscopy = image.view == "dermoscopy"
    return AiImage(
        image_id=str(image.id),
        sha256=image.display_sha256,
        base64=_encoded(display),
        modality="dermoscopy" if dermoscopy else "clinical",
        view="overview" if image.view == "overview" else "close_up",
        body_site=image.body_site or case_site,
    )


def _encoded(display: bytes) -> str:
    if len(display) > MAX_IMAGE_BYTES:
        raise AiInputRejected("The AI Service cannot take a photograph of this size.")
    return base64.b64encode(display).decode()


def _bounded(images: list[AiImage]) -> list[AiImage]:
    if sum(len(image.base64 or "") for image in images) > _ROOM_FOR_IMAGES:
        raise AiInputRejected("The photographs are too large together for the AI Service; send fewer.")
    return images


def keep(
    session: TenantSession,
    principal: Principal | None,
    endpoint: AiEndpoint,
    request: AiRequest,
    reply: AiReply,
    case_id: UUID | None,
) -> None:
    """Keep an answer verbatim, with what it was asked about. No principal: the system asked."""
    result = AiResult(**_result(principal, endpoint, request, reply, case_id))
    session.add(result)
    audit(session, principal, "ai.ask", case_id or result.id, endpoint=endpoint.value)


def _result(
    principal: Principal | None,
    endpoint: AiEndpoint,
    request: AiRequest,
    reply: AiReply,
    case_id: UUID | None,
) -> dict[str, Any]:
    """A row of `ai_results`."""
    response = reply.response
    return {
        "id": new_id(),
        "case_id": case_id,
        "endpoint": endpoint.value,
        "requested_by": principal.subject if principal else None,
        "input_hash": response.input_hash,
        "image_hashes": [image.sha256 for image in request.images],
        "model_name": response.model.name,
        "model_version": response.model.version,
        "latency_ms": round(response.latency_ms),
        "response": reply.document,
    }


async def mark_emergency(session: TenantSession, principal: Principal | None, case_id: UUID) -> None:
    """Put a case in front of all others. Nothing that the AI Service says later takes it back."""
    case = await session.get_one(Case, case_id, with_for_update={"key_share": True})
    if case.emergency:
        return
    case.emergency, case.urgency = True, 0
    if case.triage_level is not None:
        case.triage_level, case.triage_source = "emergency", "red_flags"
    if case.due_at is not None:
        case.due_at = min(case.due_at, utcnow() + timedelta(hours=TARGET_HOURS["emergency"]))
    audit(session, principal, "case.emergency", case_id)
