"""Migrations as SQL text.

Alembic runs a migration in 28 to 64 ms per schema, the same SQL sent as one message takes about one. So a range
of revisions is rendered once and sent to every schema.
"""

import io
from functools import lru_cache
from pathlib import Path
from typing import Literal

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

Branch = Literal["control", "tenant"]

_HERE = Path(__file__).parent
TENANT_SCRIPT = _HERE / "tenant_script.sql"


def config(branch: Branch, output: io.StringIO | None = None) -> Config:
    """Alembic's configuration for one of the two histories."""
    made = Config(output_buffer=output)
    made.set_main_option("script_location", str(_HERE / branch))
    made.set_main_option("path_separator", "os")
    return made


@lru_cache
def head(branch: Branch) -> str:
    """The newest revision."""
    revision = ScriptDirectory.from_config(config(branch)).get_current_head()
    assert revision is not None
    return revision


@lru_cache(maxsize=32)
def render(branch: Branch, start: str | None = None) -> str:
    """The SQL from revision `start` (None: an empty schema) to head, revision row included, without BEGIN."""
    output = io.StringIO()
    command.upgrade(config(branch, output), f"{start or 'base'}:head", sql=True)
    return output.getvalue()


def tenant_script() -> str:
    """The SQL that makes an empty schema a tenant's: `render("tenant")`, kept in a file so that creating a tenant
    need not load Alembic. `make tenant-script` rebuilds it; a test compares it with the migrations."""
    return TENANT_SCRIPT.read_text()


if __name__ == "__main__":
    TENANT_SCRIPT.write_text(render("tenant"))
