"""Verbs on annotations. One is never edited: another supersedes it, and both stay."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, select
from sqlalchemy.orm import aliased

from clinic.annotations.errors import AlreadySuperseded, AnnotationNotFound
from clinic.annotations.models import Annotation
from clinic.annotations.schemas import NewAnnotation
from clinic.cases.errors import NotYourPart, WrongStatus
from clinic.cases.visibility import find_case
from clinic.images.service import get_image
from core.access import Principal
from core.database import TenantSession
from tenants.audit.service import audit

_Later = aliased(Annotation)


def _view() -> Select[Any]:
    return select(
        Annotation.id,
        Annotation.case_id,
        Annotation.image_id,
        Annotation.author,
        Annotation.source,
        Annotation.shape,
        Annotation.geometry,
        Annotation.label,
        Annotation.text,
        Annotation.supersedes,
        _Later.id.label("superseded_by"),
        Annotation.created_at,
    ).outerjoin(_Later, _Later.supersedes == Annotation.id)


async def annotate(
    session: TenantSession, principal: Principal, case_id: UUID, image_id: UUID, new: NewAnnotation
) -> UUID:
    """Mark a photograph of a case that the principal is reviewing.

    Raises `CaseNotFound`, `NotYourPart`, `WrongStatus`, `ImageNotFound`, `AnnotationNotFound`,
    `AlreadySuperseded`.
    """
    # The lock keeps the answer from being given meanwhile, and orders two successors of one annotation.
    case, stands = await find_case(session, principal, case_id, lock=True)
    if "assignee" not in stands:
        raise NotYourPart("The physician who holds the case marks its photographs.", action="annotate")
    if case.status != "in_review":
        raise WrongStatus(
            "Photographs are marked while the case is in review.", case_status=case.status, action="annotate"
        )
    await get_image(session, principal, case_id, image_id)
    if new.supersedes is not None:
        await _check_successor(session, image_id, new.supersedes)
    annotation = Annotation(
        case_id=case_id,
        image_id=image_id,
        author=principal.subject,
        source=new.source,
        shape=new.shape,
        geometry=new.geometry.model_dump(mode="json"),
        label=new.label,
        text=new.text,
        supersedes=new.supersedes,
    )
    session.add(annotation)
    await session.flush()
    audit(session, principal, "annotation.create", annotation.id, case_id=str(case_id), shape=new.shape)
    return annotation.id


async def _check_successor(session: TenantSession, image_id: UUID, supersedes: UUID) -> None:
    row = (
        await session.execute(_view().where(Annotation.id == supersedes, Annotation.image_id == image_id))
    ).one_or_none()
    if row is None:
        raise AnnotationNotFound("`supersedes` must name an annotation of the same photograph.")
    if row.superseded_by is not None:
        raise AlreadySuperseded("Supersede its successor instead.", superseded_by=str(row.superseded_by))


async def read_annotation(session: TenantSession, annotation_id: UUID) -> Row[Any]:
    """A row of `AnnotationOut`, for someone who may see its case. Raises `AnnotationNotFound`."""
    row: Row[Any] | None = (
        await session.execute(_view().where(Annotation.id == annotation_id))
    ).one_or_none()
    if row is None:
        raise AnnotationNotFound("The photograph has no such annotation.")
    return row


async def list_annotations(
    session: TenantSession,
    principal: Principal,
    case_id: UUID,
    image_id: UUID,
    limit: int,
    after: UUID | None,
    *,
    current: bool,
) -> Sequence[Row[Any]]:
    """At most `limit` annotations of a photograph before the one `after`, newest first; with `current` those
    that nothing supersedes. Raises `CaseNotFound`, `ImageNotFound`."""
    await get_image(session, principal, case_id, image_id)
    audit(session, principal, "case.read", case_id, part="annotations")
    query = _view().where(Annotation.image_id == image_id)
    if current:
        query = query.where(_Later.id.is_(None))
    if after is not None:
        query = query.where(Annotation.id < after)
    rows: Sequence[Row[Any]] = (
        await session.execute(query.order_by(Annotation.id.desc()).limit(limit))
    ).all()
    return rows
