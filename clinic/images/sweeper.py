"""Making rows and blobs agree again after a crash.

`settle_reservations` is cheap and answers the doorbell of every upload and report: it finishes or undoes what was
reserved and never committed. `sweep_images` also reads the whole container, in order and side by side with the
rows: it removes blobs that no row knows, and reports rows whose blob is gone. A row is always older than its blobs,
which is why an old blob without a row belongs to nobody.
"""

import hashlib
import logging
from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID

from sqlalchemy import func, select

from clinic.cases.models import Case
from clinic.images.models import Image
from clinic.reports.models import Report
from core.blobs import BlobNotFound, BlobStores, TenantBlobs
from core.clock import utcnow
from core.database import Database, TenantScope
from tenants.audit.service import audit
from tenants.plans import storage

log = logging.getLogger(__name__)

RESERVED_FOR = timedelta(minutes=15)
ORPHANED_AFTER = timedelta(hours=1)
CASES_A_PAGE = 100


async def settle_reservations(database: Database, stores: BlobStores, tenant: TenantScope) -> Counter[str]:
    """Finish every photograph that was reserved over 15 minutes ago and whose blobs are all there and right; remove
    the others, and reports that were never committed (the next request makes a new one).

    Returns counts of `finished` and `removed`. May run twice, and beside uploads.
    """
    blobs, counts = stores.of(tenant), Counter[str]()
    expired = func.now() - RESERVED_FOR
    async with database.tenant(tenant) as session:
        images = await session.scalars(
            select(Image).where(Image.status == "reserved", Image.updated_at <= expired).limit(1_000)
        )
        reports = await session.scalars(
            select(Report).where(Report.status == "reserved", Report.updated_at <= expired).limit(1_000)
        )
        reserved = [*images, *reports]
    for row in reserved:
        finish = isinstance(row, Image) and await _is_whole(blobs, row)
        async with database.tenant(tenant) as session:
            kind = type(row)
            present = await session.scalar(
                select(kind)
                .where(kind.id == row.id, kind.status == "reserved", kind.updated_at <= expired)
                .with_for_update()
            )
            if present is None:
                continue  # an upload took it up again
            if finish:
                present.status = "stored"
            else:
                await session.delete(present)
            outcome = "finished" if finish else "removed"
            audit(session, None, f"{kind.__name__.lower()}.{outcome}", row.id, case_id=str(row.case_id))
            if isinstance(present, Image) and not finish:
                await storage.add(session, -present.stored_size)
        counts[outcome] += 1
        if not finish:
            for name in _names(row):
                await blobs.delete(name)
    return counts


async def sweep_images(database: Database, stores: BlobStores, tenant: TenantScope) -> Counter[str]:
    """`settle_reservations`, and then the reconciliation of the tenant's whole container.

    Returns counts of `finished`, `removed`, `orphans` (blobs without a row, removed when over an hour old) and
    `missing` (blobs of stored rows that are gone: logged and audited, the row stays). Memory is bounded by what
    a hundred cases have.
    """
    counts = await settle_reservations(database, stores, tenant)
    blobs = stores.of(tenant)
    old = utcnow() - ORPHANED_AFTER
    listing = blobs.list("cases/")
    blob = await anext(listing, None)
    async for last_case, expected in _expected(database, tenant):
        # After `cases/` comes the case's id, 36 characters that sort alike as text and as UUIDs.
        while blob is not None and (last_case is None or blob.name[6:42] <= last_case):
            if expected.pop(blob.name, None) is None and blob.last_modified < old:
                await blobs.delete(blob.name)
                counts["orphans"] += 1
            blob = await anext(listing, None)
        for name, row in expected.items():
            if row.status == "stored" and await _is_missing(database, tenant, blobs, name, row):
                counts["missing"] += 1
    if counts:
        log.info("images swept", extra={"count": counts.total(), "kind": ", ".join(sorted(counts))})
    return counts


async def _expected(
    database: Database, tenant: TenantScope
) -> AsyncIterator[tuple[str | None, dict[str, Image | Report]]]:
    """The blobs there should be, by name, for a hundred cases after the other in order of their ids, with the last
    one's id; None with those of the last page."""
    after = UUID(int=0)
    while True:
        async with database.tenant(tenant) as session:
            ids = (
                await session.scalars(
                    select(Case.id).where(Case.id > after).order_by(Case.id).limit(CASES_A_PAGE)
                )
            ).all()
            rows: list[Image | Report] = []
            if ids:
                rows += await session.scalars(select(Image).where(Image.case_id.in_(ids)))
                rows += await session.scalars(select(Report).where(Report.case_id.in_(ids)))
        complete = len(ids) < CASES_A_PAGE
        yield None if complete else str(ids[-1]), {name: row for row in rows for name in _names(row)}
        if complete:
            return
        after = ids[-1]


def _names(row: Image | Report) -> set[str]:
    return {row.blob} if isinstance(row, Report) else row.blobs


async def _is_whole(blobs: TenantBlobs, image: Image) -> bool:
    """Whether all its blobs are there, with the content that the row names."""
    hashes = {image.blob("display"): image.display_sha256, image.blob("original"): image.sha256}
    for name in image.blobs:
        digest = hashlib.sha256()
        try:
            reader = await blobs.open(name)
        except BlobNotFound:
            return False
        try:
            async for chunk in reader.chunks:
                digest.update(chunk)
        finally:
            await reader.aclose()
        if digest.hexdigest() != hashes.get(name, digest.hexdigest()):
            return False
    return True


async def _is_missing(
    database: Database, tenant: TenantScope, blobs: TenantBlobs, name: str, row: Image | Report
) -> bool:
    """Look again, since the listing may be older than the row, and report what is really gone."""
    try:
        await (await blobs.open(name, length=0)).aclose()
        return False
    except BlobNotFound:
        pass
    kind = type(row)
    async with database.tenant(tenant) as session:
        if await session.scalar(select(kind.id).where(kind.id == row.id)) is None:
            return False  # deleted meanwhile, with its blobs
        audit(session, None, f"{kind.__name__.lower()}.blob_missing", row.id, blob=name.rsplit("/", 1)[1])
    log.error("a stored blob is missing", extra={"tenant": tenant.key, "kind": kind.__name__})
    return True
