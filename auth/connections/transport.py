"""A tenant's connections on their way out of the platform and back in."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import inspect

from auth.connections.models import Connection
from auth.connections.settings import list_connections, put_connection
from auth.oidc.models import OidcConnection
from auth.saml.models import SamlConnection
from core.database import ControlSession
from core.models import ControlBase
from tenants.directory.models import Tenant
from tenants.portability import bundle
from tenants.portability.errors import BundleRefused

_PARTICULARS: Mapping[str, type[ControlBase]] = {"saml": SamlConnection, "oidc": OidcConnection}
_NOT_CARRIED = {
    *("id", "tenant_id", "kind", "created_at", "updated_at", "version"),
    *("metadata_read_at", "metadata_due_at", "metadata_failure"),  # a restored tenant reads it anew
}


async def gather_connections(session: ControlSession, tenant: Tenant) -> list[bundle.Connection]:
    """Every connection of the tenant."""
    gathered = []
    for each in await list_connections(session, tenant):
        particulars = await session.get_one(_PARTICULARS[each.kind], (tenant.id, each.id))
        gathered.append(
            bundle.Connection(
                id=each.id, kind=each.kind, columns=_values(each), particulars=_values(particulars)
            )
        )
    return gathered


async def scatter_connections(
    session: ControlSession, tenant: Tenant, connections: Sequence[bundle.Connection]
) -> None:
    """Give a restored tenant its connections, under the ids by which its people are known. Raises `BundleRefused`."""
    for each in connections:
        particulars = _PARTICULARS.get(each.kind)
        if particulars is None:
            raise BundleRefused(f"It has a connection of the unknown kind {each.kind!r}.")
        if set(each.columns) != _carried(Connection) or set(each.particulars) != _carried(particulars):
            raise BundleRefused("A connection in it has other columns than this release.")
        key = {"tenant_id": tenant.id, "id": each.id}
        await put_connection(session, tenant, Connection(**key, kind=each.kind, **each.columns))
        session.add(particulars(**key, **_unwritten(particulars, each.particulars)))
        await session.flush()


def _carried(table: type[ControlBase]) -> set[str]:
    return set(inspect(table).columns.keys()) - _NOT_CARRIED


def _values(row: ControlBase) -> dict[str, Any]:
    return {name: _written(getattr(row, name)) for name in _carried(type(row))}


def _written(value: Any) -> Any:
    """As JSON has it."""
    return value.hex() if isinstance(value, bytes) else str(value) if isinstance(value, UUID) else value


def _unwritten(table: type[ControlBase], values: Mapping[str, Any]) -> dict[str, Any]:
    of: Mapping[type, Callable[[str], Any]] = {bytes: bytes.fromhex, UUID: UUID}
    types = {name: column.type.python_type for name, column in inspect(table).columns.items()}
    try:
        return {
            name: of[types[name]](value) if value is not None and types[name] in of else value
            for name, value in values.items()
        }
    except (ValueError, TypeError, AttributeError):
        raise BundleRefused("A value of a connection in it is not of its column's type.") from None
