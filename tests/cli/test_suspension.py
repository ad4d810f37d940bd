"""What one process does, every other one knows within a second."""

import time

import httpx

from tests.cli.conftest import Command, answer
from tests.fixtures.servers import free_port


def test_suspension_reaches_every_gateway_process_within_a_second(command: Command) -> None:
    command.run("tenants", "create", "cli-paused", "--name", "Paused Clinic", "--plan", "trial")
    urls = [f"http://127.0.0.1:{free_port()}/.well-known/jwks.json" for _ in range(2)]
    host = {"Host": "cli-paused.localhost"}
    ports = [url.split(":")[2].split("/")[0] for url in urls]
    with (
        command.running("serve", "--port", ports[0]) as first,
        command.running("serve", "--port", ports[1]) as second,
        httpx.Client(headers=host, trust_env=False) as client,
    ):
        for url, process in zip(urls, (first, second), strict=True):
            assert answer(url, process, headers=host).status_code == 200
        # Each command returns after its change is committed, so the clock starts late, never early.
        for arguments, status in (
            (("tenants", "suspend", "cli-paused", "--reason", "unpaid"), 403),
            (("tenants", "resume", "cli-paused"), 200),
        ):
            command.run(*arguments)
            # Who asks after a second is answered by the new state; how long the answer takes is not the matter.
            committed = asked = time.monotonic()
            waiting = set(urls)
            while waiting := {url for url in waiting if client.get(url).status_code != status}:
                assert asked - committed < 1.0, f"{len(waiting)} processes have not noticed"
                time.sleep(0.01)
                asked = time.monotonic()
