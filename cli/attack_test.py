"""`dermadetect sso attack-test`: every attack of the list, through one tenant's own configuration."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.output import Json, err, show, tell, warn
from cli.run import FAILED, read_file, run, settings
from cli.sign_in import sign_in_parts
from cli.tenants import Slug

if TYPE_CHECKING:
    from cli.rehearsal import Rehearsal
    from core.database import Database

_MOST = 1024 * 1024


@dataclass(frozen=True)
class Row:
    """One line of the scorecard. `refused_by` is None where somebody was signed in; an attack that the response has
    no part for was not tried."""

    attack: str
    what: str
    expected: str | None
    refused_by: str | None
    tried: bool = True

    @property
    def passed(self) -> bool:
        """Whether it went as it must: what is expected to be refused was, by whatever check."""
        return not self.tried or (self.refused_by is None) == (self.expected is None)


def attack_test(
    slug: Slug,
    connection: Annotated[
        str, typer.Option("--connection", help="Which of the tenant's connections.")
    ] = "main",
    from_response: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="A captured response of the tenant's identity provider (the form field SAMLResponse, or XML): "
            "attacks are made from it instead of from a response of our own.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Attack a tenant's SAML sign-in with everything docs/security.md lists. Exit code 0 when all was refused.

    The responses go through the tenant's own keys, addresses, connection and
    policies, in the real workers and on the real database; all of it is rolled
    back. Only the identity provider's key is ours, made for this run, because
    the private half of the real one is the customer's; it leaves this process
    never. An honest response must be accepted, or the refusals would prove
    nothing.

    A captured response is made young again and signed anew, so it may be old.
    It holds a person's name: keep it as you keep such data.

      dermadetect sso attack-test acme
      dermadetect sso attack-test acme --from-response captured.b64 --json
    """
    from auth.connections.checks import explain

    captured = read_file(from_response, at_most=_MOST) if from_response else None
    with err.status("Attacking"):
        rows = run(lambda: _score(slug, connection, captured))
    show(
        [
            {
                "attack": row.attack,
                "what": row.what,
                "expected": row.expected or "accepted",
                "outcome": (row.refused_by or "accepted") if row.tried else "not applicable",
                "passed": row.passed,
            }
            for row in rows
        ],
        as_json=as_json,
    )
    attacks = [row for row in rows if row.expected and row.tried]
    tell(f"{sum(row.passed for row in attacks)} of {len(attacks)} attacks were refused.")
    for row in rows:
        if row.expected and not row.passed:
            warn("Accepted", f"{row.attack}: {row.what}")
        elif row.refused_by and not row.passed:
            meaning = explain(row.refused_by)
            warn("An honest response was refused", f"{row.refused_by}: {meaning} Nothing was attacked.")
    if not all(row.passed for row in rows):
        raise typer.Exit(FAILED)


async def _score(slug: str, connection: str, captured: bytes | None) -> list[Row]:
    from cli.rehearsal import rehearsing
    from tenants.audit.service import record

    async with sign_in_parts(slug) as parts:
        async with rehearsing(
            settings(), parts.admin, parts.database, parts.masters, parts.jail, slug, connection, captured
        ) as rehearsal:
            rows = [row async for row in _controls(rehearsal)]
            if all(row.passed for row in rows):
                rows += [row async for row in _forgeries(rehearsal)]
                rows += [row async for row in _bindings(rehearsal)]
                rows += [row async for row in _races(parts.database, rehearsal)]
        async with parts.admin.control() as control:
            passed = all(row.passed for row in rows)
            record(
                control,
                parts.tenant,
                "sso.attack-test",
                connection=connection,
                attacks=len(rows),
                passed=passed,
            )
    return rows


async def _controls(rehearsal: "Rehearsal") -> AsyncIterator[Row]:
    """What the identity provider itself sends."""
    for name, encrypt in (("honest", False), ("honest-encrypted", True)):
        async with rehearsal.forgotten():
            begun = await rehearsal.begin()
            refused_by = await rehearsal.finish(begun, rehearsal.scene_of(begun).honest(encrypt=encrypt))
        if encrypt or refused_by != "saml.no-encrypted-assertion":  # a policy of the tenant's
            what = f"What the identity provider itself sends{', encrypted' if encrypt else ''}"
            yield Row(name, what, None, refused_by)


async def _forgeries(rehearsal: "Rehearsal") -> AsyncIterator[Row]:
    """The whole corpus, each as the first answer to the same request."""
    from reference.attacks.corpus import ATTACKS
    from reference.attacks.scene import Inapplicable

    begun = await rehearsal.begin()
    for attack in ATTACKS:
        try:
            forged = attack.craft(rehearsal.scene_of(begun))
        except Inapplicable:
            yield Row(attack.name, attack.what, attack.check, None, tried=False)
            continue
        async with rehearsal.forgotten():
            refused_by = await rehearsal.finish(begun, forged)
        yield Row(attack.name, attack.what, attack.check, refused_by)


async def _bindings(rehearsal: "Rehearsal") -> AsyncIterator[Row]:
    """Honest responses at the wrong time, in the wrong browser, or a second time."""
    from auth.saml.service import TRANSIENT
    from reference.attacks.scene import ASSERTION, NAME_ID, setting

    honest = rehearsal.honest

    async def replayed() -> str | None:
        begun = await rehearsal.begin()
        response = honest(begun)
        await rehearsal.finish(begun, response)
        return await rehearsal.finish(begun, response)

    async def same_assertion() -> str | None:
        refused_by: str | None = None
        for _ in range(2):
            begun = await rehearsal.begin()
            response = honest(begun, setting(ASSERTION, "ID", "_the-same-twice"))
            refused_by = await rehearsal.finish(begun, response)
        return refused_by

    async def other_request() -> str | None:
        first, second = await rehearsal.begin(), await rehearsal.begin()
        return await rehearsal.finish(second, honest(first))

    async def other_browser() -> str | None:
        begun, other = await rehearsal.begin(), await rehearsal.begin()
        return await rehearsal.finish(begun, honest(begun), browser_secret=other.browser_secret)

    async def made_up() -> str | None:
        return await rehearsal.finish(rehearsal.unknown(), rehearsal.scene.honest())

    async def too_late() -> str | None:
        begun = await rehearsal.begin()
        await rehearsal.let_requests_expire()
        return await rehearsal.finish(begun, honest(begun))

    async def transient() -> str | None:
        begun = await rehearsal.begin()
        return await rehearsal.finish(begun, honest(begun, setting(NAME_ID, "Format", TRANSIENT)))

    attempts: list[tuple[str, str, str, Callable[[], Awaitable[str | None]]]] = [
        ("replay", "A response posted again", "login.used-request", replayed),
        (
            "assertion-replay",
            "An assertion used before, in a response to a new request",
            "saml.replay",
            same_assertion,
        ),
        (
            "other-request",
            "A response to another request of the same browser",
            "saml.in-response-to",
            other_request,
        ),
        ("other-browser", "A sign-in that another browser began", "login.other-browser", other_browser),
        ("unknown-request", "A response that nobody waits for", "login.unknown-request", made_up),
        ("late", "A response to a request that has expired", "login.expired", too_late),
        ("transient-name", "A name that is new at every sign-in", "login.transient-name-id", transient),
    ]
    for name, what, expected, attempt in attempts:
        async with rehearsal.forgotten():
            refused_by = await attempt()
        yield Row(name, what, expected, refused_by)


async def _races(database: "Database", rehearsal: "Rehearsal") -> AsyncIterator[Row]:
    """The same at once, in transactions that see each other."""
    from cli.rehearsal import race_for_assertion, race_for_request

    for name, what, expected, race in (
        ("replay-parallel", "A response posted five times at once", "login.used-request", race_for_request),
        (
            "assertion-replay-parallel",
            "An assertion in five responses at once",
            "saml.replay",
            race_for_assertion,
        ),
    ):
        outcomes = await race(database, rehearsal, 5)
        refused = {outcome for outcome in outcomes if outcome}
        one_got_through = outcomes.count(None) == 1 and len(refused) == 1
        yield Row(name, what, expected, refused.pop() if one_got_through else None, tried=bool(outcomes))
