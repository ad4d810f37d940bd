"""What checking an access token costs: one that was verified before, and one that was not, against verifying it in full with
joserfc, its key at hand.

1,000 tokens of five tenants, each checked once a round; tokens a second of processor time, on one core.
"""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from joserfc import jwt
from joserfc.jwk import ECKey
from joserfc.jws import JWSRegistry

from auth.keys.service import KeyRing
from auth.people.models import SignInSession
from auth.tokens.service import AUDIENCE, TokenVerifier, granted_scope, issue
from benchmarks.measure import Result, compare, medians
from benchmarks.stage import Stage, open_stage
from core.database import Database
from core.ids import new_id
from tenants.directory.cache import Directory, TenantRecord

TENANTS = 5
TOKENS = 1_000
_registry = JWSRegistry(algorithms=["ES256"])


@dataclass(frozen=True)
class Ticket:
    """A token, and what verifies it."""

    token: str
    tenant: TenantRecord
    origin: str
    key: ECKey


async def _tickets(stage: Stage) -> list[Ticket]:
    made = []
    keys, life = stage.parts[KeyRing], stage.settings.access_token_s
    scope = granted_scope("", ["coordinator"])
    for number in range(TENANTS):
        host = (await stage.visitor(f"token{number}")).host
        tenant = stage.parts[Directory].at_host(host)
        assert tenant is not None
        origin = stage.settings.origin_of(host)
        key = ECKey.import_key((await keys.token_key(tenant.scope)).as_dict(private=False))
        for _ in range(TOKENS // TENANTS):
            person = SignInSession(id=new_id(), user_id=new_id(), roles=["coordinator"])
            issued = await issue(keys, tenant, origin, person, scope, life)
            made.append(Ticket(issued.access_token, tenant, origin, key))
    return made


def _in_full(ticket: Ticket) -> None:
    decoded = jwt.decode(ticket.token, ticket.key, registry=_registry)
    jwt.JWTClaimsRegistry(
        iss={"essential": True, "value": ticket.origin},
        aud={"essential": True, "value": AUDIENCE},
        exp={"essential": True},
        nbf={"essential": True},
    ).validate(decoded.claims)


async def run() -> list[Result]:
    async with open_stage() as stage:
        tickets = await _tickets(stage)
        database, directory = stage.parts[Database], stage.parts[Directory]

        def per_second(check: Callable[[Ticket], Awaitable[object]]) -> Callable[[], Awaitable[float]]:
            async def measure() -> float:
                started = time.process_time()
                for ticket in tickets:
                    await check(ticket)
                return TOKENS / (time.process_time() - started)

            return measure

        async def full(ticket: Ticket) -> None:
            _in_full(ticket)

        remembering = TokenVerifier(database, directory)

        async def remembered(ticket: Ticket) -> None:
            await remembering.verify(ticket.token, ticket.tenant, ticket.origin)

        async def missed() -> float:
            verifier = TokenVerifier(database, directory)
            for first in tickets[:: TOKENS // TENANTS]:  # each tenant's keys are read
                await verifier.verify(first.token, first.tenant, first.origin)
            rest = [ticket for n, ticket in enumerate(tickets) if n % (TOKENS // TENANTS)]
            started = time.process_time()
            for ticket in rest:
                await verifier.verify(ticket.token, ticket.tenant, ticket.origin)
            return len(rest) / (time.process_time() - started)

        seen = await medians(
            {"remembered": per_second(remembered), "full": per_second(full), "missed": missed}
        )
    return [
        compare(
            "token.remembered",
            "check of an access token that was verified before, against full verification with joserfc",
            ours=seen["remembered"],
            baseline=seen["full"],
            unit="tokens/s",
            target=20,
        ),
        compare(
            "token.missed",
            "first check of an access token, against the same",
            ours=seen["missed"],
            baseline=seen["full"],
            unit="tokens/s",
            target=0.8,
        ),
    ]
