"""Every check that can refuse a sign-in is explained to operators, and none is explained that does not exist."""

import re
from pathlib import Path

from auth.connections import checks
from auth.connections.checks import CHECKS, explain
from auth.saml import validation
from reference.attacks.corpus import ATTACKS

ROOM = Path(__file__).parents[2] / "auth"


def named() -> set[str]:
    """The ids in the code of the room."""
    texts = [path.read_text(encoding="utf-8") for path in ROOM.rglob("*.py") if path.name != "checks.py"]
    return {
        check
        for text in texts
        for check in re.findall(r'"((?:saml|login|oidc|invitation|local)\.[a-z0-9-]+)"', text)
    }


def test_every_check_is_explained() -> None:
    own_names_of_the_library = {"saml.library"}
    assert named() - own_names_of_the_library <= set(CHECKS)
    assert {attack.check for attack in ATTACKS} - set(CHECKS) <= set(validation._LIBRARY_CHECKS.values())
    claims = {f"oidc.{name}{missing}" for name in checks._CLAIMS for missing in ("", "-missing")}
    assert set(CHECKS) <= named() | set(validation._LIBRARY_CHECKS.values()) | claims


def test_an_explanation_is_found_for_whatever_the_libraries_say() -> None:
    for check in (*validation._LIBRARY_CHECKS.values(), "saml.library"):
        assert "No such check" not in explain(check)
    assert "No such check" in explain("made.up")
    assert all(text.endswith(".") for text in CHECKS.values())
