"""What both Alembic environments do: render SQL without a database, or run on a given connection."""

from typing import Any

from alembic import context

from migrations.models import CONTROL, TENANT


def run(version_table_schema: str | None) -> None:
    """Run the migrations that Alembic's command asked for."""
    options: dict[str, Any] = {
        "target_metadata": CONTROL if version_table_schema else TENANT,
        "version_table_schema": version_table_schema,
        "include_schemas": version_table_schema is not None,
        # A control migration must not see tenants' schemas.
        "include_name": lambda name, kind, _: kind != "schema" or name == version_table_schema,
    }
    if context.is_offline_mode():
        # One transaction around the whole range is the runner's business.
        context.configure(dialect_name="postgresql", literal_binds=True, transactional_ddl=False, **options)
        context.run_migrations()
    else:
        context.configure(connection=context.config.attributes["connection"], **options)
        with context.begin_transaction():
            context.run_migrations()
