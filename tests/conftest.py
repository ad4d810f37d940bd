"""Fixtures that several rooms' tests use; each is a real component."""

pytest_plugins = [
    "tests.fixtures.azurite",
    "tests.fixtures.managed_identity",
    "tests.fixtures.postgres",
    "tests.fixtures.fleet",
    "tests.fixtures.redis",
    "tests.fixtures.world",
]
