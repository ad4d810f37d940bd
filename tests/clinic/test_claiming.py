"""Physicians take cases: order, eligibility, and what holds when many do it at once."""

import asyncio
from collections import Counter
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select

from clinic.assignments.models import Pool, PoolMember
from clinic.cases.models import Case
from core.ids import new_id
from tests.clinic.journey import Clinic, act, ok
from tests.fixtures.world import World


@pytest.fixture
async def clinic(world: World) -> Clinic:
    """A tenant's staff that queue cases in a country of their own, so that no test sees another's cases."""
    return await Clinic.open(world, "globex")


REGIONS = iter("AT BE BG CH CZ DK ES FI FR GR HR HU IE IT LT LU LV NL NO PL RO SE SI SK".split())


@pytest.fixture
def region() -> str:
    return next(REGIONS)


async def test_the_most_urgent_then_the_oldest_comes_first(clinic: Clinic, region: str) -> None:
    levels = ["routine", "urgent", "emergency", "urgent"]
    cases = [await clinic.queued(level, region=region) for level in levels]
    physician, _ = await clinic.physician(region=region)
    expected = [cases[i]["id"] for i in (2, 1, 3, 0)]

    pages, url = [], "/v1/queue?limit=3"
    while url:
        page = await physician.http.get(url)
        pages.append([case["id"] for case in ok(page)["items"]])
        url = page.links.get("next", {}).get("url", "")
    assert pages == [expected[:3], expected[3:]]

    claimed = [ok(await physician.http.post("/v1/queue/claim", json={})) for _ in cases]
    assert [case["id"] for case in claimed] == expected
    assert {case["status"] for case in claimed} == {"assigned"}
    empty = await physician.http.post("/v1/queue/claim", json={})
    assert (empty.status_code, empty.json()["type"][-16:]) == (404, "nothing-to-claim")


@pytest.mark.parametrize(
    ("registration", "failed"),
    [
        ({"specialties": ("dermato-oncology",)}, ["specialty"]),
        ({"region": "PT"}, ["licence"]),
        ({"valid_days": -1}, ["licence"]),
        ({"available": False}, ["availability"]),
        ({"capacity": 0}, ["capacity"]),
        (
            {"specialties": ("dermato-oncology",), "region": "PT", "capacity": 0},
            ["capacity", "specialty", "licence"],
        ),
    ],
    ids=["specialty", "country", "expired", "unavailable", "full", "several"],
)
async def test_a_refused_claim_says_which_conditions_fail(
    clinic: Clinic, region: str, registration: dict[str, Any], failed: list[str]
) -> None:
    case = await clinic.queued(region=f"{region}-1")
    physician, _ = await clinic.physician(**({"region": region} | registration))
    refused = await act(physician, case, "claim")
    assert (refused.status_code, refused.json()["failed"]) == (409, failed)
    assert (await physician.http.post("/v1/queue/claim", json={})).status_code in {404, 409}
    fitting, _ = await clinic.physician(region=region)
    assert ok(await act(fitting, case, "claim"))["status"] == "assigned"


async def test_a_licence_for_a_subdivision_does_not_cover_its_country(clinic: Clinic, region: str) -> None:
    country, part = await clinic.queued(region=region), await clinic.queued(region=f"{region}-1")
    physician, _ = await clinic.physician(region=f"{region}-1")
    assert (await act(physician, country, "claim")).json()["failed"] == ["licence"]
    assert ok(await physician.http.post("/v1/queue/claim", json={}))["id"] == part["id"]


async def test_a_private_pool_is_for_its_members(clinic: Clinic, region: str) -> None:
    member, registered = await clinic.physician(region=region)
    other, _ = await clinic.physician(region=region)
    async with clinic.world.database.tenant(clinic.world.tenant("globex").scope) as session:
        pool = Pool(code=f"pool-{region.lower()}", name="A practice", kind="private")
        session.add(pool)
        await session.flush()
        session.add(PoolMember(pool_id=pool.id, physician_id=registered["id"]))
    case = await clinic.queued(pool=pool.code, region=region)
    assert ok(await other.http.get("/v1/queue"))["items"] == []
    assert (await other.http.post("/v1/queue/claim", json={})).status_code == 404
    assert (await act(other, case, "claim")).json()["failed"] == ["pool"]
    assert ok(await member.http.post("/v1/queue/claim", json={}))["id"] == case["id"]


async def test_somebody_unregistered_claims_nothing(clinic: Clinic) -> None:
    somebody = await clinic.world.person("physician", tenant="globex")
    refused = await somebody.http.post("/v1/queue/claim", json={})
    assert (refused.status_code, refused.json()["failed"]) == (409, ["registration"])
    assert (await somebody.http.get("/v1/queue")).status_code == 409
    assert (await clinic.coordinator.http.get("/v1/queue")).status_code == 403


async def test_a_declined_case_goes_back_but_not_to_who_declined_it(clinic: Clinic, region: str) -> None:
    await clinic.queued(region=region)
    first, _ = await clinic.physician(region=region)
    second, _ = await clinic.physician(region=region)
    case = ok(await first.http.post("/v1/queue/claim", json={}))
    case = ok(await act(first, case, "decline", {"reason": "Not my field."}))
    assert (case["status"], case["physician_id"]) == ("queued", None)
    assert ok(await first.http.get("/v1/physicians/me"))["open_cases"] == 0
    assert (await first.http.post("/v1/queue/claim", json={})).status_code == 404
    assert ok(await second.http.post("/v1/queue/claim", json={}))["id"] == case["id"]


async def test_a_retried_claim_takes_one_case(clinic: Clinic, region: str) -> None:
    for _ in range(2):
        await clinic.queued(region=region)
    physician, _ = await clinic.physician(region=region)
    headers = {"Idempotency-Key": str(new_id())}
    first = ok(await physician.http.post("/v1/queue/claim", json={}, headers=headers))
    again = ok(await physician.http.post("/v1/queue/claim", json={}, headers=headers))
    assert first == again
    assert ok(await physician.http.get("/v1/physicians/me"))["open_cases"] == 1


async def test_simultaneous_claims_never_share_a_case_nor_pass_a_capacity(
    clinic: Clinic, region: str
) -> None:
    cases = {(await clinic.queued(region=region))["id"] for _ in range(8)}
    physicians = [await clinic.physician(region=region, capacity=3) for _ in range(3)]
    answers = await asyncio.gather(
        *(person.http.post("/v1/queue/claim", json={}) for person, _ in physicians for _ in range(4))
    )
    claimed = [answer.json() for answer in answers if answer.status_code == 200]
    assert {case["id"] for case in claimed} <= cases
    assert max(Counter(case["id"] for case in claimed).values()) == 1
    assert max(Counter(case["physician_id"] for case in claimed).values()) <= 3
    refused = [answer.json() for answer in answers if answer.status_code != 200]
    assert all(problem["status"] in {404, 409} for problem in refused)
    for person, _ in physicians:  # who found only locked rows comes back, and then all is handed out
        while (await person.http.post("/v1/queue/claim", json={})).status_code == 200:
            pass
    held = [ok(await person.http.get("/v1/physicians/me"))["open_cases"] for person, _ in physicians]
    assert sorted(held) == [2, 3, 3]


async def test_a_case_that_is_just_being_taken_is_passed_over(clinic: Clinic, region: str) -> None:
    first, second = await clinic.queued("urgent", region=region), await clinic.queued(region=region)
    physician, _ = await clinic.physician(region=region)
    async with clinic.world.database.tenant(clinic.world.tenant("globex").scope) as session:
        await session.execute(select(Case.id).where(Case.id == UUID(first["id"])).with_for_update())
        async with asyncio.timeout(5):
            claimed = ok(await physician.http.post("/v1/queue/claim", json={}))
    assert claimed["id"] == second["id"]


async def test_who_loses_a_race_for_one_case_is_told_so(clinic: Clinic, region: str) -> None:
    case = await clinic.queued(region=region)
    rivals = [(await clinic.physician(region=region))[0] for _ in range(4)]
    answers = await asyncio.gather(*(act(rival, case, "claim") for rival in rivals))
    statuses = Counter(answer.status_code for answer in answers)
    assert statuses[200] == 1
    # 412 for whom it still waited when they asked, 404 for who came later: it is not theirs to see any more.
    assert statuses[412] + statuses[404] == 3


async def test_capacity_can_be_changed_and_counts_at_once(clinic: Clinic, region: str) -> None:
    cases = [await clinic.queued(region=region) for _ in range(2)]
    physician, registered = await clinic.physician(region=region, capacity=1)
    ok(await physician.http.post("/v1/queue/claim", json={}))
    refused = await physician.http.post("/v1/queue/claim", json={})
    assert refused.json()["failed"] == ["capacity"]
    path, seen = f"/v1/physicians/{registered['id']}", {"If-Match": '"1"'}
    changed = ok(await clinic.admin.http.patch(path, json={"capacity": 2}, headers=seen))
    assert (changed["capacity"], changed["version"]) == (2, 2)
    assert (await clinic.admin.http.patch(path, json={"capacity": 3}, headers=seen)).status_code == 412
    assert ok(await physician.http.post("/v1/queue/claim", json={}))["id"] == cases[1]["id"]


async def test_only_a_user_who_is_a_physician_is_registered_and_once(clinic: Clinic) -> None:
    physician, registered = await clinic.physician()
    body = {"user_id": registered["user_id"], "display_name": "Again", "specialties": ["dermatology"]}
    again = await clinic.admin.http.post("/v1/physicians", json=body)
    assert (again.status_code, again.json()["physician_id"]) == (409, registered["id"])
    for change in ({"user_id": str(clinic.referrer.user_id)}, {"specialties": ["phrenology"]}):
        assert (await clinic.admin.http.post("/v1/physicians", json=body | change)).status_code == 422
    listed = ok(await clinic.coordinator.http.get("/v1/physicians?limit=200"))["items"]
    assert registered["id"] in [each["id"] for each in listed]
    assert (await physician.http.get("/v1/physicians")).status_code == 403
    specialties = [each["code"] for each in ok(await physician.http.get("/v1/specialties"))]
    assert "dermatology" in specialties
