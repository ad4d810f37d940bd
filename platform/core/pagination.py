"""Keyset pagination: an opaque cursor, `Link` headers (RFC 8288), no totals.

Ids are UUIDv7, so "newer than this id" is also "created later than this row", and one index column serves
both order and cursor. A page costs the same however deep it lies.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from typing import Annotated, Any, Generic, TypeVar
from uuid import UUID

from fastapi import Depends, Query, Request, Response
from pydantic import BaseModel, Field

from core.problems import Problem

T = TypeVar("T")


class BadCursor(Problem):
    status, slug, title = 422, "bad-cursor", "The cursor is not one of ours"


def encode_cursor(last: UUID) -> str:
    """22 URL-safe characters that name the last row of a page."""
    return urlsafe_b64encode(last.bytes).decode().rstrip("=")


def decode_cursor(cursor: str) -> UUID:
    """The row `encode_cursor` named. Raises `BadCursor`."""
    try:
        raw = urlsafe_b64decode(cursor.encode("ascii") + b"==")
        if len(raw) == 16 and encode_cursor(UUID(bytes=raw)) == cursor:
            return UUID(bytes=raw)
    except ValueError:
        pass
    raise BadCursor("Pass the `cursor` of a previous answer unchanged, or none to start at the newest.")


class PageRequest:
    """`?limit=` (1 to 200, 50 if not given) and `?cursor=`."""

    def __init__(
        self,
        request: Request,
        response: Response,
        limit: Annotated[int, Query(ge=1, le=200, description="Rows on a page.")] = 50,
        cursor: Annotated[str | None, Query(max_length=64, description="From the previous page.")] = None,
    ) -> None:
        self.limit = limit
        self.after = decode_cursor(cursor) if cursor else None
        self._request = request
        self._response = response

    def page(self, rows: Sequence[Any]) -> tuple[Sequence[Any], str | None]:
        """Cut rows, fetched with `limit + 1`, to one page; sets `Link: rel="next"` where more follow.

        Returns the page's rows and the cursor of the next page, or None at the end.
        """
        if len(rows) <= self.limit:
            return rows, None
        rows = rows[: self.limit]
        cursor = encode_cursor(rows[-1].id)
        url = self._request.url.include_query_params(cursor=cursor, limit=self.limit)
        self._response.headers["Link"] = f'<{url.path}?{url.query}>; rel="next"'
        return rows, cursor


Paged = Annotated[PageRequest, Depends()]


class Page(BaseModel, Generic[T]):
    """A page of a list, newest first."""

    items: list[T]
    next_cursor: str | None = Field(None, description="Pass as `cursor` for the next page; null at the end.")
