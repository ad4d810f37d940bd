"""Photographs over HTTP."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response

from clinic.cases.errors import CaseNotFound, NotYourPart
from clinic.cases.schemas import BodySite
from clinic.content import LINKED, RangeNotSatisfiable, send_blob, streamed
from clinic.images import service
from clinic.images.errors import (
    ImageAnimated,
    ImageColourUnsupported,
    ImageDamaged,
    ImageDimensionsRefused,
    ImageEmpty,
    ImageNotBase64,
    ImageNotFound,
    ImagesClosed,
    ImageTooLarge,
    ImageTypeMismatch,
    ImageTypeUnsupported,
    ImageUndecodable,
    ImageUploadInterrupted,
    TooManyImages,
)
from clinic.images.reception import REQUEST_BODY, receive_image
from clinic.images.schemas import ImageOut, Variant, View
from core.access import Principal, Session, requires
from core.blobs import BlobNotFound, BlobStores, BlobStoreUnavailable, LinksUnsupported
from core.database import Database
from core.jail import Jail
from core.pagination import BadCursor, Page, Paged
from core.parts import part
from core.problems import Forbidden, Unauthenticated, responses
from core.settings import Settings
from core.spool import Spool, SpoolFull
from tenants.directory.cache import Directory
from tenants.plans.errors import QuotaExceeded

router = APIRouter(tags=["images"])

_PRESENT: dict[int | str, dict[str, Any]] = {
    200: {"model": ImageOut, "description": "The case had this photograph already."}
}


@router.post(
    "/v1/cases/{case_id}/images",
    status_code=201,
    summary="Add a photograph",
    operation_id="images_upload",
    responses=_PRESENT
    | responses(
        Unauthenticated,
        Forbidden,
        NotYourPart,
        CaseNotFound,
        ImagesClosed,
        TooManyImages,
        QuotaExceeded,
        ImageUploadInterrupted,
        ImageTooLarge,
        ImageTypeUnsupported,
        ImageTypeMismatch,
        ImageNotBase64,
        ImageEmpty,
        ImageDimensionsRefused,
        ImageDamaged,
        ImageAnimated,
        ImageColourUnsupported,
        ImageUndecodable,
        SpoolFull,
        BlobStoreUnavailable,
    ),
    openapi_extra={"requestBody": REQUEST_BODY},
)
async def upload(
    case_id: UUID,
    request: Request,
    response: Response,
    principal: Annotated[Principal, requires("cases:create")],
    database: Annotated[Database, part(Database)],
    stores: Annotated[BlobStores, part(BlobStores)],
    jail: Annotated[Jail, part(Jail)],
    spool: Annotated[Spool, part(Spool)],
    settings: Annotated[Settings, part(Settings)],
    directory: Annotated[Directory, part(Directory)],
    view: Annotated[
        View | None, Query(description="Needed, and read, where the body is the file itself.")
    ] = None,
    body_site: Annotated[
        BodySite | None, Query(description="Read where the body is the file itself.")
    ] = None,
) -> ImageOut:
    """JPEG or PNG: as the body itself, as the part `file` of a form, or as base64 in JSON. Metadata such as place and device is removed, pixels stay as they are. Sending the same
    photograph again is safe: it gives the image there is."""
    tenant = directory.by_key(principal.tenant.key)
    assert tenant is not None  # routing found the request's tenant there
    max_bytes = settings.max_image_bytes
    async with spool.open() as file:
        sent = await receive_image(request, file, view=view, body_site=body_site, max_bytes=max_bytes)
        image, created = await service.upload_image(
            database,
            stores.of(principal.tenant),
            jail,
            principal,
            case_id,
            file,
            sent,
            max_bytes=max_bytes,
            max_pixels=settings.max_image_pixels,
            storage_limit=tenant.limits["storage_bytes"],
        )
    response.headers["Location"] = f"/v1/cases/{case_id}/images/{image.id}"
    if not created:
        response.status_code = 200
    return ImageOut.model_validate(image)


@router.get(
    "/v1/cases/{case_id}/images",
    summary="List a case's photographs",
    operation_id="images_list",
    responses=responses(Unauthenticated, Forbidden, CaseNotFound, BadCursor),
)
async def list_(
    case_id: UUID,
    principal: Annotated[Principal, requires("cases:read")],
    session: Session,
    paged: Paged,
) -> Page[ImageOut]:
    rows = await service.list_images(session, principal, case_id, paged.limit + 1, paged.after)
    images, cursor = paged.page(rows)
    return Page(items=[ImageOut.model_validate(image) for image in images], next_cursor=cursor)


@router.get(
    "/v1/cases/{case_id}/images/{image_id}",
    summary="Read what is known of a photograph",
    operation_id="images_read",
    responses=responses(Unauthenticated, Forbidden, CaseNotFound, ImageNotFound),
)
async def read(
    case_id: UUID,
    image_id: UUID,
    principal: Annotated[Principal, requires("cases:read")],
    session: Session,
) -> ImageOut:
    return ImageOut.model_validate(await service.get_image(session, principal, case_id, image_id))


@router.get(
    "/v1/cases/{case_id}/images/{image_id}/content",
    summary="Look at a photograph",
    operation_id="images_content",
    response_class=Response,
    responses=streamed("image/jpeg", "image/png")
    | LINKED
    | responses(
        Unauthenticated,
        Forbidden,
        CaseNotFound,
        ImageNotFound,
        BlobNotFound,
        RangeNotSatisfiable,
        LinksUnsupported,
        BlobStoreUnavailable,
    ),
)
async def content(
    case_id: UUID,
    image_id: UUID,
    request: Request,
    principal: Annotated[Principal, requires("cases:read")],
    database: Annotated[Database, part(Database)],
    stores: Annotated[BlobStores, part(BlobStores)],
    variant: Annotated[
        Variant,
        Query(
            description="`display` and `thumbnail` are upright JPEGs of at most 2,048 and 256 pixels; the original is displayed "
            "itself where it is one."
        ),
    ] = "display",
) -> Response:
    """Streamed, with `ETag`, `If-None-Match` and `Range`; or 307 to a link, which needs no token, works for a minute,
    and takes `Range`. That it was looked at is audited."""
    async with database.tenant(principal.tenant) as session:
        image = await service.view_image(session, principal, case_id, image_id, variant)
    suffix = "png" if variant == "original" and image.media_type == "image/png" else "jpg"
    return await send_blob(
        request,
        stores.of(principal.tenant),
        image.blob(variant),
        # A stored photograph never changes, so its id and variant are as strong a validator as a hash.
        etag=f'"{image.id}.{variant}"',
        filename=f"{image.id}-{variant}.{suffix}",
        inline=True,
    )


@router.delete(
    "/v1/cases/{case_id}/images/{image_id}",
    status_code=204,
    summary="Remove a photograph from a draft",
    operation_id="images_delete",
    responses=responses(
        Unauthenticated,
        Forbidden,
        NotYourPart,
        CaseNotFound,
        ImageNotFound,
        ImagesClosed,
        BlobStoreUnavailable,
    ),
)
async def delete(
    case_id: UUID,
    image_id: UUID,
    principal: Annotated[Principal, requires("cases:create")],
    database: Annotated[Database, part(Database)],
    stores: Annotated[BlobStores, part(BlobStores)],
) -> None:
    blobs = stores.of(principal.tenant)
    await service.delete_image(database, blobs, principal, case_id, image_id)
