"""Lists of users and of groups: filter, order, page."""

from collections.abc import Sequence
from typing import Any, TypeVar

from scim2_models import SearchRequest
from sqlalchemy import ColumnElement, func, select

from auth.scim.filters import Attributes, condition, order
from core.database import TenantSession
from core.models import Row

RowT = TypeVar("RowT", bound=Row)


async def search(
    session: TenantSession,
    model: type[RowT],
    visible: ColumnElement[bool],
    attributes: Attributes,
    wanted: SearchRequest[Any],
) -> tuple[int, Sequence[RowT]]:
    """How many rows of `model` are visible and wanted, and a page of them. Raises `InvalidFilterException`."""
    matching = [visible]
    if wanted.filter is not None:
        matching.append(condition(wanted.filter, attributes))
    total = await session.scalar(select(func.count()).select_from(model).where(*matching)) or 0
    start, count = (wanted.start_index or 1) - 1, wanted.count or 0
    if start >= total or count == 0:
        return total, []
    query = select(model).where(*matching).offset(start).limit(count)
    if wanted.sort_by is not None:
        by = order(wanted.sort_by, attributes)
        descending = wanted.sort_order == SearchRequest.SortOrder.descending
        query = query.order_by(by.desc() if descending else by.asc())
    return total, (await session.scalars(query.order_by(model.id))).all()
