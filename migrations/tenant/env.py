"""Alembic environment of one tenant's schema, which the session's search path names."""

from migrations.environment import run

run(version_table_schema=None)
