"""Cells: named pairs of a database and a blob store, where tenants' data lives.

The cell `default` is what the main settings name; the tables that all tenants share are there too.
"""

from collections.abc import Mapping
from typing import TypeVar

from core.problems import Unavailable

HOME = "default"

T = TypeVar("T")


class CellUnknown(Unavailable):
    """The directory says that a tenant lives where this process has no settings for."""

    slug, title = "cell-unknown", "The organisation's data is out of reach"


def find(cells: Mapping[str, T], name: str) -> T:
    """What belongs to the cell `name`. Raises `CellUnknown`."""
    try:
        return cells[name]
    except KeyError:
        raise CellUnknown(f"The cell {name!r} is not among this process's settings.") from None
