"""The documentation names all there is: settings, problems, routes, commands, rooms."""

import importlib
import pkgutil
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import typer.main
from fastapi import APIRouter, FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from typer.core import TyperGroup

import gateway.app
from cli.main import app as cli_app
from core.problems import Problem
from core.settings import Settings
from tests.fixtures.postgres import PostgresServer
from tests.fixtures.world import World

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PACKAGES = ("core", "tenants", "auth", "clinic", "migrations", "gateway", "reference", "cli")
ROOMS = ("platform", *PACKAGES[1:], "deploy", "docs", "tests", "benchmarks")


def read(*path: str) -> str:
    return ROOT.joinpath(*path).read_text(encoding="utf-8")


# Settings


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_every_setting_is_documented_with_its_default(name: str) -> None:
    row = re.search(
        rf"^\| `DERMADETECT_{name.upper()}` \| ([^|]*) \| \S", read("docs", "configuration.md"), re.M
    )
    assert row, "no row in docs/configuration.md"
    default = Settings.model_fields[name].default
    if hasattr(default, "get_secret_value"):
        default = default.get_secret_value()
    if isinstance(default, int | float | str) and default != "":
        assert row[1] == f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


def test_no_setting_is_documented_that_does_not_exist() -> None:
    for page in (*DOCS.rglob("*.md"), *(ROOT / room / "README.md" for room in ROOMS), ROOT / "README.md"):
        for name in re.findall(r"DERMADETECT_([A-Z_]*[A-Z])\b", page.read_text(encoding="utf-8")):
            assert name.lower() in Settings.model_fields, f"{page.name} names DERMADETECT_{name}"


async def test_the_sql_that_is_documented_makes_the_logins_that_the_product_expects(
    postgres: PostgresServer,
) -> None:
    in_server, in_database = re.findall(r"```sql\n(.*?)```", read("docs", "configuration.md"), re.S)
    made = {"dermadetect_admin": "documented_admin", "dermadetect_gateway": "documented_gateway"}
    expected = await postgres.create_database("expected_logins")

    def renamed(sql: str) -> str:
        return re.sub(r"\bdermadetect(_\w+)?", lambda m: made.get(m[0], "documented_logins"), sql)

    server = await asyncpg.connect(postgres.superuser_url)
    try:
        await server.execute("DROP DATABASE IF EXISTS documented_logins WITH (FORCE)")
        for role in made.values():
            await server.execute(f"DROP ROLE IF EXISTS {role}")
        for statement in in_server.strip(" \n;").split(";"):  # CREATE DATABASE wants to be alone
            await server.execute(renamed(statement))
        rights = (
            "SELECT rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin, rolreplication, rolbypassrls "
            "FROM pg_roles WHERE rolname = $1"
        )
        for ours, theirs in made.items():
            assert await server.fetchrow(rights, theirs) == await server.fetchrow(rights, ours)
        for right, wanted in (("CONNECT", True), ("TEMPORARY", False), ("CREATE", False)):
            has = "SELECT has_database_privilege('documented_gateway', 'documented_logins', $1)"
            assert await server.fetchval(has, right) is wanted
    finally:
        await server.close()

    found = []
    for url in (expected.superuser_url, expected.superuser_url.replace("expected", "documented")):
        connection = await asyncpg.connect(url)
        try:
            if url != expected.superuser_url:
                await connection.execute(renamed(in_database))
            found.append(
                await connection.fetch(
                    "SELECT extname::text, nspname::text FROM pg_extension "
                    "JOIN pg_namespace n ON n.oid = extnamespace ORDER BY 1"
                )
            )
        finally:
            await connection.close()
    assert found[0] == found[1]


# Problems


def modules() -> Iterator[Any]:
    """Every module of the product; Alembic's scripts run when imported and define no problems."""
    for package in PACKAGES:
        yield importlib.import_module(package)
        for found in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
            if ".versions." not in found.name and not found.name.endswith((".env", "__main__")):
                yield importlib.import_module(found.name)


def problems() -> list[type[Problem]]:
    """Every problem with a slug of its own."""
    names = [module.__name__ for module in modules()]
    found: list[type[Problem]] = [Problem]
    for parent in found:
        found += [child for child in parent.__subclasses__() if child not in found]
    return [each for each in found if "slug" in vars(each) and each.__module__ in names]


def test_every_problem_is_documented_as_it_is() -> None:
    page = read("docs", "problems.md")
    missing = [
        f"| `{each.slug}` | {each.status} | {each.title} |"
        for each in problems()
        if f"| `{each.slug}` | {each.status} | {each.title} |" not in page
    ]
    assert not missing, "\n".join(["not in docs/problems.md:", *missing])


def test_a_problem_type_names_one_problem() -> None:
    slugs = Counter(each.slug for each in problems())
    assert [slug for slug, count in slugs.items() if count > 1] == []
    documented = re.findall(r"^\| `([a-z0-9-]+)` \| \d", read("docs", "problems.md"), re.M)
    assert sorted(documented) == sorted(slugs)


# Routes

PROBLEM = "#/components/schemas/Problem"


def operations(app: FastAPI) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in app.openapi()["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def scope_of(dependant: Dependant) -> str | None:
    for each in dependant.dependencies:
        if scope := getattr(each.call, "required_scope", None) or scope_of(each):
            return str(scope)
    return None


def scopes() -> dict[str, str | None]:
    """The scope that each operation demands."""
    routers: tuple[APIRouter, ...] = gateway.app.ROUTERS
    routes = [route for router in routers for route in router.routes if isinstance(route, APIRoute)]
    return {str(route.operation_id): scope_of(route.dependant) for route in routes}


async def test_every_route_is_documented_with_its_scope(world: World) -> None:
    page, demanded = read("docs", "api.md"), scopes()
    missing = []
    for method, path, operation in operations(world.app):
        scope = demanded[operation["operationId"]]
        row = f"| `{operation['operationId']}` | {method} | `{path}` | {f'`{scope}`' if scope else '–'} |"
        if row not in page:
            missing.append(f"{row} {operation.get('summary', '')} |")
    assert not missing, "\n".join(["not in docs/api.md:", *missing])


async def test_no_route_is_documented_that_does_not_exist(world: World) -> None:
    documented = re.findall(r"^\| `([a-z_]+)` \| [A-Z]+ \| `/", read("docs", "api.md"), re.M)
    assert sorted(documented) == sorted(op["operationId"] for _, _, op in operations(world.app))


async def test_every_route_says_what_it_is_and_how_it_fails(world: World) -> None:
    wrong = []
    for method, path, operation in operations(world.app):
        name, answers = operation.get("operationId", ""), operation["responses"]
        if not re.fullmatch(r"[a-z]+(_[a-z]+)+", name):
            wrong.append(f"{method} {path}: operation id {name!r} is not of the form noun_verb")
        if not operation.get("summary") or operation["summary"] == name.replace("_", " ").title():
            wrong.append(f"{method} {path}: no summary")
        if not operation.get("tags"):
            wrong.append(f"{method} {path}: no tag")
        expected = {"default"} | ({"401"} if path.startswith("/v1/") else set())
        if scopes()[name]:
            expected.add("403")
        if not expected <= set(answers):
            wrong.append(f"{method} {path}: {', '.join(sorted(expected - set(answers)))} undocumented")
        for status, answer in answers.items():
            # /health answers 503 with its own document. OAuth errors are problems that call themselves JSON.
            schemas = [each.get("schema") for each in answer.get("content", {}).values()]
            if status >= "400" and path != "/health" and {"$ref": PROBLEM} not in schemas:
                wrong.append(f"{method} {path}: {status} is not a problem")
    assert not wrong, "\n".join(wrong)


async def test_operation_ids_are_unique(world: World) -> None:
    names = Counter(operation["operationId"] for _, _, operation in operations(world.app))
    assert [name for name, count in names.items() if count > 1] == []


# Commands


def commands(command: Any, *path: str) -> Iterator[tuple[str, list[str]]]:
    """Every command below `command`, with its options."""
    children = command.commands if isinstance(command, TyperGroup) else {}
    for name, child in children.items():
        yield from commands(child, *path, name)
    if not children or (path and command.invoke_without_command):
        names = [
            name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)
        ]
        yield " ".join(path), [name for name in names if name.startswith("--")]


def test_every_command_is_documented_with_its_options() -> None:
    sections = dict(re.findall(r"^#+ `dermadetect ([^`<\[]+?)(?: [A-Z\[<][^`]*)?`\n(.*?)(?=^#|\Z)",
                               read("docs", "cli.md"), re.M | re.S))  # fmt: skip
    found = dict(commands(typer.main.get_command(cli_app)))
    assert sorted(sections) == sorted(found)
    for name, options in found.items():
        for flag in options:
            assert f"`{flag}" in sections[name], f"docs/cli.md says nothing of {flag} under {name}"


def test_the_readmes_commands_are_targets_of_the_makefile() -> None:
    pages = [read("README.md"), read("CONTRIBUTING.md"), *(read(room, "README.md") for room in ROOMS)]
    targets = set(re.findall(r"^([a-z][a-z-]*)\s*:", read("Makefile"), re.M))
    named = {name for page in pages for name in re.findall(r"\bmake ([a-z][a-z-]*)(?=[`\s])", _code(page))}
    assert {"demo", "test"} <= named
    assert named <= targets


def _code(page: str) -> str:
    return "\n".join(re.findall(r"```.*?```|`[^`\n]+`", page, re.S)).replace("`", " ")


# Rooms and links


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_has_a_readme_that_names_what_lies_in_it(room: str) -> None:
    text = read(room, "README.md")
    assert len(text.splitlines()) <= 70, "a screen at most"
    for entry in sorted((ROOT / room).iterdir()):
        code = entry.suffix == ".py" and entry.name != "__init__.py"
        feature = entry.is_dir() and any(entry.glob("*.py"))
        if code or feature:
            assert re.search(rf"`(\w+/)?{re.escape(entry.name)}/?`|\b{entry.stem}/", text), entry.name


def test_links_between_pages_lead_somewhere() -> None:
    for page in (*DOCS.rglob("*.md"), *(ROOT / room / "README.md" for room in ROOMS), *ROOT.glob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"
