"""Reading the audit logs, over HTTP and at the command line."""

from datetime import timedelta

from sqlalchemy import text

from core.clock import utcnow
from tenants.background.bells import ring
from tests.clinic.journey import Clinic, ok
from tests.fixtures.world import World


async def test_who_read_a_case_stands_in_the_tenants_log(world: World) -> None:
    clinic = await Clinic.open(world)
    case = await clinic.queued()
    auditor, stranger = await world.person("auditor"), await world.person("referrer")
    before = utcnow()
    assert (await stranger.http.get(f"/v1/cases/{case['id']}")).status_code == 404
    ok(await clinic.coordinator.http.get(f"/v1/cases/{case['id']}"))
    ok(await clinic.coordinator.http.get("/v1/cases"))
    seen = {"since": before.isoformat(), "actor": str(clinic.coordinator.user_id)}
    events = ok(await auditor.http.get("/v1/audit-events", params=seen))["items"]
    assert [(each["action"], each["subject"]) for each in events] == [
        ("case.list", None),
        ("case.read", case["id"]),
    ]
    assert events[1]["request_id"]
    assert not ok(
        await auditor.http.get(
            "/v1/audit-events", params={"actor": str(stranger.user_id), "action": "case.read"}
        )
    )["items"]


async def test_what_belongs_to_a_case_is_audited_as_the_case(world: World) -> None:
    clinic = await Clinic.open(world)
    case = await clinic.queued()
    path = f"/v1/cases/{case['id']}"
    [image] = ok(await clinic.coordinator.http.get(f"{path}/images"))["items"]
    for part in ("events", "ai-results", f"images/{image['id']}/annotations", "reports"):
        ok(await clinic.coordinator.http.get(f"{path}/{part}"))
    admin = await world.person("tenant_admin")
    seen = {"subject": case["id"], "actor": str(clinic.coordinator.user_id), "action": "case.read"}
    events = ok(await admin.http.get("/v1/audit-events", params=seen))["items"]
    assert [each["detail"]["part"] for each in reversed(events)] == [
        "images", "events", "ai-results", "annotations", "reports",
    ]  # fmt: skip


async def test_the_log_is_read_page_by_page_and_by_filter(world: World) -> None:
    clinic = await Clinic.open(world)
    case = await clinic.queued()
    for _ in range(5):
        ok(await clinic.coordinator.http.get(f"/v1/cases/{case['id']}"))
    admin = await world.person("tenant_admin")
    wanted = {"subject": case["id"], "action": "case.read", "limit": "2"}
    found, cursor = [], None
    while True:
        page = ok(
            await admin.http.get("/v1/audit-events", params=wanted | ({"cursor": cursor} if cursor else {}))
        )
        found += [each["id"] for each in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert len(found) == 5
    assert found == sorted(found, reverse=True)
    later = (utcnow() + timedelta(hours=1)).isoformat()
    assert not ok(await admin.http.get("/v1/audit-events", params={"since": later}))["items"]
    assert (await clinic.coordinator.http.get("/v1/audit-events")).status_code == 403
    for wrong in ({"since": "2026-01-01"}, {"actor": "x"}, {"action": "a'b"}, {"cursor": "x"}):
        assert (await admin.http.get("/v1/audit-events", params=wrong)).status_code == 422


async def test_many_transactions_ring_one_bell(world: World) -> None:
    clinic = await Clinic.open(world)
    case = await clinic.queued()
    waiting = text(
        "SELECT count(*) FROM control.doorbells WHERE kind = 'seal-audit' AND tenant_key = :key AND leased_until IS NULL"
    )
    lease = text(
        "UPDATE control.doorbells SET leased_until = now() + interval '1 h' WHERE kind = 'seal-audit'"
    )
    for _ in range(2):
        for _ in range(3):
            ok(await clinic.coordinator.http.get(f"/v1/cases/{case['id']}"))
            await ring(world.database)
        async with world.database.control() as session:
            # The gateway rings by itself too, and two at the same moment cannot see one another.
            assert await session.scalar(waiting, {"key": world.tenant("acme").scope.key}) in (1, 2)
            # Whoever has taken it may have looked already: what comes later rings again.
            await session.execute(lease)
