"""Copying a tenant's rows and blobs from one cell to another, and proving that they arrived.

Both are read back where they arrived, and compared by hash. Nothing is kept on this machine on the way.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator

import asyncpg

from core.blobs import BlobNotFound, TenantBlobs
from core.database import AdminDatabase, TenantScope
from tenants.moving.errors import CopyDiffers, MoveRefused
from tenants.portability.tables import enter, portable_tables

# Two servers may be set up to write times and numbers in different ways.
_ONE_SPELLING = (
    "SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO'; SET LOCAL IntervalStyle = 'postgres'"
)
_IN_FLIGHT = 64  # messages of the server between reading and writing


async def copy_rows(database: AdminDatabase, source: TenantScope, schema: str, target: TenantScope) -> int:
    """Put all rows of `schema` at the source in place of those at the target, in one transaction. Returns how many.

    Raises `MoveRefused` where the tables differ, `CopyDiffers`.
    """
    async with (
        database.connection(source.cell) as old,
        old.transaction(isolation="repeatable_read", readonly=True),
        database.connection(target.cell) as new,
        new.transaction(),
    ):
        await enter(old, schema)
        await enter(new, target.schema)
        for connection in (old, new):
            await connection.execute(_ONE_SPELLING)
        tables = await portable_tables(old, schema, ())
        if tables != await portable_tables(new, target.schema, ()):
            raise MoveRefused("Its schema is another release's; roll back, migrate it, and move it then.")
        await new.execute(f"TRUNCATE {', '.join(tables)} CASCADE")
        total = 0
        for name, columns in tables.items():
            query = await _ordered(old, name, columns)
            digest = hashlib.sha256()
            rows = await _pour(old, new, query, name, columns, digest)
            there = hashlib.sha256()

            async def add(data: bytes, there: "hashlib._Hash" = there) -> None:
                there.update(data)

            arrived = int((await new.copy_from_query(query, output=add)).split()[-1])
            if (arrived, there.digest()) != (rows, digest.digest()):
                raise CopyDiffers(f"{name}: {rows} rows were sent and {arrived} arrived, or not the same.")
            total += rows
        return total


async def _ordered(connection: asyncpg.Connection, name: str, columns: list[str]) -> str:
    """A query for a table's rows in an order that two servers agree on."""
    key = await connection.fetchval(
        """SELECT string_agg(format('%I::text COLLATE "C"', attname), ', ' ORDER BY array_position(conkey, attnum))
        FROM pg_constraint JOIN pg_attribute ON attrelid = conrelid AND attnum = ANY(conkey)
        WHERE conrelid = $1::regclass AND contype = 'p'""",
        name,
    )
    quoted = ", ".join(f'"{column}"' for column in columns)
    return f"SELECT {quoted} FROM {name} ORDER BY {key}"


async def _pour(
    old: asyncpg.Connection,
    new: asyncpg.Connection,
    query: str,
    name: str,
    columns: list[str],
    digest: "hashlib._Hash",
) -> int:
    """Copy what the query gives into the table, in bounded memory. Returns how many rows were written."""
    passing: asyncio.Queue[bytes | None] = asyncio.Queue(_IN_FLIGHT)

    async def put(data: bytes) -> None:
        digest.update(data)
        await passing.put(data)

    async def read() -> None:
        await old.copy_from_query(query, output=put)
        await passing.put(None)

    async def chunks() -> AsyncIterator[bytes]:
        while (data := await passing.get()) is not None:
            yield data

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(read())
            written = await new.copy_to_table(name, columns=columns, source=chunks())
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return int(written.split()[-1])


async def copy_blobs(source: TenantBlobs, target: TenantBlobs, copied: dict[str, str]) -> dict[str, int]:
    """Copy all blobs but those that are in `copied`, by name and entity tag, and enter them there. Returns the size of
    each blob by name. Raises `CopyDiffers`."""
    sizes = {}
    async for found in source.list():
        sizes[found.name] = found.size
        if copied.get(found.name) == found.etag:
            continue
        try:
            reader = await source.open(found.name)
        except BlobNotFound:
            del sizes[found.name]
            continue
        digest = hashlib.sha256()

        async def passing(
            chunks: AsyncIterator[bytes] = reader.chunks, digest: "hashlib._Hash" = digest
        ) -> AsyncIterator[bytes]:
            async for chunk in chunks:
                digest.update(chunk)
                yield chunk

        await target.put(found.name, passing(), content_type=reader.info.content_type, overwrite=True)
        there = hashlib.sha256()
        async for chunk in (await target.open(found.name)).chunks:
            there.update(chunk)
        if there.digest() != digest.digest():
            raise CopyDiffers(f"The blob {found.name} arrived changed.")
        sizes[found.name], copied[found.name] = reader.info.size, reader.info.etag
    return sizes


async def finish_blobs(source: TenantBlobs, target: TenantBlobs, copied: dict[str, str]) -> int:
    """Copy what came since, delete what went, and compare both inventories. Returns how many blobs there are. Raises
    `CopyDiffers`."""
    expected = await copy_blobs(source, target, copied)
    gone = [blob.name async for blob in target.list() if blob.name not in expected]
    for name in gone:
        await target.delete(name)
    found = {blob.name: blob.size async for blob in target.list()}
    if found != expected:
        raise CopyDiffers(
            f"There are {len(found)} blobs where {len(expected)} were copied, or of other sizes."
        )
    return len(found)
