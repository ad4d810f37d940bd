"""How long a person's access token is still taken after all their sessions were ended, as deactivating them does.

Two gateway processes with their defaults are asked every few milliseconds, each over one connection, in the name of
somebody whose sessions are then ended by the verb that every deactivation comes to, from a third process. A trial's
latency is the time from the call of the verb to the arrival of the last answer that was not a refusal, at either. The
baseline is what is promised: one second.
"""

import asyncio
import random
import time
from datetime import timedelta
from statistics import quantiles

from sqlalchemy import select

from auth.connections.models import Connection
from auth.keys.service import KeyRing
from auth.oauth.models import OAuthClient
from auth.people.service import end_sessions_of, sign_in
from auth.tokens.service import granted_scope, issue
from benchmarks.load import UnexpectedAnswer, get_request
from benchmarks.measure import Result, compare
from benchmarks.request import environment_of, length_of_case
from benchmarks.serve import serving
from benchmarks.stage import Stage, Visitor, open_stage
from core.clock import utcnow
from core.database import Database
from core.ids import UUID, new_id
from tenants.directory.cache import Directory

TRIALS = 200
PAUSE_S = 0.005
PROMISED_MS = 1000.0
_LONGEST_S = 10.0


async def _somebody(stage: Stage, at: Visitor) -> tuple[UUID, str]:
    """Somebody who has just signed in, and their access token."""
    record = stage.parts[Directory].by_key(at.scope.key)
    assert record is not None
    async with stage.parts[Database].tenant(at.scope) as session:
        started = await sign_in(
            session,
            connection=Connection(id=new_id(), audience="staff", provision="create", email_domains=[]),
            external_id=str(new_id()),
            email=None,
            display_name="Robin Roe",
            roles=["referrer"],
            seat_limit=record.limits["seats"],
            client_id=(await session.scalars(select(OAuthClient.id))).one(),
        )
        started.expires_at = utcnow() + timedelta(hours=10)  # as if the app had taken it up
    origin = stage.settings.origin_of(record.home_host)
    scope = granted_scope("", ["referrer"])
    issued = await issue(stage.parts[KeyRing], record, origin, started, scope, stage.settings.access_token_s)
    return started.user_id, issued.access_token


async def _last_accepted(port: int, request: bytes, warm: asyncio.Event) -> float:
    """Ask until the token is refused; when the last answer before that came. Sets `warm` at the first answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    last = 0.0
    try:
        while True:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
            if head.startswith(b"HTTP/1.1 401 "):
                return last
            if not head.startswith(b"HTTP/1.1 200 "):
                raise UnexpectedAnswer(head.decode(errors="replace"))
            last = time.perf_counter()
            warm.set()
            await asyncio.sleep(
                PAUSE_S
            )  # without one, three busy processes would measure how they share the cores
    finally:
        writer.close()


async def _trial(stage: Stage, at: Visitor, ports: list[int], pause_s: float) -> float:
    """Milliseconds from the end of somebody's sessions to their last accepted request."""
    user_id, token = await _somebody(stage, at)
    request = get_request("/v1/me", at.host, authorization=f"Bearer {token}")
    warm = [asyncio.Event() for _ in ports]
    async with asyncio.timeout(_LONGEST_S), asyncio.TaskGroup() as tasks:
        asking = [
            tasks.create_task(_last_accepted(port, request, event))
            for port, event in zip(ports, warm, strict=True)
        ]
        for event in warm:
            await event.wait()
        await asyncio.sleep(pause_s)  # anywhere between two looks at the control epoch
        started = time.perf_counter()
        await end_sessions_of(stage.parts[Database], at.scope, user_id, None, "deactivated")
    return max(0.0, *(task.result() - started for task in asking)) * 1000


async def run() -> list[Result]:
    async with open_stage() as stage:
        visitor = await stage.visitor("leavers")
        environment = environment_of(stage, visitor)
        with (
            serving("gateway", environment, stage.directory / "first.log") as first,
            serving("gateway", environment, stage.directory / "second.log") as second,
        ):
            ports = [first.port, second.port]
            for port in ports:
                await length_of_case(port, visitor)
            chosen = random.Random(1)
            seen = [await _trial(stage, visitor, ports, chosen.uniform(0, 0.25)) for _ in range(TRIALS)]
    percentiles = quantiles(seen, n=100)
    return [
        compare(
            f"kill-latency.{name}",
            f"last accepted request after a person's sessions were ended, two processes, {TRIALS} trials: {name}",
            ours=value,
            baseline=PROMISED_MS,
            unit="ms",
            target=1.0,
            better="lower",
        )
        for name, value in (("p50", percentiles[49]), ("p99", percentiles[98]), ("max", max(seen)))
    ]
