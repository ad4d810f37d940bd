"""The tables in the code are the tables that the migrations make."""

from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, MetaData
from sqlalchemy.ext.asyncio import create_async_engine

from migrations.models import CONTROL, TENANT
from tests.fixtures.world import World


@pytest.mark.parametrize("kind", ["control", "tenant"])
async def test_nothing_differs(world: World, kind: str) -> None:
    metadata: MetaData = CONTROL if kind == "control" else TENANT
    schema = "control" if kind == "control" else world.tenant("acme").scope.schema
    assert world.settings.admin_database_url
    path = {} if kind == "control" else {"search_path": schema}
    engine = create_async_engine(
        world.settings.admin_database_url.get_secret_value().replace("postgresql:", "postgresql+asyncpg:"),
        connect_args={"server_settings": {"role": "dermadetect_owner"} | path},
    )
    options: dict[str, Any] = {}
    if kind == "control":
        options = {
            "include_schemas": True,
            "version_table_schema": "control",
            "include_name": lambda name, what, parents: what != "schema" or name == "control",
        }

    def differences(connection: Connection) -> list[Any]:
        return list(compare_metadata(MigrationContext.configure(connection, opts=options), metadata))

    async with engine.connect() as connection:
        found = await connection.run_sync(differences)
    await engine.dispose()
    assert found == []
