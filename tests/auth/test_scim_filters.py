"""Filters as SQL select what the library's own evaluation of the specification selects."""

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scim2_models import ScimFilter
from sqlalchemy import literal, select, text, union_all
from sqlalchemy.dialects import postgresql

from auth.people.models import User as Person
from auth.scim.filters import condition
from auth.scim.schemas import PROVIDER, User
from auth.scim.users import ATTRIBUTES, MANAGED
from tests.auth.scim import directory_of, made, made_group, ok
from tests.fixtures.world import World

VALUES = ["a", "B", "ab", "", "a%b", "a_b", "x'y", 'q"r', "é", "\\", "work", "home"]
TEXTS = [
    "userName",
    "displayName",
    "externalId",
    "name.givenName",
    "name.familyName",
    "emails.value",
    "emails",
]
OPERATORS = ["eq", "ne", "co", "sw", "ew", "gt", "ge", "lt", "le"]


@pytest.fixture(scope="module")
async def directory(world: World) -> httpx.AsyncClient:
    await world.create_tenant("filtered")
    return await directory_of(world, "filtered")


@pytest.fixture(scope="module")
async def people(directory: httpx.AsyncClient) -> list[User]:
    for number, value in enumerate(VALUES):
        other = VALUES[(number * 5 + 1) % len(VALUES)]
        await made(
            directory,
            userName=f"{value}{number}",
            **({"displayName": value} if value and number % 3 else {}),
            **({"externalId": other} if other and number % 2 else {}),
            name={"givenName": other or None, "familyName": value or None},
            emails=[
                {"value": each, "type": kind}
                for each, kind in ((value, "work"), (other, "home"))[: number % 3]
                if each
            ],
            active=bool(number % 4),
        )
    seen = ok(await directory.get("Users"))["Resources"]
    await made_group(directory, *[each["id"] for each in seen[:4]])
    with PROVIDER:
        return [User.model_validate(each) for each in ok(await directory.get("Users"))["Resources"]]


def quoted(value: str) -> str:
    return ScimFilter.quote(value)


values = st.sampled_from(VALUES).map(quoted)
atoms = st.one_of(
    st.builds("{} {} {}".format, st.sampled_from(TEXTS), st.sampled_from(OPERATORS), values),
    st.builds("{} pr".format, st.sampled_from([*TEXTS, "name", "active", "groups", "emails.type"])),
    st.builds("active {} {}".format, st.sampled_from(["eq", "ne"]), st.sampled_from(["true", "false"])),
    st.builds("{} eq null".format, st.sampled_from(["displayName", "externalId", "name.givenName"])),
    st.builds(
        "emails[type {} {} {} value {} {}]".format,
        st.sampled_from(["eq", "ne"]),
        st.sampled_from(['"work"', '"home"']),
        st.sampled_from(["and", "or"]),
        st.sampled_from(OPERATORS),
        values,
    ),
    st.builds("emails[not (type eq {})]".format, st.sampled_from(['"work"', '"home"'])),
    st.builds(
        'meta.created {} "{}"'.format,
        st.sampled_from(["gt", "lt", "ge", "le"]),
        st.just("2026-01-01T00:00:00Z"),
    ),
)
filters = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.builds("not ({})".format, inner),
        st.builds("({}) and ({})".format, inner, inner),
        st.builds("{} or {}".format, inner, inner),
    ),
    max_leaves=6,
)


async def test_sql_selects_what_the_reference_evaluation_selects(world: World, people: list[User]) -> None:
    """Fifty filters at a time, in one statement: the random ones cost no round trips."""
    tried: list[str] = []

    @settings(max_examples=400, suppress_health_check=list(HealthCheck), database=None)
    @given(filters)
    def collect(expression: str) -> None:
        tried.append(expression)

    collect()
    async with world.database.tenant(world.tenant("filtered").scope) as session:
        for start in range(0, len(tried), 50):
            batch = [ScimFilter[User](each) for each in tried[start : start + 50]]
            queries = [
                select(literal(number).label("number"), Person.id).where(MANAGED, condition(each, ATTRIBUTES))
                for number, each in enumerate(batch)
            ]
            found: list[set[str]] = [set() for _ in batch]
            for number, user_id in await session.execute(union_all(*queries)):
                found[number].add(str(user_id))
            for each, ids in zip(batch, found, strict=True):
                with PROVIDER:
                    expected = {str(user.id) for user in people if each.match(user)}
                assert ids == expected, each


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "userName",
        "userName eq",
        'userName eq "a" or',
        'password eq "x"',
        'granted_roles eq "x"',
        'userName;DROP eq "x"',
        'profile co "x"',
        'emails[emails[type eq "x"]]',
        "active gt true",
        "userName sw 3",
        'meta.created co "2026"',
        'meta.created gt "yesterday"',
        "emails eq null",
        'userName eq "a\\u0000b"',
        "(" * 30 + 'userName eq "a"' + ")" * 30,
        'userName eq "' + "a" * 3000 + '"',
        "(" * 2000,
    ],
)
async def test_other_filters_are_refused_in_words(directory: httpx.AsyncClient, expression: str) -> None:
    answer = await directory.get("Users", params={"filter": expression})
    assert ok(answer, 400)["scimType"] in ("invalidFilter", "invalidValue"), answer.text


@pytest.mark.parametrize("value", ["' OR 1=1 --", '" or userName pr or "', "%", "_%", "\\"])
async def test_a_value_is_a_value(directory: httpx.AsyncClient, people: list[User], value: str) -> None:
    query = {"filter": f"userName eq {quoted(value)} or displayName eq {quoted(value * 2)}"}
    assert ok(await directory.get("Users", params=query))["totalResults"] == 0


async def test_what_directories_ask_for_at_every_turn_is_found_by_index(world: World) -> None:
    for expression, index in (
        ('userName eq "x"', "uq_users_user_name"),
        ('externalId eq "x"', "ix_users_scim_external_id"),
        ('id eq "01a20f5f-6594-7558-add7-3bc113480fdb"', "pk_users"),
    ):
        query = select(Person.id).where(MANAGED, condition(ScimFilter[User](expression), ATTRIBUTES))
        dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
        compiled = query.compile(dialect=dialect, compile_kwargs={"literal_binds": True})
        async with world.database.tenant(world.tenant().scope) as session:
            await session.execute(text("SET LOCAL enable_seqscan = off"))
            plan = "\n".join(await session.scalars(text(f"EXPLAIN {compiled}")))
        assert index in plan, plan
