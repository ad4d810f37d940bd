"""The rows of an upload: looked for, reserved, committed.

Ready statements, since every upload runs all of them. Each function takes the statements of a transaction of the
tenant, and a row that it gives belongs to no session.
"""

import json
from functools import lru_cache
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Select, bindparam, func, literal_column, select, true, update
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.types import Text, Uuid

from clinic.cases.errors import CaseNotFound, NotYourPart
from clinic.cases.models import Case
from clinic.cases.visibility import Roles, is_owner, may_see
from clinic.images.errors import ImagesClosed, ImageUploadInterrupted
from clinic.images.models import Image
from core.access import Principal
from core.ids import new_id
from core.statements import Statements, compiled, insertion
from tenants.audit.service import audited, fetch_audited

_CASE, _IMAGE = Case.__table__.c, Image.__table__.c
_CASE_ID, _IMAGE_ID = bindparam("case_id", type_=Uuid()), bindparam("image_id", type_=Uuid())

# A reservation is left alone for so long; the bell rings when that is over, by the database's own clock.
_RING = func.doorbell.ring("sweep-images", func.now() + literal_column("interval '15 minutes'")).label("rung")


def _case(roles: Roles) -> Select[*tuple[Any, ...]]:
    """The case, if the principal may see it, and whether it is theirs."""
    return select(_CASE.status.label("case_status"), is_owner(roles).label("is_owner")).where(
        _CASE.id == _CASE_ID, may_see(roles)
    )


@lru_cache(maxsize=256)
def _find(roles: Roles) -> SQLCompiler:
    sent = select(Image.__table__).where(
        _IMAGE.case_id == _CASE_ID,
        _IMAGE.upload_sha256 == bindparam("upload_sha256", type_=Text()),
        _IMAGE.status == "stored",
    )
    present = sent.limit(1).subquery()
    return compiled(_case(roles).add_columns(present).outerjoin_from(Case.__table__, present, true()))


@lru_cache(maxsize=256)
def _lock(roles: Roles) -> SQLCompiler:
    # `key_share`: see `find_case`
    return compiled(_case(roles).with_for_update(of=Case.__table__, key_share=True))


_SAME = (
    select(Image.__table__)
    .where(_IMAGE.case_id == _CASE_ID, _IMAGE.sha256 == bindparam("sha256", type_=Text()))
    .with_for_update()
    .cte("same")
)
_HOW_MANY = select(func.count(_IMAGE.id)).where(_IMAGE.case_id == _CASE_ID).subquery("counted")
_IMAGES = compiled(
    select(_HOW_MANY.c.count.label("how_many"), _SAME).outerjoin_from(_HOW_MANY, _SAME, true())
)
_RESERVE = compiled(
    insertion(
        Image.__table__,
        *(
            "id",
            "case_id",
            "status",
            "uploaded_by",
            "media_type",
            "width",
            "height",
            "size",
            "stored_size",
            "sha256",
        ),
        *("upload_sha256", "display_sha256", "body_site", "view", "captured_at", "hints"),
    ).returning(Image.__table__, _RING)
)
_RESERVE_AGAIN = compiled(
    update(Image)
    .where(_IMAGE.id == _IMAGE_ID)
    .values(
        stored_size=bindparam("new_stored_size", type_=BigInteger()),
        display_sha256=bindparam("new_display_sha256", type_=Text()),
        version=_IMAGE.version + 1,
    )
    .returning(Image.__table__, _RING)
)
_COMMIT = audited(
    update(Image)
    .where(_IMAGE.id == _IMAGE_ID, _IMAGE.status == "reserved")
    .values(status="stored")
    .returning(Image.__table__),
    "image.upload",
    detail=["case_id"],
)
_READ = compiled(select(Image.__table__).where(_IMAGE.id == _IMAGE_ID))


def _image(row: dict[str, Any]) -> Image:
    return Image(**{column.name: row[column.name] for column in _IMAGE})


def require_changeable(is_owner: bool, status: str, *statuses: str) -> None:
    """Raise `NotYourPart` or `ImagesClosed` unless it is one's own case, in one of these statuses."""
    if not is_owner:
        raise NotYourPart("The case's patient or referrer changes its photographs.", action="change-images")
    if status not in statuses:
        raise ImagesClosed(
            f"Only a case that is {' or '.join(statuses)} allows this; it is {status}.", case_status=status
        )


def _require_open(found: list[dict[str, Any]]) -> None:
    """Unless the case that was found takes photographs of the principal, raise why."""
    if not found:
        raise CaseNotFound("No such case, or not one you are concerned with.")
    require_changeable(found[0]["is_owner"], found[0]["case_status"], "draft", "needs_info")


async def find_upload(
    statements: Statements, principal: Principal, case_id: UUID, upload_sha256: str
) -> Image | None:
    """The stored photograph that these bytes were sent for before, in a case that takes more of them. Raises
    `CaseNotFound`, `NotYourPart`, `ImagesClosed`."""
    found = await statements.fetch(
        _find(principal.roles),
        {"case_id": case_id, "subject": principal.subject, "upload_sha256": upload_sha256},
    )
    _require_open(found)
    return _image(found[0]) if found[0]["id"] is not None else None


async def lock_images(
    statements: Statements, principal: Principal, case_id: UUID, sha256: str
) -> tuple[int, Image | None]:
    """How many photographs a case has that takes more of them, and the one with this hash, locked; the case's lock
    orders uploads to it. Raises as `find_upload`."""
    found = await statements.fetch(_lock(principal.roles), {"case_id": case_id, "subject": principal.subject})
    _require_open(found)
    # A statement of its own: the lock may have been waited for, and this must see what happened meanwhile.
    [row] = await statements.fetch(_IMAGES, {"case_id": case_id, "sha256": sha256})
    return row["how_many"], _image(row) if row["id"] is not None else None


async def reserve_new(statements: Statements, *, hints: list[str], **sent: Any) -> Image:
    """A new row with these columns."""
    values = sent | {"id": new_id(), "status": "reserved", "hints": json.dumps(hints)}
    [row] = await statements.fetch(_RESERVE, values)
    return _image(row)


async def reserve_again(
    statements: Statements, image_id: UUID, stored_size: int, display_sha256: str
) -> Image:
    """A reserved row for another attempt: its `updated_at` is renewed, so that the sweeper leaves it its time."""
    values = {"image_id": image_id, "new_stored_size": stored_size, "new_display_sha256": display_sha256}
    [row] = await statements.fetch(_RESERVE_AGAIN, values)
    return _image(row)


async def commit_upload(statements: Statements, principal: Principal, image_id: UUID) -> tuple[Image, bool]:
    """The row, now stored, and whether this call did that. Raises `ImageUploadInterrupted`."""
    row = await fetch_audited(statements, principal, _COMMIT, {"image_id": image_id})
    if row is not None:
        return _image(row), True
    found = await statements.fetch(_READ, {"image_id": image_id})
    if not found:
        raise ImageUploadInterrupted("It was cleared away while it was being stored; send it again.")
    return _image(found[0]), False
