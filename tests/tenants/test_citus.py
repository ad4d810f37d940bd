"""On a Citus cluster: TEST_CITUS_URL names a superuser's database on the coordinator, with the extension and two nodes
or more. No package index has Citus, so this runs only where somebody has a cluster."""

import os
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest

from core.logins import create_database
from tenants.moving.errors import MoveRefused
from tenants.moving.nodes import move_to_node, nodes_of_schemas
from tests.clinic.journey import NEW_CASE, ok
from tests.fixtures.world import World, open_world, settings_for

URL = os.environ.get("TEST_CITUS_URL", "")
on_a_cluster = pytest.mark.skipif(not URL, reason="TEST_CITUS_URL names no Citus cluster")


@pytest.fixture(scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    logins = await create_database(
        URL,
        urlsplit(URL).path.lstrip("/"),
        admin_password="admin-of-tests",
        gateway_password="gateway-of-tests",
    )
    settings = settings_for(logins.admin_url, logins.gateway_url, tmp_path_factory.mktemp("blobs"))
    async with open_world(settings, "placed", "moved") as world:
        yield world


@on_a_cluster
async def test_a_tenants_schema_is_placed_on_a_node_and_served(cluster: World) -> None:
    scope = cluster.tenant("placed").scope
    assert (scope.cell, scope.schema) in await nodes_of_schemas(cluster.admin)
    referrer = await cluster.person("referrer", tenant="placed")
    case = ok(await referrer.http.post("/v1/cases", json=NEW_CASE), 201)
    assert ok(await referrer.http.get(f"/v1/cases/{case['id']}"))["id"] == case["id"]


@on_a_cluster
async def test_it_moves_to_another_node_with_its_rows(cluster: World) -> None:
    scope = cluster.tenant("moved").scope
    referrer = await cluster.person("referrer", tenant="moved")
    case = ok(await referrer.http.post("/v1/cases", json=NEW_CASE), 201)
    here = (await nodes_of_schemas(cluster.admin))[scope.cell, scope.schema]
    async with cluster.admin.connection() as connection:
        rows = await connection.fetch(
            "SELECT nodename || ':' || nodeport FROM pg_dist_node WHERE isactive AND shouldhaveshards"
        )
    target = next(node for (node,) in rows if node != here)
    for _ in range(2):
        await move_to_node(cluster.admin, "moved", target)
        assert (await nodes_of_schemas(cluster.admin))[scope.cell, scope.schema] == target
        assert ok(await referrer.http.get(f"/v1/cases/{case['id']}"))["id"] == case["id"]


async def test_elsewhere_there_are_no_nodes(world: World) -> None:
    with pytest.raises(MoveRefused, match="no Citus cluster"):
        await move_to_node(world.admin, "acme", "worker-1:5432")
    assert await nodes_of_schemas(world.admin) == {}
