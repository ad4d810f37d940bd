"""Fixtures that several rooms' tests use; each is a real component."""

import os

from hypothesis import settings

# Where a change is accepted the same change gets the same answer; new examples are for who works on it.
settings.register_profile("project", deadline=None, derandomize=os.environ.get("REQUIRE_ALL") == "1")
settings.load_profile("project")

pytest_plugins = [
    "tests.fixtures.azurite",
    "tests.fixtures.managed_identity",
    "tests.fixtures.key_vault",
    "tests.fixtures.postgres",
    "tests.fixtures.fleet",
    "tests.fixtures.redis",
    "tests.fixtures.world",
    "tests.fixtures.saml_peers",
    "tests.fixtures.chromium",
]
