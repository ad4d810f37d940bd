"""Who may not come to `/scim/v2`, what one may not see or set there, and messages made to hurt."""

import json
from datetime import timedelta
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, update

from auth.people.models import User
from auth.scim.models import ScimToken
from auth.scim.service import revoke_token
from core.clock import utcnow
from core.ids import new_id
from tests.auth.scim import (
    GROUP,
    PATCH,
    USER,
    connection,
    directory_of,
    made,
    made_group,
    name,
    ok,
    patch,
    scim_token,
    signed_in,
)
from tests.fixtures.world import World

METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]


@pytest.fixture(scope="module")
async def directory(world: World) -> httpx.AsyncClient:
    return await directory_of(world)


@pytest.fixture(scope="module")
async def other(world: World) -> httpx.AsyncClient:
    return await directory_of(world, "globex")


# Who may come


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("whose", ["another tenant's", "a user's", "revoked", "expired", "made up", "none"])
async def test_no_other_token_opens_it(world: World, whose: str, method: str) -> None:
    token = ""
    if whose == "another tenant's":
        token = await scim_token(world, "globex")
    elif whose == "a user's":
        token = (await world.person("tenant_admin")).token
    elif whose in ("revoked", "expired"):
        token = await scim_token(world)
        async with world.database.tenant(world.tenant().scope) as session:
            row = (await session.scalars(select(ScimToken).order_by(ScimToken.id.desc()).limit(1))).one()
            if whose == "revoked":
                await revoke_token(session, row.name)
            else:
                expired = update(ScimToken).where(ScimToken.id == row.id)
                await session.execute(expired.values(expires_at=utcnow() - timedelta(seconds=1)))
    elif whose == "made up":
        token = "dds_" + "x" * 43
    http = await world.http()
    if token:
        http.headers["Authorization"] = f"Bearer {token}"
    answer = await http.request(method, f"/scim/v2/Users/{new_id()}", content=b"not even JSON")
    assert ok(answer, 401)["status"] == "401"
    assert answer.headers["Content-Type"] == "application/scim+json"
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


async def test_its_token_opens_nothing_else(world: World, directory: httpx.AsyncClient) -> None:
    http = await world.http(Authorization=directory.headers["Authorization"])
    for path in ("/v1/me", "/v1/users", "/v1/cases"):
        assert (await http.get(path)).status_code == 401


async def test_its_use_is_known_and_limited(world: World) -> None:
    directory = await directory_of(world)
    answer = await directory.get("Users", params={"count": 0})
    assert "RateLimit" in answer.headers
    async with world.database.tenant(world.tenant().scope) as session:
        row = (await session.scalars(select(ScimToken).order_by(ScimToken.id.desc()).limit(1))).one()
    assert row.last_used_at is not None
    assert directory.headers["Authorization"].removeprefix("Bearer ") not in row.token_hash


# What one may see and set


async def test_nothing_of_another_tenant_exists(
    directory: httpx.AsyncClient, other: httpx.AsyncClient
) -> None:
    theirs, their_group = await made(other), await made_group(other)
    mine = await made_group(directory)
    for path in (f"Users/{theirs['id']}", f"Groups/{their_group['id']}"):
        for method in ("GET", "PUT", "PATCH", "DELETE"):
            kind = USER if path.startswith("Users") else GROUP
            body = (
                patch({"op": "replace", "path": "displayName", "value": "Mine"})
                if method == "PATCH"
                else {"schemas": [kind], "userName": name(), "displayName": name()}
            )
            content = json.dumps(body) if method in ("PUT", "PATCH") else None
            ok(await directory.request(method, path, content=content), 404)
    join = patch({"op": "add", "path": "members", "value": [{"value": theirs["id"]}]})
    ok(await directory.patch(f"Groups/{mine['id']}", json=join), 400)
    ok(await other.get(f"Users/{theirs['id']}"))


@pytest.mark.parametrize(
    "attributes",
    [
        {"roles": [{"value": "tenant_admin"}]},
        {"Roles": [{"Value": "tenant_admin"}]},
        {"granted_roles": ["tenant_admin"], "grantedRoles": ["tenant_admin"]},
        {"mapped_roles": ["tenant_admin"], "mappedRoles": ["tenant_admin"]},
        {"id": "01900000-0000-7000-8000-000000000001", "meta": {"version": 'W/"99"'}},
        {"connection_id": "01900000-0000-7000-8000-000000000001", "provisioned_at": None},
        {"groups": [{"value": "01900000-0000-7000-8000-000000000001"}]},
    ],
)
async def test_nobody_gets_a_role_by_saying_so(
    world: World, directory: httpx.AsyncClient, attributes: dict[str, Any]
) -> None:
    user = await made(directory, **attributes)
    address = f"Users/{user['id']}"
    body = {"schemas": [USER], "userName": user["userName"]} | attributes
    assert (await directory.put(address, json=body)).status_code in (200, 400)
    for operation in (
        {"op": "replace", "value": attributes},
        *({"op": "add", "path": path, "value": value} for path, value in attributes.items()),
    ):
        assert (await directory.patch(address, json=patch(operation))).status_code in (200, 204, 400)
    async with world.database.tenant(world.tenant().scope) as session:
        row = (await session.scalars(select(User).where(User.user_name == user["userName"]))).one()
    assert row.roles == []
    assert (str(row.id), row.connection_id) == (user["id"], None)
    assert row.provisioned_at is not None
    assert user["id"] != "01900000-0000-7000-8000-000000000001"
    assert "groups" not in ok(await directory.get(address))


async def test_patients_invited_people_and_local_accounts_are_not_its_business(
    world: World, directory: httpx.AsyncClient
) -> None:
    patients = await connection(world, audience="patients", default_roles=["patient"])
    email = name()
    patient = await signed_in(world, patients, email, email, ["patient"])
    async with world.database.tenant(world.tenant().scope) as session:
        local = User(display_name="Local", user_name=f"local-{new_id()}")
        session.add(local)
        await session.flush()
    group = await made_group(directory)
    for user_id in (patient.user_id, local.id):
        ok(await directory.get(f"Users/{user_id}"), 404)
        ok(await directory.delete(f"Users/{user_id}"), 404)
        join = patch({"op": "add", "path": "members", "value": [{"value": str(user_id)}]})
        ok(await directory.patch(f"Groups/{group['id']}", json=join), 400)
    brought = await made(directory, userName=email, externalId=email, emails=[{"value": email}])
    assert brought["id"] != str(patient.user_id), "a patient is taken over"
    assert local.user_name
    taken = await directory.post("Users", json={"schemas": [USER], "userName": local.user_name.upper()})
    assert ok(taken, 409)["scimType"] == "uniqueness"


async def test_who_has_no_names_in_common_is_not_taken_over(
    world: World, directory: httpx.AsyncClient
) -> None:
    known = await signed_in(world, await connection(world), name(), name(), ["referrer"])
    for attributes in ({}, {"externalId": ""}, {"emails": [{"value": ""}, {"type": "work"}]}):
        assert (await made(directory, **attributes))["id"] != str(known.user_id)


# Messages made to hurt

DEEP = "[" * 100_000
MANY_KEYS = {f"x{number}": 1 for number in range(60_000)}
HURTING: dict[str, tuple[str, str, bytes]] = {
    "deep": ("POST", "Users", DEEP.encode()),
    "deep in a member": ("POST", "Groups", b'{"members": ' + DEEP.encode() + b"}"),
    "a NUL character": ("POST", "Users", json.dumps({"schemas": [USER], "userName": "a\0b"}).encode()),
    "half a character": ("POST", "Users", b'{"schemas":["' + USER.encode() + b'"],"userName":"\\ud800"}'),
    "not UTF-8": ("POST", "Users", b'{"userName": "\xff"}'),
    "a long name": ("POST", "Users", json.dumps({"schemas": [USER], "userName": "a" * 100_000}).encode()),
    "a long external id": (
        "POST",
        "Groups",
        json.dumps({"schemas": [GROUP], "displayName": "a", "externalId": "a" * 100_000}).encode(),
    ),
    "members of other kinds": (
        "POST",
        "Groups",
        json.dumps({"schemas": [GROUP], "displayName": "a", "members": [1, None, {"value": {}}]}).encode(),
    ),
    "many operations": (
        "PATCH",
        "Users/ID",
        json.dumps(patch(*[{"op": "add", "path": "title", "value": "x"}] * 5_000)).encode(),
    ),
    "many attributes": ("PATCH", "Users/ID", json.dumps(patch({"op": "add", "value": MANY_KEYS})).encode()),
    "many attributes, oddly written": (
        "PATCH",
        "Users/ID",
        json.dumps({"schemas": [PATCH], "oPerations": [{"OP": "add", "Value": MANY_KEYS}]}).encode(),
    ),
    "a deep path": (
        "PATCH",
        "Users/ID",
        json.dumps(
            patch({"op": "remove", "path": "emails[" + "(" * 5000 + "type pr" + ")" * 5000 + "]"})
        ).encode(),
    ),
    "a deep path in a value": (
        "PATCH",
        "Users/ID",
        json.dumps(patch({"op": "add", "value": {"emails[" + "(" * 5000: 1}})).encode(),
    ),
    "too long": ("POST", "Groups", b" " * 1_000_001),
}


@pytest.mark.parametrize("what", HURTING)
async def test_a_hurting_message_is_refused(directory: httpx.AsyncClient, what: str) -> None:
    method, path, content = HURTING[what]
    if path.endswith("ID"):
        path = f"Users/{(await made(directory))['id']}"
    answer = await directory.request(method, path, content=content)
    assert answer.status_code in (400, 413), answer.text
    assert answer.headers["Content-Type"] == "application/scim+json"
    assert answer.json()["status"] == str(answer.status_code)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["value", "path", "op", "Operations", "schemas", "members", "emails", "name"])
            | st.text(max_size=6),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)
operations = st.fixed_dictionaries(
    {"op": st.sampled_from(["add", "Remove", "replace", "move"])},
    optional={
        "path": st.sampled_from(
            ["members", 'members[value eq "x"]', "members.value", 'emails[type eq "work"]', "emails.value",
             "name", "active", "userName", "schemas", "meta.version", "externalId", "", "urn:x:y", "groups"]
        )
        | st.text(max_size=12),
        "value": json_values,
    },
)  # fmt: skip


async def test_whatever_comes_the_answer_is_scims_and_no_defect(directory: httpx.AsyncClient) -> None:
    user, group = await made(directory), await made_group(directory)
    tried: list[tuple[str, str, Any]] = []

    @settings(max_examples=150, suppress_health_check=list(HealthCheck), database=None)
    @given(
        st.sampled_from([f"Users/{user['id']}", f"Groups/{group['id']}"]),
        st.lists(operations, max_size=3),
        json_values,
    )
    def collect(path: str, patches: list[Any], value: Any) -> None:
        tried.append(("PATCH", path, patch(*patches)))
        tried.append(("PUT", path, value))
        tried.append(("POST", path.split("/")[0], value))
        if isinstance(value, dict):
            kind = USER if path.startswith("Users") else GROUP
            tried.append(
                ("PUT", path, {"schemas": [kind], "userName": name(), "displayName": name()} | value)
            )

    collect()
    for method, path, body in tried:
        answer = await directory.request(method, path, content=json.dumps(body))
        assert answer.status_code < 500, (method, path, body, answer.text)
        assert answer.headers.get("Content-Type") in ("application/scim+json", None)
