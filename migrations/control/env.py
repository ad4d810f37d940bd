"""Alembic environment of the control schema."""

from migrations.environment import run

run(version_table_schema="control")
