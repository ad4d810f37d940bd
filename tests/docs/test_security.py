"""The attack lists of docs/security.md name every attack that the tests try, and the check that refuses it."""

import re
from pathlib import Path

import pytest

from auth.keys.service import KeyRing
from auth.tokens.errors import TokenRefused
from auth.tokens.service import TokenVerifier
from tests.auth.test_saml_gate import ATTACKS as SAML_ATTACKS
from tests.auth.test_tokens import ATTACKS as TOKEN_ATTACKS
from tests.auth.test_tokens import parts_of
from tests.fixtures.world import World

PAGE = Path(__file__).parents[2].joinpath("docs/security.md").read_text(encoding="utf-8")


def documented(heading: str) -> dict[str, str]:
    """Attack → check, of the table under a heading."""
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    return dict(re.findall(r"^\| `([^`]+)` \| [^|]*\| `([a-z._-]+)` \|$", section, re.M))


def test_every_saml_attack_is_documented_with_its_check() -> None:
    assert documented("SAML") == {name: check for name, _, check in SAML_ATTACKS}


async def test_every_token_attack_is_documented_with_its_check(world: World) -> None:
    tenant = world.tenant()
    key = await world.parts[KeyRing].token_key(tenant.scope)
    header, claims = parts_of((await world.person("coordinator")).token)
    found = {}
    for name, craft in TOKEN_ATTACKS.items():
        with pytest.raises(TokenRefused) as refusal:
            await world.parts[TokenVerifier].verify(
                craft(header, claims, key), tenant, world.settings.origin_of(tenant.home_host)
            )
        found[name] = refusal.value.check
    assert documented("Access tokens") == found
