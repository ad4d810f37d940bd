"""Identifiers. Every row is named by a UUIDv7 (RFC 9562): unique without coordination, and sorted by
creation time, so that an index grows at its end and a keyset cursor needs no second column."""

from uuid import UUID

from uuid_utils.compat import uuid7

__all__ = ["UUID", "new_id"]


def new_id() -> UUID:
    """A new UUIDv7."""
    return uuid7()
