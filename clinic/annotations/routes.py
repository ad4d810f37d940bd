"""Annotations over HTTP."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query

from clinic.annotations import service
from clinic.annotations.errors import AlreadySuperseded, AnnotationNotFound
from clinic.annotations.schemas import AnnotationOut, NewAnnotation
from clinic.cases.errors import CaseNotFound, NotYourPart, WrongStatus
from clinic.images.errors import ImageNotFound
from core.access import Principal, Session, requires
from core.idempotency import Idempotency, KeyInFlight, KeyReused
from core.pagination import BadCursor, Page, Paged
from core.problems import Forbidden, Unauthenticated, responses

router = APIRouter(tags=["annotations"])


@router.post(
    "/v1/cases/{case_id}/images/{image_id}/annotations",
    status_code=201,
    summary="Mark a photograph",
    operation_id="annotations_create",
    responses=responses(
        Unauthenticated,
        Forbidden,
        NotYourPart,
        CaseNotFound,
        ImageNotFound,
        AnnotationNotFound,
        WrongStatus,
        AlreadySuperseded,
        KeyInFlight,
        KeyReused,
    ),
)
async def create(
    case_id: UUID,
    image_id: UUID,
    new: NewAnnotation,
    principal: Annotated[Principal, requires("cases:answer", never_refused=True)],
    session: Session,
    idempotency: Annotated[Idempotency, Depends()],
) -> AnnotationOut:
    """By the physician who holds the case, while it is in review. To change an annotation, send its successor."""

    async def create_once() -> UUID:
        return await service.annotate(session, principal, case_id, image_id, new)

    annotation_id = await idempotency.once(session, principal, create_once)
    row = await service.read_annotation(session, annotation_id)
    return AnnotationOut.model_validate(row, from_attributes=True)


@router.get(
    "/v1/cases/{case_id}/images/{image_id}/annotations",
    summary="List a photograph's annotations",
    operation_id="annotations_list",
    responses=responses(Unauthenticated, Forbidden, CaseNotFound, ImageNotFound, BadCursor),
)
async def list_(
    case_id: UUID,
    image_id: UUID,
    principal: Annotated[Principal, requires("cases:read")],
    session: Session,
    paged: Paged,
    current: Annotated[bool, Query(description="Only those that nothing supersedes.")] = False,
) -> Page[AnnotationOut]:
    rows = await service.list_annotations(
        session, principal, case_id, image_id, paged.limit + 1, paged.after, current=current
    )
    annotations, cursor = paged.page(rows)
    return Page(
        items=[AnnotationOut.model_validate(row, from_attributes=True) for row in annotations],
        next_cursor=cursor,
    )
