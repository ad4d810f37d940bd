"""The attack lists of docs/security.md name every attack that the tests try, and the check that refuses it."""

import re
from pathlib import Path

import pytest

from auth.keys.service import KeyRing
from auth.tokens.errors import TokenRefused
from auth.tokens.service import TokenVerifier
from reference.attacks.corpus import ATTACKS as SAML_ATTACKS
from tests.auth.test_openid import ATTACKS as OPENID_ATTACKS
from tests.auth.test_tokens import ATTACKS as TOKEN_ATTACKS
from tests.auth.test_tokens import parts_of
from tests.fixtures.world import World

PAGE = Path(__file__).parents[2].joinpath("docs/security.md").read_text(encoding="utf-8")


def documented(heading: str) -> dict[str, str]:
    """Attack → check, of the table under a heading."""
    return dict(re.findall(r"^\| `([^`]+)` \| [^|]*\| `([a-z._-]+)` \|$", section(heading), re.M))


def section(heading: str) -> str:
    return PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]


def test_every_saml_attack_is_documented_with_its_check() -> None:
    rows = re.findall(r"^\| `([^`]+)` \| ([^|]*) \| `([a-z._-]+)` \| (.*) \|$", section("SAML"), re.M)
    found = {}
    for name, what, check, encrypted in rows:
        found[name] = (what, check)
        if encrypted != "–":
            found[f"{name}-encrypted"] = (what, check if encrypted == "same" else encrypted.strip("`"))
    assert found == {attack.name: (attack.what, attack.check) for attack in SAML_ATTACKS}


def test_every_openid_attack_is_documented_with_its_check() -> None:
    assert documented("OpenID Connect") == {name: check for name, _, check in OPENID_ATTACKS}


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
