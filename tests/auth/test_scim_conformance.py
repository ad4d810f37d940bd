"""The independent conformance checker finds nothing wrong, over real HTTP."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from scim2_client import BaseSyncSCIMClient
from scim2_tester import Status, check_server

from gateway.app import create_app
from gateway.assembly import assemble
from tests.auth.scim import scim_token
from tests.fixtures.servers import serving
from tests.fixtures.world import World


class Client(BaseSyncSCIMClient):
    """The checker's client over the HTTP library that we use; its own is made for another."""

    def __init__(self, http: httpx.Client) -> None:
        super().__init__()
        self.http = http

    def _stays_under_base_url(self, endpoint: str) -> bool:
        return str(self.http.build_request("GET", endpoint).url).startswith(str(self.http.base_url))

    def _parse_json(self, response: Any) -> Any:
        return response.json()

    def request(self, method: str, url: str, **kwargs: Any) -> httpx.Response:
        return self.http.request(method, url, **kwargs)


@pytest.fixture(scope="module")
async def token(world: World) -> str:
    await world.create_tenant("conforming")
    return await scim_token(world, "conforming")


@pytest.fixture(scope="module")
def http(world: World, token: str) -> Iterator[httpx.Client]:
    headers = {"Host": "conforming.localhost", "Authorization": f"Bearer {token}"}
    with (
        serving(create_app(assemble(world.settings))) as url,
        httpx.Client(base_url=f"{url}/scim/v2", headers=headers) as client,
    ):
        yield client


def test_the_checker_finds_nothing_wrong(http: httpx.Client) -> None:
    results = check_server(Client(http))
    good = {Status.SUCCESS, Status.COMPLIANT, Status.ACCEPTABLE, Status.SKIPPED}
    wrong = [result for result in results if result.status not in good]
    assert not wrong, "\n".join(map(repr, wrong))
    passed = [result for result in results if result.status is Status.SUCCESS]
    assert len(passed) > 50
