"""Generated requests against every route, over real HTTP: whatever comes, the answer is one that was documented."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import schemathesis
from fastapi.routing import APIRoute
from hypothesis import HealthCheck, given, settings
from schemathesis import Case
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from schemathesis.specs.openapi.schemas import OpenApiSchema

from auth.roles import ROLES
from gateway.app import ROUTERS, create_app
from gateway.assembly import assemble
from tests.clinic.journey import Clinic
from tests.fixtures.servers import serving
from tests.fixtures.world import World

CHECKS = [not_a_server_error, content_type_conformance, response_schema_conformance, status_code_conformance]


@dataclass
class Api:
    """A gateway process of its own on the shared database, and somebody with every role."""

    url: str
    headers: dict[str, str]


@pytest.fixture(scope="module")
async def person_with_every_role(world: World) -> str:
    await Clinic.open(world)
    return (await world.person(*ROLES)).token


@pytest.fixture(scope="module")
def api(world: World, person_with_every_role: str) -> Iterator[Api]:
    with serving(create_app(assemble(world.settings))) as url:
        yield Api(url, {"Host": "acme.localhost", "Authorization": f"Bearer {person_with_every_role}"})


@pytest.fixture(scope="module")
def document(api: Api) -> OpenApiSchema:
    return schemathesis.openapi.from_url(f"{api.url}/openapi.json", headers=api.headers)


OPERATIONS = [
    (method, route.path)
    for router in ROUTERS
    for route in router.routes
    if isinstance(route, APIRoute)
    for method in sorted(route.methods or ())
]


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_any_request_gets_a_documented_answer(
    api: Api, document: OpenApiSchema, method: str, path: str
) -> None:
    # The library's own parametrisation does not work with this version of pytest.
    requests = document[path][method].as_strategy()

    @settings(max_examples=15, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(requests)
    def send(case: Case[Any]) -> None:
        answer = case.call(base_url=api.url, headers=api.headers)
        case.validate_response(answer, checks=CHECKS)

    send()
