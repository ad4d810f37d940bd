"""Identifiers. Every row is named by a UUIDv7 (RFC 9562): unique without coordination, and sorted by
creation time, so that an index grows at its end and a keyset cursor needs no second column."""

from datetime import datetime
from uuid import UUID

from uuid_utils.compat import uuid7

__all__ = ["UUID", "first_id", "new_id"]


def new_id() -> UUID:
    """A new UUIDv7."""
    return uuid7()


def first_id(moment: datetime) -> UUID:
    """The least UUIDv7 of a moment: what was made since is not below it."""
    return UUID(int=int(moment.timestamp() * 1000) << 80)
