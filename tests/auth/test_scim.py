"""A tenant's directory brings people and groups, as Microsoft Entra ID and Okta do it, and what follows from it."""

import asyncio
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from auth.connections.errors import SignInRefused
from auth.people.administration import deactivate
from auth.people.errors import LastAdministrator
from auth.people.models import User
from tenants.audit.models import AuditEvent
from tests.auth.scim import (
    GROUP,
    USER,
    connection,
    directory_of,
    made,
    made_group,
    name,
    ok,
    patch,
    shut_out,
    signed_in,
)
from tests.fixtures.world import World


@pytest.fixture(scope="module")
async def directory(world: World) -> httpx.AsyncClient:
    return await directory_of(world)


# What Microsoft Entra ID sends (learn.microsoft.com, "Develop and plan provisioning for a SCIM endpoint")


async def test_entra_looks_for_a_user_makes_it_known_and_finds_it(directory: httpx.AsyncClient) -> None:
    user_name = name()
    query = {"filter": f'userName eq "{user_name}"'}
    nobody = ok(await directory.get("Users", params=query))
    assert (nobody["totalResults"], nobody.get("Resources", [])) == (0, [])
    body = {
        "schemas": [USER, "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"],
        "externalId": "0a21f0f2-8d2a-4f8e-bf98-7363c4aed4ef",
        "userName": user_name,
        "active": True,
        "emails": [{"primary": True, "type": "work", "value": "Dana@clinic.example"}],
        "meta": {"resourceType": "User"},
        "name": {"formatted": "Dr. Dana Derm", "familyName": "Derm", "givenName": "Dana"},
        "roles": [],
        "title": "Consultant",
        "phoneNumbers": [{"type": "work", "value": "+49 30 1"}],
        "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User": {"department": "Dermatology"},
    }
    answer = await directory.post("Users", json=body)
    user = ok(answer, 201)
    assert answer.headers["Content-Type"] == "application/scim+json"
    assert answer.headers["Location"] == user["meta"]["location"]
    assert user["meta"]["location"] == f"http://acme.localhost:8000/scim/v2/Users/{user['id']}"
    assert user["name"]["givenName"] == "Dana"
    assert "phoneNumbers" not in user
    found = ok(await directory.get("Users", params={"filter": f'userName eq "{user_name.upper()}"'}))
    assert [each["id"] for each in found["Resources"]] == [user["id"]]
    by_id = {"filter": 'externalId eq "0a21f0f2-8d2a-4f8e-bf98-7363c4aed4ef"', "attributes": "userName"}
    (shown,) = ok(await directory.get("Users", params=by_id))["Resources"]
    assert shown == {"schemas": [USER], "id": user["id"], "userName": user_name}


@pytest.mark.parametrize("value", ["False", False, "false"])
@pytest.mark.parametrize("with_path", [True, False])
async def test_entra_deactivates_in_four_spellings(
    directory: httpx.AsyncClient, value: Any, with_path: bool
) -> None:
    user = await made(directory)
    operation = (
        {"op": "Replace", "path": "active", "value": value}
        if with_path
        else {"op": "replace", "value": {"active": value}}
    )
    ok(await directory.patch(f"Users/{user['id']}", json=patch(operation)), 204)
    assert ok(await directory.get(f"Users/{user['id']}"))["active"] is False


async def test_entra_changes_values_that_do_not_exist_yet(directory: httpx.AsyncClient) -> None:
    user = await made(directory)
    operations = [
        {"op": "Add", "path": 'emails[type eq "work"].value', "value": "new@clinic.example"},
        {"op": "Add", "path": "name.familyName", "value": "Newname"},
        {"op": "Replace", "path": "displayName", "value": "N. Newname"},
        {"op": "Add", "path": 'addresses[type eq "work"].formatted', "value": "nowhere"},
        {
            "op": "Add",
            "path": "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User:department",
            "value": "Dermatology",
        },
    ]
    ok(await directory.patch(f"Users/{user['id']}", json=patch(*operations)), 204)
    changed = ok(await directory.get(f"Users/{user['id']}"))
    assert changed["emails"] == [{"type": "work", "value": "new@clinic.example"}]
    assert changed["name"] == {"familyName": "Newname"}
    assert changed["displayName"] == "N. Newname"
    again = {"op": "Replace", "path": 'emails[type eq "work"].value', "value": "newer@clinic.example"}
    ok(await directory.patch(f"Users/{user['id']}", json=patch(again)), 204)
    assert ok(await directory.get(f"Users/{user['id']}"))["emails"][0]["value"] == "newer@clinic.example"


async def test_entra_adds_and_removes_members_in_all_its_ways(directory: httpx.AsyncClient) -> None:
    people = [(await made(directory))["id"] for _ in range(4)]
    group = await made_group(directory)

    async def members() -> list[str]:
        shown = ok(await directory.get(f"Groups/{group['id']}"))
        return [member["value"] for member in shown.get("members", [])]

    for operation, left in (
        ({"op": "Add", "path": "members", "value": [{"value": each} for each in people]}, people),
        ({"op": "Add", "path": "members", "value": [{"value": people[0]}]}, people),
        ({"op": "Remove", "path": f'members[value eq "{people[0]}"]'}, people[1:]),
        ({"op": "Remove", "path": "members", "value": [{"value": people[1]}]}, people[2:]),
        ({"op": "replace", "path": "members", "value": [{"value": people[0]}]}, people[:1]),
        ({"op": "add", "value": {"members": [{"value": people[3]}]}}, [people[0], people[3]]),
        ({"op": "remove", "path": "members"}, []),
    ):
        ok(await directory.patch(f"Groups/{group['id']}", json=patch(operation)), 204)
        assert await members() == sorted(left), operation


async def test_entra_looks_for_groups_without_their_members(directory: httpx.AsyncClient) -> None:
    person = (await made(directory))["id"]
    group = await made_group(directory, person)
    query = {"excludedAttributes": "members", "filter": f'displayName eq "{group["displayName"]}"'}
    (found,) = ok(await directory.get("Groups", params=query))["Resources"]
    assert found["id"] == group["id"]
    assert "members" not in found
    only = ok(await directory.get(f"Groups/{group['id']}", params={"attributes": "members.value"}))
    assert only["members"] == [{"value": person}]
    query = {"filter": f'id eq "{group["id"]}" and members eq "{person}"'}
    assert ok(await directory.get("Groups", params=query))["totalResults"] == 1
    assert ok(await directory.get(f"Users/{person}"))["groups"][0]["display"] == group["displayName"]


# What Okta sends


async def test_okta_replaces_a_user_and_deactivates_by_it(directory: httpx.AsyncClient) -> None:
    user = await made(directory, displayName="Old", emails=[{"value": "old@clinic.example"}])
    body = {
        "schemas": [USER],
        "id": user["id"],
        "userName": user["userName"],
        "name": {"givenName": "Ola", "familyName": "Okta"},
        "emails": [{"primary": True, "value": "ola@clinic.example", "type": "work"}],
        "active": False,
        "groups": [],
        "meta": {"resourceType": "User"},
    }
    replaced = ok(await directory.put(f"Users/{user['id']}", json=body))
    assert replaced["active"] is False
    assert "displayName" not in replaced
    assert replaced["meta"]["version"] != user["meta"]["version"]


async def test_okta_renames_a_group_by_an_object(directory: httpx.AsyncClient) -> None:
    group = await made_group(directory, (await made(directory))["id"])
    rename = {"op": "replace", "value": {"id": group["id"], "displayName": f"New {group['id']}"}}
    ok(await directory.patch(f"Groups/{group['id']}", json=patch(rename)), 204)
    renamed = ok(await directory.get(f"Groups/{group['id']}"))
    assert renamed["displayName"] == f"New {group['id']}"
    assert len(renamed["members"]) == 1


async def test_a_group_is_replaced_with_its_members(directory: httpx.AsyncClient) -> None:
    one, two = [(await made(directory))["id"] for _ in range(2)]
    group = await made_group(directory, one)
    body = {"schemas": [GROUP], "displayName": group["displayName"], "members": [{"value": two}]}
    replaced = ok(await directory.put(f"Groups/{group['id']}", json=body))
    assert [member["value"] for member in replaced["members"]] == [two]
    assert replaced["members"][0]["$ref"] == f"http://acme.localhost:8000/scim/v2/Users/{two}"
    body.pop("members")
    assert "members" not in ok(await directory.put(f"Groups/{group['id']}", json=body))


# Lists


async def test_lists_are_paged_sorted_and_counted(world: World) -> None:
    await world.create_tenant("paged")
    directory = await directory_of(world, "paged")
    for number in (3, 1, 2):
        await made(directory, displayName=f"No. {number}")
    seen = []
    for start in (1, 2, 3, 4):
        query = {"startIndex": start, "count": 1, "sortBy": "displayName", "sortOrder": "descending"}
        page = ok(await directory.get("Users", params=query))
        assert (page["totalResults"], page["startIndex"]) == (3, start)
        seen += [each["displayName"] for each in page.get("Resources", [])]
    assert seen == ["No. 3", "No. 2", "No. 1"]
    body = {
        "schemas": ["urn:ietf:params:scim:api:messages:2.0:SearchRequest"],
        "filter": 'displayName sw "no. 1"',
        "attributes": ["displayName"],
    }
    found = ok(await directory.post("Users/.search", json=body))
    assert [each["displayName"] for each in found["Resources"]] == ["No. 1"]
    assert ok(await directory.get("Users", params={"count": 0}))["totalResults"] == 3


# Versions and two at once


async def test_etags_prevent_lost_updates(directory: httpx.AsyncClient) -> None:
    user = await made(directory)
    address, version = f"Users/{user['id']}", user["meta"]["version"]
    fresh = await directory.get(address, headers={"If-None-Match": version})
    assert (fresh.status_code, fresh.headers["ETag"]) == (304, version)
    rename = patch({"op": "replace", "path": "displayName", "value": "Once"})
    ok(await directory.patch(address, json=rename, headers={"If-Match": version}), 204)
    stale = await directory.patch(address, json=rename, headers={"If-Match": version})
    assert ok(stale, 412)["status"] == "412"
    assert (await directory.delete(address, headers={"If-Match": version})).status_code == 412


async def test_two_changes_at_once_both_happen(directory: httpx.AsyncClient) -> None:
    user, group = await made(directory), await made_group(directory)
    people = [(await made(directory))["id"] for _ in range(4)]
    changes = [
        directory.patch(f"Users/{user['id']}", json=patch({"op": "add", "path": path, "value": path}))
        for path in ("displayName", "name.givenName", "name.familyName", "name.formatted")
    ] + [
        directory.patch(
            f"Groups/{group['id']}", json=patch({"op": "add", "path": "members", "value": [{"value": each}]})
        )
        for each in people
    ]
    for answer in await asyncio.gather(*changes):
        ok(answer, 204)
    changed = ok(await directory.get(f"Users/{user['id']}"))
    assert changed["displayName"] == "displayName"
    assert set(changed["name"]) == {"givenName", "familyName", "formatted"}
    assert len(ok(await directory.get(f"Groups/{group['id']}"))["members"]) == 4


async def test_of_two_creations_at_once_one_happens(directory: httpx.AsyncClient) -> None:
    user_name = name()
    bodies = [{"schemas": [USER], "userName": each} for each in (user_name, user_name.upper(), user_name)]
    answers = await asyncio.gather(*(directory.post("Users", json=body) for body in bodies))
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409]
    refused = next(answer for answer in answers if answer.status_code == 409)
    assert refused.json()["scimType"] == "uniqueness"
    assert refused.headers["Content-Type"] == "application/scim+json"


# The person is one


async def test_who_was_brought_signs_in_as_the_same_person(
    world: World, directory: httpx.AsyncClient
) -> None:
    by = await connection(world, email_domains=["clinic.example"], provision="invited")
    for called in ("userName", "externalId", "emails"):
        external = name()
        user = await made(
            directory, **{called: [{"value": external.upper()}] if called == "emails" else external}
        )
        asserted = f"opaque-{external}" if called == "emails" else external
        person = await signed_in(world, by, asserted, external, ["referrer"])
        assert str(person.user_id) == user["id"], called
        assert str((await signed_in(world, by, asserted, external, ["referrer"])).user_id) == user["id"]


async def test_a_connection_is_believed_about_its_own_domains_alone(
    world: World, directory: httpx.AsyncClient
) -> None:
    user = await made(directory)
    for other in (
        await connection(world, email_domains=["elsewhere.example"]),
        await connection(world, audience="patients", default_roles=["patient"]),
    ):
        stranger = await signed_in(world, other, user["userName"], user["userName"], ["patient"])
        assert str(stranger.user_id) != user["id"]


async def test_who_signed_in_before_is_taken_over(world: World, directory: httpx.AsyncClient) -> None:
    by = await connection(world)
    external = name()
    person = await signed_in(world, by, external, None, ["referrer"])
    nobody = ok(await directory.get("Users", params={"filter": f'id eq "{person.user_id}"'}))
    assert nobody["totalResults"] == 0
    user = await made(directory, userName=external)
    assert user["id"] == str(person.user_id)
    assert (await person.http.get("/v1/me")).status_code == 200


# What follows


async def test_deactivation_ends_all_sessions_and_keeps_out(
    world: World, directory: httpx.AsyncClient
) -> None:
    by = await connection(world)
    user = await made(directory)
    sessions = [await signed_in(world, by, user["userName"], None, ["referrer"]) for _ in range(2)]
    off = patch({"op": "Replace", "path": "active", "value": "False"})
    ok(await directory.patch(f"Users/{user['id']}", json=off), 204)
    for session in sessions:
        await shut_out(session)
    with pytest.raises(SignInRefused, match="deactivated"):
        await signed_in(world, by, user["userName"], None, ["referrer"])
    on = patch({"op": "Replace", "path": "active", "value": "True"})
    ok(await directory.patch(f"Users/{user['id']}", json=on), 204)
    back = await signed_in(world, by, user["userName"], None, ["referrer"])
    assert (await back.http.get("/v1/me")).status_code == 200


async def test_a_deleted_user_is_shut_out_unseen_and_the_same_when_made_known_again(
    world: World, directory: httpx.AsyncClient
) -> None:
    by = await connection(world)
    user = await made(directory, externalId=name())
    group = await made_group(directory, user["id"])
    person = await signed_in(world, by, user["userName"], None, ["referrer"])
    ok(await directory.delete(f"Users/{user['id']}"), 204)
    await shut_out(person)
    for answer in (
        await directory.get(f"Users/{user['id']}"),
        await directory.delete(f"Users/{user['id']}"),
        await directory.patch(
            f"Users/{user['id']}", json=patch({"op": "add", "path": "active", "value": True})
        ),
    ):
        assert ok(answer, 404)["status"] == "404"
    assert "members" not in ok(await directory.get(f"Groups/{group['id']}"))
    async with world.database.tenant(world.tenant().scope) as session:
        row = await session.get_one(User, person.user_id)
    assert (row.active, row.user_name) == (False, None)
    again = await made(directory, externalId=user["externalId"])
    assert (again["id"], again["active"]) == (user["id"], True)


async def test_groups_bring_roles_and_take_them_away(world: World, directory: httpx.AsyncClient) -> None:
    user, colleague = await made(directory), await made(directory)
    group = await made_group(directory, user["id"], colleague["id"])
    others = await made_group(directory, user["id"])
    by = await connection(world, role_mapping={group["displayName"]: "physician"})
    person = await signed_in(world, by, user["userName"])
    staying = await signed_in(world, by, colleague["userName"])
    assert (await person.http.get("/v1/me")).json()["roles"] == ["physician"]

    address = f"Groups/{others['id']}"
    leave = patch({"op": "remove", "path": f'members[value eq "{user["id"]}"]'})
    ok(await directory.patch(address, json=leave), 204)
    assert (await person.http.get("/v1/me")).status_code == 200, "that group brings nothing"

    ok(await directory.patch(f"Groups/{group['id']}", json=leave), 204)
    await shut_out(person)
    with pytest.raises(SignInRefused, match="role"):
        await signed_in(world, by, user["userName"])
    assert (await staying.http.get("/v1/me")).status_code == 200

    ok(await directory.delete(f"Groups/{group['id']}"), 204)
    await shut_out(staying)


async def test_a_renamed_group_brings_its_former_roles_no_more(
    world: World, directory: httpx.AsyncClient
) -> None:
    user = await made(directory)
    group = await made_group(directory, user["id"])
    by = await connection(world, role_mapping={group["displayName"]: "physician"})
    person = await signed_in(world, by, user["userName"])
    rename = patch({"op": "replace", "path": "displayName", "value": f"Former {group['id']}"})
    ok(await directory.patch(f"Groups/{group['id']}", json=rename), 204)
    await shut_out(person)


async def test_what_a_directory_did_stands_in_the_audit_log(
    world: World, directory: httpx.AsyncClient
) -> None:
    user = await made(directory)
    await directory.patch(
        f"Users/{user['id']}", json=patch({"op": "replace", "path": "active", "value": False})
    )
    await directory.delete(f"Users/{user['id']}")
    async with world.database.tenant(world.tenant().scope) as session:
        query = select(AuditEvent).where(AuditEvent.subject == user["id"]).order_by(AuditEvent.id)
        events = (await session.scalars(query)).all()
        actors = {event.actor for event in events}
        tokens = select(AuditEvent.subject).where(AuditEvent.action == "scim-token.created")
        assert actors <= set(await session.scalars(tokens))
    assert [event.action for event in events] == [
        "user.provisioned",
        "user.deactivated",
        "user.updated",
        "user.deprovisioned",
    ]


# The protocol's edges


async def test_what_is_not_supported_says_so(directory: httpx.AsyncClient) -> None:
    for method, path, status in (
        ("GET", "Me", 501),
        ("POST", "Bulk", 501),
        ("GET", "Nothing", 404),
        ("GET", "Users/not-an-id", 404),
        ("DELETE", "Users", 405),
        ("OPTIONS", "Users", 405),
        ("GET", "", 501),
    ):
        answer = await directory.request(method, path, json={} if method == "POST" else None)
        assert ok(answer, status)["status"] == str(status)
        assert answer.headers["Content-Type"] == "application/scim+json"
    assert ok(await directory.get("ServiceProviderConfig"))["bulk"]["supported"] is False


async def test_how_to_authenticate_can_be_read_before(world: World) -> None:
    http = await world.http()
    assert ok(await http.get("/scim/v2/ServiceProviderConfig"))["authenticationSchemes"]


async def test_the_directory_may_let_the_last_administrator_go(world: World) -> None:
    """Nobody else may: its word that somebody has left must hold."""
    tenant = await world.create_tenant("headless")
    directory = await directory_of(world, "headless")
    user = await made(directory, userName="boss@headless.example")
    boss = await world.person("tenant_admin", tenant="headless", login="boss")
    assert str(boss.user_id) == user["id"]
    with pytest.raises(LastAdministrator):
        await deactivate(world.database, tenant.scope, None, boss.user_id, None)
    ok(
        await directory.patch(
            f"Users/{user['id']}", json=patch({"op": "replace", "path": "active", "value": False})
        ),
        204,
    )
    await shut_out(boss)
    async with world.database.tenant(tenant.scope) as session:
        event = await session.scalar(select(AuditEvent).where(AuditEvent.action == "user.deactivated"))
    assert event is not None
    assert event.subject == boss.user_id
