"""Migrations as SQL text.

Alembic runs a migration in 28 to 64 ms per schema, the same SQL sent as one message takes about one. So a range
of revisions is rendered once and sent to every schema.
"""

import io
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

Branch = Literal["control", "tenant"] | Path
"""One of the product's two histories, or the folder of another."""

_HERE = Path(__file__).parent
TENANT_SCRIPT = _HERE / "tenant_script.sql"


class UnknownRevision(LookupError):
    """A schema is at a revision that this release does not have: a newer one made it, or nobody did."""


@dataclass(frozen=True)
class Revision:
    """One step of a history. `in_python`: its file says that it cannot be rendered for a schema that holds data."""

    id: str
    title: str
    in_python: bool


def config(branch: Branch, output: io.StringIO | None = None) -> Config:
    """Alembic's configuration for one history."""
    made = Config(output_buffer=output)
    made.set_main_option("script_location", str(_HERE / branch).replace("%", "%%"))
    made.set_main_option("path_separator", "os")
    return made


@lru_cache
def history(branch: Branch) -> tuple[Revision, ...]:
    """All revisions, the oldest first."""
    newest_first = ScriptDirectory.from_config(config(branch)).walk_revisions()
    found = [Revision(r.revision, r.doc, getattr(r.module, "in_python", False)) for r in newest_first]
    return tuple(reversed(found))


def head(branch: Branch) -> str:
    """The newest revision."""
    return history(branch)[-1].id


def after(branch: Branch, start: str | None) -> tuple[Revision, ...]:
    """What brings a schema from `start` to head. Raises `UnknownRevision`."""
    ids = [revision.id for revision in history(branch)]
    if start not in ids:
        found = f"the schema is at revision {start}" if start else "the schema has no revision row"
        raise UnknownRevision(f"{found}; this release knows {ids[0]} to {ids[-1]}")
    return history(branch)[ids.index(start) + 1 :]


@lru_cache(maxsize=32)
def render(branch: Branch, start: str | None = None, end: str = "head") -> str:
    """The SQL from revision `start` (None: an empty schema) to `end`, revision row included, without BEGIN."""
    output = io.StringIO()
    command.upgrade(config(branch, output), f"{start or 'base'}:{end}", sql=True)
    return output.getvalue()


def tenant_script() -> str:
    """The SQL that makes an empty schema a tenant's: `render("tenant")`, kept in a file so that creating a tenant
    need not load Alembic. `make tenant-script` rebuilds it; a test compares it with the migrations."""
    return TENANT_SCRIPT.read_text()


if __name__ == "__main__":
    TENANT_SCRIPT.write_text(render("tenant"))
