"""Statements made ready once and run on the driver's connection.

SQLAlchemy writes them, and is then out of the way: a session spends several times as long on a statement as the
driver does. They are for the busiest verbs alone, and run where `Database.statements` opens a transaction for them.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import asyncpg
from sqlalchemy import ClauseElement, FromClause, Insert, Table, bindparam, insert, select
from sqlalchemy.dialects.postgresql.asyncpg import dialect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.compiler import SQLCompiler

_DIALECT = dialect()  # type: ignore[no-untyped-call]


def compiled(statement: ClauseElement) -> SQLCompiler:
    """A Core statement made ready once, for `Statements.fetch`."""
    made = statement.compile(dialect=_DIALECT)
    assert isinstance(made, SQLCompiler)
    return made


def insertion(table: FromClause, *columns: str) -> Insert:
    """An INSERT of one row, whose values are bound by the columns' names."""
    given = (bindparam(name, type_=table.c[name].type) for name in columns)
    return insert(cast(Table, table)).from_select(columns, select(*given), include_defaults=False)


@contextmanager
def translated(driver: asyncpg.Connection, statement: str) -> Iterator[None]:
    """The driver's errors become SQLAlchemy's, without the values."""
    try:
        yield
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        raise DBAPIError(
            statement, None, error, hide_parameters=True, connection_invalidated=driver.is_closed()
        ) from error


class Statements:
    """Statements of one transaction that is open on `driver`."""

    def __init__(self, driver: asyncpg.Connection) -> None:
        self._driver = driver
        self.bells: set[str] = set()  # kinds of work to be done for the tenant once this is committed

    async def fetch(self, statement: SQLCompiler, values: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The rows of a statement made by `compiled`. Values and rows are the driver's own, no types of ours: JSON
        goes in as text and comes out parsed."""
        parameters = statement.construct_params(values)
        arguments = (parameters[name] for name in statement.positiontup or ())
        with translated(self._driver, statement.string):
            return [dict(row) for row in await self._driver.fetch(statement.string, *arguments)]
