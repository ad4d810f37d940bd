"""Verbs on photographs.

A photograph is a row and its blobs, and a crash may fall between any two of them: reserve the row → store the
blobs → commit. The doorbell rung with the reservation has `clinic.images.sweeper` finish or undo what nobody came
back for. No transaction is open while a blob is written or a picture decoded.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import select

from clinic.cases.visibility import find_case
from clinic.images.base64_decoder import Base64Decoder
from clinic.images.errors import (
    ImageNotFound,
    ImageTooLarge,
    ImageUndecodable,
    TooManyImages,
)
from clinic.images.inspection import InspectedImage, inspect_upload
from clinic.images.models import Image
from clinic.images.rows import (
    commit_upload,
    find_upload,
    lock_images,
    require_changeable,
    reserve_again,
    reserve_new,
)
from clinic.images.schemas import Variant, View
from core.access import Principal
from core.ai_contract import MAX_IMAGES
from core.blobs import TenantBlobs
from core.database import Database, TenantSession
from core.jail import Jail, JailCrash, JailTimeout
from core.spool import SpooledFile
from core.statements import Statements
from tenants.audit.service import audit
from tenants.plans import storage

INSPECTION_S = 20.0
AT_ONCE_BYTES = 2_000_000  # an original up to this is stored in one step, a longer one in pieces
_BASE64_PIECE = 1 << 20  # characters, a multiple of four


@dataclass(frozen=True, slots=True)
class SentImage:
    """What was said of a photograph: `media_type` is what it was declared as, if anything."""

    media_type: str | None
    view: View
    body_site: str | None


async def spool_base64(file: SpooledFile, text: str, max_bytes: int) -> None:
    """Write the bytes of strict base64 to `file`, at most `max_bytes` of them, and finish it. Raises
    `ImageTooLarge`, `ImageNotBase64`, `SpoolFull`."""
    if len(text) > (max_bytes + 2) // 3 * 4:
        raise ImageTooLarge(f"At most {max_bytes:,} bytes are accepted. Export it smaller.")
    decoder = Base64Decoder()
    for at in range(0, len(text), _BASE64_PIECE):
        await file.write(decoder.feed(text[at : at + _BASE64_PIECE].encode()))
    decoder.finish()
    await file.finish()


async def inspect(
    jail: Jail, file: SpooledFile, media_type: str | None, *, max_bytes: int, max_pixels: int
) -> InspectedImage:
    """`inspect_upload` in the jail. Raises what it raises, and `ImageUndecodable`."""
    try:
        return await jail.run(
            INSPECTION_S,
            inspect_upload,
            file.sealed,
            declared_type=media_type,
            max_bytes=max_bytes,
            max_pixels=max_pixels,
        )
    except (JailTimeout, JailCrash) as error:
        raise ImageUndecodable(
            "Checking this photograph took too long or too much memory. Export it as a plain JPEG and send that."
        ) from error


async def upload_image(
    database: Database,
    blobs: TenantBlobs,
    jail: Jail,
    principal: Principal,
    case_id: UUID,
    file: SpooledFile,
    sent: SentImage,
    *,
    max_bytes: int,
    max_pixels: int,
    storage_limit: int,
) -> tuple[Image, bool]:
    """Add the photograph in `file`, which is finished, to the principal's own draft, or to a case that needs information.

    Returns the image and whether this call stored it: the same photograph again gives the same image. Raises
    `CaseNotFound`, `NotYourPart`, `ImagesClosed`, `TooManyImages`, `QuotaExceeded` and what `inspect` raises.
    """
    async with database.statements(principal.tenant) as statements:
        present = await find_upload(statements, principal, case_id, file.sha256)
    if present is not None:
        return present, False
    inspected = await inspect(jail, file, sent.media_type, max_bytes=max_bytes, max_pixels=max_pixels)
    async with database.statements(principal.tenant) as statements:
        image = await _reserve(statements, principal, case_id, file.sha256, sent, inspected, storage_limit)
    if image.status == "stored":
        return image, False
    await _store(blobs, image, file, inspected)
    async with database.statements(principal.tenant) as statements:
        return await commit_upload(statements, principal, image.id)


async def _reserve(
    statements: Statements,
    principal: Principal,
    case_id: UUID,
    upload_sha256: str,
    sent: SentImage,
    inspected: InspectedImage,
    storage_limit: int,
) -> Image:
    """The photograph's row: stored, reserved by an earlier attempt and now by this one, or new."""
    # The case's lock orders attempts with the same photograph, and decides whether the case still takes one.
    how_many, image = await lock_images(statements, principal, case_id, inspected.sha256)
    growth = stored_size = inspected.size + len(inspected.display or b"") + len(inspected.thumbnail)
    if image is None:
        if how_many >= MAX_IMAGES:
            raise TooManyImages(f"A case has at most {MAX_IMAGES} photographs.")
        turned = inspected.orientation >= 5
        image = await reserve_new(
            statements,
            case_id=case_id,
            uploaded_by=principal.subject,
            media_type=inspected.media_type,
            width=inspected.height if turned else inspected.width,
            height=inspected.width if turned else inspected.height,
            size=inspected.size,
            stored_size=stored_size,
            sha256=inspected.sha256,
            upload_sha256=upload_sha256,
            display_sha256=inspected.display_sha256,
            body_site=sent.body_site,
            view=sent.view,
            captured_at=_as_utc(inspected.captured_at),
            hints=list(inspected.hints),
        )
    elif image.status == "reserved":
        growth -= image.stored_size  # another version of ours may compress differently
        image = await reserve_again(statements, image.id, stored_size, inspected.display_sha256)
    else:
        return image
    await storage.take(statements, growth, storage_limit)
    return image


def _as_utc(camera_clock: datetime | None) -> datetime | None:
    """Cameras tell no time zone; taking their clock for UTC at least keeps photographs in order."""
    return camera_clock.replace(tzinfo=UTC) if camera_clock else None


async def _store(blobs: TenantBlobs, image: Image, file: SpooledFile, inspected: InspectedImage) -> None:
    async def put(variant: Variant, content: bytes | AsyncIterator[bytes], content_type: str) -> None:
        # Overwriting, since an earlier attempt may have come as far as this.
        await blobs.put(image.blob(variant), content, content_type=content_type, overwrite=True)

    original = inspected.original
    whole = await file.read(original) if inspected.size <= AT_ONCE_BYTES else file.chunks(original)
    try:
        async with asyncio.TaskGroup() as puts:
            puts.create_task(put("original", whole, inspected.media_type))
            if inspected.display is not None:
                puts.create_task(put("display", inspected.display, "image/jpeg"))
            puts.create_task(put("thumbnail", inspected.thumbnail, "image/jpeg"))
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None


async def list_images(
    session: TenantSession, principal: Principal, case_id: UUID, limit: int, after: UUID | None
) -> list[Image]:
    """At most `limit` stored photographs of a case, newest first, before `after`. Raises `CaseNotFound`."""
    await find_case(session, principal, case_id)
    audit(session, principal, "case.read", case_id, part="images")
    query = select(Image).where(Image.case_id == case_id, Image.status == "stored")
    if after is not None:
        query = query.where(Image.id < after)
    return list(await session.scalars(query.order_by(Image.id.desc()).limit(limit)))


async def get_image(session: TenantSession, principal: Principal, case_id: UUID, image_id: UUID) -> Image:
    """A stored photograph of a case the principal may see. Raises `CaseNotFound`, `ImageNotFound`."""
    await find_case(session, principal, case_id)
    image = await session.scalar(
        select(Image).where(Image.id == image_id, Image.case_id == case_id, Image.status == "stored")
    )
    if image is None:
        raise ImageNotFound("The case has no such photograph.")
    return image


async def view_image(
    session: TenantSession, principal: Principal, case_id: UUID, image_id: UUID, variant: Variant
) -> Image:
    """`get_image` for someone who is about to look at it, which is audited."""
    image = await get_image(session, principal, case_id, image_id)
    audit(session, principal, "image.view", image.id, variant=variant)
    return image


async def delete_image(
    database: Database, blobs: TenantBlobs, principal: Principal, case_id: UUID, image_id: UUID
) -> None:
    """Remove a photograph from the principal's own draft.

    The row goes first: a blob that a crash leaves behind is found by the sweeper, a row without its blobs would
    be a broken photograph. Raises `CaseNotFound`, `NotYourPart`, `ImagesClosed`, `ImageNotFound`.
    """
    async with database.tenant(principal.tenant) as session:
        case, stands = await find_case(session, principal, case_id, lock=True)
        require_changeable("owner" in stands, case.status, "draft")
        image = await get_image(session, principal, case_id, image_id)
        await session.delete(image)
        audit(session, principal, "image.delete", image.id, case_id=str(case_id))
        await storage.add(session, -image.stored_size)
    for name in image.blobs:
        await blobs.delete(name)
