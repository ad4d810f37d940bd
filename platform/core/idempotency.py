"""`Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header) for creating POSTs.

The key's row is written in the request's own transaction and holds a reference to what was created, never its
content. A second request with the key gets the first one's result; with another body it is refused (422);
while the first is still running it is refused at once (409) instead of waiting.
"""

import hashlib
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Annotated
from uuid import UUID

from fastapi import Header, Request, Response
from sqlalchemy import UniqueConstraint, delete, func, select
from sqlalchemy.orm import Mapped

from core.access import Principal
from core.clock import utcnow
from core.database import TenantSession
from core.models import Row, TenantBase
from core.problems import Conflict, Invalid

KEPT = timedelta(days=1)


class KeyInFlight(Conflict):
    slug, title = "idempotency-key-in-flight", "The first request with this key is still running"


class KeyReused(Invalid):
    slug, title = "idempotency-key-reused", "This key came with another request"


class IdempotencyKey(Row, TenantBase):
    """A key of one principal, what it came with, and the id of what was made."""

    __tablename__ = "idempotency_keys"
    __table_args__ = (UniqueConstraint("principal", "key_hash"),)

    principal: Mapped[UUID]
    key_hash: Mapped[str]
    request_hash: Mapped[str]
    result_id: Mapped[UUID]


class Idempotency:
    """The request's `Idempotency-Key`, if it has one."""

    def __init__(
        self,
        request: Request,
        response: Response,
        key: Annotated[
            str | None,
            Header(alias="Idempotency-Key", min_length=1, max_length=255, description="Makes a retry safe."),
        ] = None,
    ) -> None:
        self._request = request
        self._response = response
        self._key = key

    async def once(
        self, session: TenantSession, principal: Principal, create: Callable[[], Awaitable[UUID]]
    ) -> UUID:
        """Run `create` (which returns the id of what it made), or return the id an earlier request made.

        Raises `KeyInFlight` and `KeyReused`. Without a key, `create` always runs.
        """
        if self._key is None:
            return await create()
        key_hash = hashlib.sha256(f"{principal.subject}:{self._key}".encode()).hexdigest()
        body = await self._request.body()
        path = f"{self._request.url.path}?{self._request.url.query}".encode()
        request_hash = hashlib.sha256(b"\0".join((self._request.method.encode(), path, body))).hexdigest()
        lock = int(key_hash[:15], 16)
        if not await session.scalar(select(func.pg_try_advisory_xact_lock(lock))):
            raise KeyInFlight("Wait for the first request's answer, or send another key.")
        seen = await session.scalar(
            select(IdempotencyKey).where(
                IdempotencyKey.principal == principal.subject, IdempotencyKey.key_hash == key_hash
            )
        )
        if seen is not None:
            if seen.request_hash != request_hash:
                raise KeyReused("Send a new key with a new request.")
            self._response.headers["Idempotency-Replayed"] = "true"
            return seen.result_id
        result_id = await create()
        session.add(
            IdempotencyKey(
                principal=principal.subject, key_hash=key_hash, request_hash=request_hash, result_id=result_id
            )
        )
        await session.flush()
        return result_id


async def forget_old_keys(session: TenantSession) -> None:
    """Delete keys older than a day; a retry comes within minutes."""
    await session.execute(delete(IdempotencyKey).where(IdempotencyKey.created_at < utcnow() - KEPT))
