"""What went wrong with one tenant's migration, in words that hold none of its data."""

import traceback

import asyncpg

from migrations.rendering import UnknownRevision

# May pass by itself, or alone: a lock not given, a deadlock, another revision than expected (see `migrations.batch`),
# too many locks in one transaction.
_MAY_PASS = ("55P03", "40P01", "40001", "22012", "53200")

# Nobody's fault but the server's or the connection's, which all tenants share.
_SHARED = ("08", "53", "57P")


def cause_of(error: BaseException) -> BaseException:
    """The driver's error inside SQLAlchemy's wrapping, or the error itself."""
    wrapped = getattr(error, "orig", None)
    return wrapped.__cause__ or wrapped if wrapped else error


def may_pass(cause: BaseException) -> bool:
    """Whether trying again later may succeed though nobody mends anything."""
    return getattr(cause, "sqlstate", None) in _MAY_PASS


def is_shared(cause: BaseException) -> bool:
    """Whether it is not this tenant's failure: the server is away, full, or ended the connection."""
    if isinstance(cause, asyncpg.PostgresError):
        return not may_pass(cause) and (cause.sqlstate or "").startswith(_SHARED)
    return isinstance(cause, OSError | asyncpg.InterfaceError)


def told(cause: BaseException) -> str:
    """One line: what kind, and which table, column or constraint. The server's message may quote a row, so it is
    repeated only where it can name nothing but objects (SQLSTATE classes 3F and 42)."""
    if isinstance(cause, UnknownRevision):
        return str(cause)
    if not isinstance(cause, asyncpg.PostgresError):
        place = traceback.extract_tb(cause.__traceback__)[-1]
        return f"{type(cause).__name__} in {place.name}, line {place.lineno}"
    state = cause.sqlstate or ""
    if state == "55P03":
        return f"{state}: a lock was not given in time; another session holds the table"
    if state.startswith(("3F", "42")):
        return f"{state}: {cause.args[0]}"
    names = [cause.table_name, cause.column_name, cause.constraint_name]
    return f"{state} {type(cause).__name__}: {' '.join(name for name in names if name)}".rstrip(": ")
