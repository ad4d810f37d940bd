"""Roles, deactivation and back: what it does to sessions, seats and the work that somebody holds."""

import asyncio
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import select

from auth.connections.errors import SignInRefused
from auth.people.administration import let_go
from auth.people.models import SignInSession, User
from auth.people.service import close_sessions
from clinic.assignments.models import Assignment
from clinic.assignments.service import claim_next
from core.access import Principal
from core.ids import new_id
from gateway.assembly import background_worker
from tenants.background.models import Doorbell
from tenants.directory.cache import Directory
from tenants.plans.service import set_quota
from tests.clinic.journey import Clinic, act, ok
from tests.fixtures.world import Person, World

SLUG = "people"


@pytest.fixture(scope="module")
async def clinic(world: World) -> Clinic:
    await world.create_tenant(SLUG)
    return await Clinic.open(world, SLUG)


async def change(admin: Person, user_id: UUID | str, verb: str = "", **body: Any) -> httpx.Response:
    """PATCH, or POST `verb`, at the version that is read."""
    path = f"/v1/users/{user_id}"
    etag = {"If-Match": (await admin.http.get(path)).headers["ETag"]}
    if verb:
        return await admin.http.post(f"{path}/{verb}", headers=etag)
    return await admin.http.patch(path, json=body, headers=etag)


async def is_known(world: World, who: Person) -> bool:
    await world.parts[Directory].refresh()  # what happens by itself four times a second
    return (await who.http.get("/v1/me")).status_code == 200


async def work(world: World) -> None:
    """What a worker does, until nothing is due."""
    worker = background_worker(world.parts)
    while await worker.run_one():
        pass


async def test_roles_are_given_and_taken(world: World, clinic: Clinic) -> None:
    who = await world.person("referrer", tenant=SLUG, login="given")
    given = ok(await change(clinic.admin, who.user_id, granted_roles=["coordinator", "auditor"]))
    assert (given["roles"], given["granted_roles"]) == (
        ["auditor", "coordinator", "referrer"],
        ["auditor", "coordinator"],
    )
    assert await is_known(world, who), "more roles end no session; they come with the next"
    again = await world.person("referrer", tenant=SLUG, login="given")
    assert ok(await again.http.get("/v1/me"))["roles"] == ["auditor", "coordinator", "referrer"]

    taken = ok(await change(clinic.admin, who.user_id, granted_roles=["auditor"]))
    assert taken["roles"] == ["auditor", "referrer"]
    assert not await is_known(world, who)
    assert not await is_known(world, again), "tokens carry roles, so whoever loses one signs in anew"
    events = ok(await clinic.admin.http.get(f"/v1/audit-events?subject={who.user_id}"))["items"]
    assert [event["detail"] for event in events if event["action"] == "user.roles"] == [
        {"given": [], "taken": ["coordinator"]},
        {"given": ["auditor", "coordinator"], "taken": []},
    ]


async def test_changes_need_the_present_version_and_the_scope(world: World, clinic: Clinic) -> None:
    who = await world.person("referrer", tenant=SLUG)
    path = f"/v1/users/{who.user_id}"
    shown = await clinic.admin.http.get(path)
    assert shown.headers["ETag"] == f'"{shown.json()["version"]}"'
    body = {"granted_roles": ["auditor"]}
    assert (await clinic.admin.http.patch(path, json=body)).status_code == 428
    ok(await clinic.admin.http.patch(path, json=body, headers={"If-Match": shown.headers["ETag"]}))
    stale = await clinic.admin.http.patch(path, json=body, headers={"If-Match": shown.headers["ETag"]})
    assert stale.status_code == 412
    for verb in ("deactivate", "activate"):
        assert (await clinic.admin.http.post(f"{path}/{verb}")).status_code == 428
        answer = await clinic.coordinator.http.post(f"{path}/{verb}", headers={"If-Match": '"1"'})
        assert (answer.status_code, answer.json()["scope"]) == (403, "users:manage")
    assert (await clinic.coordinator.http.patch(path, json=body)).status_code in (403, 428)
    assert (await clinic.admin.http.get(f"/v1/users/{new_id()}")).status_code == 404
    unknown = await change(clinic.admin, who.user_id, granted_roles=["emperor"])
    assert (unknown.status_code, unknown.json()["type"][-12:]) == (422, "unknown-role")
    elsewhere = await world.person("tenant_admin", tenant="acme")
    assert (await elsewhere.http.get(path)).status_code == 404


async def test_who_is_deactivated_is_let_in_no_more(world: World, clinic: Clinic) -> None:
    who = await world.person("referrer", tenant=SLUG, login="leaving")
    other = await world.person("referrer", tenant=SLUG, login="leaving")
    assert ok(await change(clinic.admin, who.user_id, "deactivate"))["active"] is False
    assert not await is_known(world, who)
    assert not await is_known(world, other)
    with pytest.raises(SignInRefused) as refused:
        await world.person("referrer", tenant=SLUG, login="leaving")
    assert refused.value.check_id == "login.deactivated"
    assert ok(await change(clinic.admin, who.user_id, "activate"))["active"] is True
    back = await world.person("referrer", tenant=SLUG, login="leaving")
    assert await is_known(world, back)
    assert not await is_known(world, who), "what has ended stays so"


async def open_work(clinic: Clinic) -> tuple[Person, list[dict[str, Any]]]:
    """A physician who holds a case and is looking at another."""
    physician, _ = await clinic.physician(region="DE")
    held = [await clinic.queued() for _ in range(2)]
    held = [ok(await act(physician, case, "claim")) for case in held]
    held[1] = ok(await act(physician, held[1], "start"))
    return physician, held


async def handed_back(clinic: Clinic, held: list[dict[str, Any]], physician: Person) -> None:
    for case in held:
        shown = ok(await clinic.coordinator.http.get(f"/v1/cases/{case['id']}"))
        assert shown["status"] == "queued"
        assert shown["version"] == case["version"] + 1
        events = ok(await clinic.coordinator.http.get(f"/v1/cases/{case['id']}/events"))["items"]
        last = max(events, key=lambda event: event["id"])
        assert (last["action"], last["actor"], last["reason"]) == ("release", None, "physician-deactivated")
    async with clinic.world.database.tenant(clinic.world.tenant(SLUG).scope) as session:
        ended = await session.execute(
            select(Assignment.end_reason, Assignment.ended_at).where(
                Assignment.case_id.in_([case["id"] for case in held])
            )
        )
        assert {(row.end_reason, row.ended_at is not None) for row in ended} == {("deactivated", True)}
    colleague, _ = await clinic.physician(region="DE")
    for case in held:
        case = ok(await clinic.coordinator.http.get(f"/v1/cases/{case['id']}"))
        assert ok(await act(colleague, case, "claim"))["status"] == "assigned"


async def test_a_physicians_open_cases_go_back_to_the_queue(world: World, clinic: Clinic) -> None:
    physician, held = await open_work(clinic)
    ok(await change(clinic.admin, physician.user_id, "deactivate"))
    await work(world)
    await handed_back(clinic, held, physician)


async def test_a_crash_after_the_deactivation_loses_nothing_of_what_follows(
    world: World, clinic: Clinic
) -> None:
    """Only the first transaction happened, as when the process died right after it; a worker does the rest."""
    physician, held = await open_work(clinic)
    async with world.database.tenant(world.tenant(SLUG).scope) as session:
        user = await session.get_one(User, physician.user_id, with_for_update=True)
        await let_go(session, user)
    async with world.database.control() as control:
        assert await control.scalar(
            select(Doorbell.id).where(
                Doorbell.kind == "user-deactivated", Doorbell.tenant_key == world.tenant(SLUG).scope.key
            )
        ), "rung in that very transaction"
    assert await is_known(world, physician)
    await work(world)
    assert not await is_known(world, physician)
    await handed_back(clinic, held, physician)


async def test_a_crash_in_the_middle_of_a_logout_leaves_no_token_good(world: World, clinic: Clinic) -> None:
    """Only the first transaction happened; a worker does the rest."""
    physician, _ = await clinic.physician(region="DE")
    async with world.database.tenant(world.tenant(SLUG).scope) as session:
        mine = SignInSession.id == physician.session_id
        _, opened = await close_sessions(session, mine, None, "logout")
    assert opened == 1
    assert await is_known(world, physician)
    await work(world)
    assert not await is_known(world, physician)


async def test_who_is_deactivated_takes_no_case_even_while_their_token_still_works(
    world: World, clinic: Clinic
) -> None:
    physician, _ = await clinic.physician(region="DE")
    case = await clinic.queued()
    async with world.database.tenant(world.tenant(SLUG).scope) as session:
        await let_go(session, await session.get_one(User, physician.user_id, with_for_update=True))
    refused = await act(physician, case, "claim")
    assert (refused.status_code, refused.json()["failed"]) == (409, ["registration"])
    await work(world)


async def test_a_deactivation_waits_for_claims_under_way(world: World, clinic: Clinic) -> None:
    physician, _ = await clinic.physician(region="DE")
    await clinic.queued()
    scope = world.tenant(SLUG).scope
    principal = Principal(
        scope, "user", physician.user_id, physician.session_id, frozenset({"physician"}), frozenset()
    )
    async with world.database.tenant(scope) as session:
        claimed = await claim_next(session, principal, None)
        leaving = asyncio.create_task(change(clinic.admin, physician.user_id, "deactivate"))
        done, _ = await asyncio.wait([leaving], timeout=0.5)
        assert not done
    ok(await leaving)
    await work(world)
    assert ok(await clinic.coordinator.http.get(f"/v1/cases/{claimed}"))["status"] == "queued"


# The last administrator


async def administrators(world: World, slug: str, count: int) -> list[Person]:
    await world.create_tenant(slug)
    return [await world.person("tenant_admin", tenant=slug, login=f"admin-{n}") for n in range(count)]


async def test_the_last_administrator_stays(world: World) -> None:
    [first] = await administrators(world, "lastadmin", 1)
    never_came = {"email": "never@came.example", "roles": ["tenant_admin"]}
    ok(await first.http.post("/v1/users/invitations", json=never_came), 201)
    refused = await change(first, first.user_id, "deactivate")
    assert (refused.status_code, refused.json()["type"][-18:]) == (409, "last-administrator")
    assert await is_known(world, first)
    second = await world.person("tenant_admin", tenant="lastadmin")
    assert ok(await change(second, first.user_id, "deactivate"))["active"] is False
    assert (await change(second, second.user_id, "deactivate")).status_code == 409


async def test_the_last_administrator_cannot_be_demoted_either(world: World) -> None:
    [first] = await administrators(world, "demoted", 1)
    second = await world.person("referrer", tenant="demoted", login="second")
    ok(await change(first, second.user_id, granted_roles=["tenant_admin"]))
    second = await world.person("referrer", tenant="demoted", login="second")
    ok(await change(second, first.user_id, "deactivate"))
    refused = await change(second, second.user_id, granted_roles=[])
    assert (refused.status_code, refused.json()["type"][-18:]) == (409, "last-administrator")
    assert ok(await second.http.get(f"/v1/users/{second.user_id}"))["granted_roles"] == ["tenant_admin"]


async def test_two_administrators_who_deactivate_each_other_at_once_leave_one(world: World) -> None:
    two = await administrators(world, "mutual", 2)
    answers = await asyncio.gather(
        change(two[0], two[1].user_id, "deactivate"), change(two[1], two[0].user_id, "deactivate")
    )
    # The second may have been signed out meanwhile, instead of being told.
    assert sorted(answer.status_code for answer in answers)[0] == 200
    assert sorted(answer.status_code for answer in answers)[1] in (401, 409)
    async with world.database.tenant(world.tenant("mutual").scope) as session:
        assert len((await session.scalars(select(User.id).where(User.active))).all()) == 1


# Seats


async def test_who_comes_back_takes_a_seat_again(world: World) -> None:
    [admin] = await administrators(world, "comeback", 1)
    who = [await world.person("referrer", tenant="comeback") for _ in range(2)]
    ok(await change(admin, who[0].user_id, "deactivate"))
    async with world.admin.control() as session:
        await set_quota(session, "comeback", "seats", 2)
    await world.parts[Directory].refresh()
    refused = await change(admin, who[0].user_id, "activate")
    assert (refused.status_code, refused.json()["metric"]) == (429, "seats")
    ok(await change(admin, who[1].user_id, "deactivate"))
    answers = await asyncio.gather(*(change(admin, each.user_id, "activate") for each in who))
    assert sorted(answer.status_code for answer in answers) == [200, 429]


async def test_a_patient_who_becomes_staff_takes_a_seat(world: World) -> None:
    [admin] = await administrators(world, "promoted", 1)
    patient = await world.person("patient", tenant="promoted", login="p")
    async with world.admin.control() as session:
        await set_quota(session, "promoted", "seats", 1)
    await world.parts[Directory].refresh()
    assert (await change(admin, patient.user_id, granted_roles=["auditor"])).status_code == 429
    with pytest.raises(SignInRefused) as refused:
        await world.person("patient", "referrer", tenant="promoted", login="p")
    assert refused.value.check_id == "login.no-seat"
    assert await is_known(world, patient)
    await world.person("patient", tenant="promoted", login="p")


async def test_sessions_that_were_ended_stay_on_record(world: World, clinic: Clinic) -> None:
    who = await world.person("referrer", tenant=SLUG)
    ok(await change(clinic.admin, who.user_id, "deactivate"))
    async with world.database.tenant(world.tenant(SLUG).scope) as session:
        row = await session.get_one(SignInSession, who.session_id)
    assert row.revoked_at is not None
