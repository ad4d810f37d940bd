"""Reports: issued once per state of a case, signed, verifiable by anybody who holds one, superseded and kept."""

import asyncio
import hashlib
import io
import json
import re
from typing import Any
from uuid import UUID

import httpx
import pypdf
import pytest
from joserfc import jws
from joserfc.jwk import ECKey
from sqlalchemy import func, select, text, update

from auth.keys.service import public_token_keys
from clinic.cases.models import Case
from clinic.reports.composition import content_sha256
from clinic.reports.models import Report
from clinic.reports.service import hash_token
from core.blobs import BlobStores
from tenants.audit.models import AuditEvent
from tenants.directory.cache import Directory
from tenants.directory.service import update_tenant
from tests.clinic.journey import ANSWER, Clinic, act, ok
from tests.fixtures.world import Person, World


@pytest.fixture(scope="module")
async def clinic(world: World) -> Clinic:
    return await Clinic.open(world)


async def in_review(clinic: Clinic, **changes: Any) -> tuple[Person, dict[str, Any]]:
    physician, _ = await clinic.physician()
    case = await clinic.queued(**changes)
    case = ok(await act(physician, case, "claim"))
    return physician, ok(await act(physician, case, "start"))


async def answered(clinic: Clinic, **changes: Any) -> tuple[Person, dict[str, Any]]:
    physician, case = await in_review(clinic, **changes)
    return physician, ok(await act(physician, case, "answer", ANSWER))


async def issue(who: Person, case: dict[str, Any], **body: Any) -> httpx.Response:
    return await who.http.post(f"/v1/cases/{case['id']}/reports", json=body or None)


async def pdf_of(who: Person, report: dict[str, Any]) -> bytes:
    answer = await who.http.get(f"/v1/reports/{report['id']}/pdf")
    assert answer.status_code == 200
    return answer.content


def words(pdf: bytes) -> str:
    pages = pypdf.PdfReader(io.BytesIO(pdf)).pages
    return re.sub(r"\s+", " ", " ".join(page.extract_text() for page in pages))


def token_in(pdf: bytes) -> str:
    """The token of the verification address printed on a report."""
    printed = words(pdf).replace(" ", "")
    match = re.search(r"/verify/([A-Za-z0-9_-]{32})", printed)
    assert match
    return match[1]


async def test_a_report_says_what_the_case_says(clinic: Clinic, world: World) -> None:
    physician, case = await in_review(clinic, symptoms=["itch", "ring_shape"])
    for endpoint in ("diagnosis", "red-flags", "triage"):
        ok(await physician.http.post(f"/v1/cases/{case['id']}/ai/{endpoint}"))
    (image,) = ok(await physician.http.get(f"/v1/cases/{case['id']}/images"))["items"]
    marks = f"/v1/cases/{case['id']}/images/{image['id']}/annotations"
    shapes: list[tuple[str, dict[str, Any], str]] = [
        ("point", {"x": 0.1, "y": 0.1}, "satellite"),
        ("polyline", {"points": [[0.1, 0.2], [0.3, 0.4]]}, "scratch"),
        ("polygon", {"points": [[0, 0], [0.2, 0], [0.1, 0.5]]}, "notch"),
        ("circle", {"x": 0.5, "y": 0.5, "radius": 0.1}, "core"),
        ("ellipse", {"x": 0.5, "y": 0.5, "radius_x": 0.1, "radius_y": 0.2}, "rim"),
        ("rectangle", {"x": 0.5, "y": 0.5, "width": 0.5, "height": 0.5}, "field"),
    ]
    for shape, geometry, label in shapes:
        ok(await physician.http.post(marks, json={"shape": shape, "geometry": geometry, "label": label}), 201)
    (first, *_) = ok(await physician.http.get(marks))["items"]
    successor = {
        "shape": "point",
        "geometry": {"x": 0, "y": 0},
        "label": "corrected",
        "supersedes": first["id"],
    }
    ok(await physician.http.post(marks, json=successor), 201)
    case = ok(await act(physician, case, "answer", ANSWER))

    response = await issue(physician, case)
    report = ok(response, 201)
    assert report["locale"] == "de"  # the case's own
    pdf = await pdf_of(physician, report)
    assert pdf.startswith(b"%PDF-")
    assert (hashlib.sha256(pdf).hexdigest(), len(pdf)) == (report["sha256"], report["size"])
    said = words(pdf)
    for expected in (
        "Acme",
        "Ada Example",
        "17. Mai 1984",
        case["reference"],
        ANSWER["findings"],
        ANSWER["text"],
        "Behandlung",
        "Dr Grace Example",
        "DE L-1",
        "dermadetect-reference",
        "satellite",
        "corrected",
    ):
        assert expected in said, expected
    assert first["label"] not in said  # superseded
    assert response.headers["Location"] == f"/v1/reports/{report['id']}/pdf"


async def test_an_unchanged_case_has_its_report_already(clinic: Clinic) -> None:
    physician, case = await answered(clinic)
    first = ok(await issue(physician, case), 201)
    assert ok(await issue(clinic.referrer, case), 200) == first
    assert ok(await issue(physician, case, locale="de"), 200) == first
    english = ok(await issue(physician, case, locale="en"), 201)
    assert (english["locale"], english["supersedes"]) == ("en", None)
    assert "In-person" not in words(await pdf_of(physician, english))
    assert "Treatment" in words(await pdf_of(physician, english))


async def test_simultaneous_requests_make_one_report(clinic: Clinic, world: World) -> None:
    physician, case = await answered(clinic)
    answers = await asyncio.gather(*(issue(physician, case) for _ in range(4)))
    statuses = sorted(answer.status_code for answer in answers)
    assert statuses[:2] != [201, 201]
    assert set(statuses) <= {200, 201, 409}
    assert 201 in statuses
    async with world.database.tenant(world.tenant().scope) as session:
        assert await session.scalar(select(func.count()).where(Report.case_id == UUID(case["id"]))) == 1


async def test_a_later_report_supersedes_and_changes_nothing(clinic: Clinic) -> None:
    physician, case = await answered(clinic)
    first = ok(await issue(physician, case), 201)
    before = await pdf_of(physician, first)
    case = ok(await act(clinic.referrer, case, "close"))
    second = ok(await issue(clinic.coordinator, case), 201)
    assert (second["supersedes"], second["case_version"]) == (first["id"], case["version"])
    assert await pdf_of(physician, first) == before
    after = await pdf_of(physician, second)
    assert first["id"] in words(after).replace(" ", "")
    listed = ok(await clinic.referrer.http.get(f"/v1/cases/{case['id']}/reports"))["items"]
    assert [each["id"] for each in listed] == [second["id"], first["id"]]

    for pdf, report, superseded in ((before, first, True), (after, second, False)):
        told = ok(await (await clinic.world.http()).get(f"/verify/{token_in(pdf)}"))
        assert (told["superseded"], told["sha256"]) == (superseded, report["sha256"])


async def test_the_signature_covers_the_pdf_and_the_answer(clinic: Clinic, world: World) -> None:
    physician, case = await answered(clinic)
    report = ok(await issue(physician, case), 201)
    async with world.database.control() as session:
        (public,) = await public_token_keys(session, world.tenant().scope)
    signed = jws.deserialize_compact(report["signature"], ECKey.import_key(public), algorithms=["ES256"])
    assert signed.headers()["typ"] == "dermadetect-report+jws"
    async with world.database.tenant(world.tenant().scope) as session:
        row = await session.get_one(Case, UUID(case["id"]))
    statement = json.loads(signed.payload)
    assert statement.pop("issued_at")
    assert statement == {
        "sha256": report["sha256"],
        "content_sha256": content_sha256(row),
        "case": case["reference"],
        "report": report["id"],
    }
    assert statement["content_sha256"] in words(await pdf_of(physician, report)).replace(" ", "")


async def test_anybody_with_the_code_learns_that_it_is_genuine_and_no_more(
    clinic: Clinic, world: World
) -> None:
    physician, case = await answered(clinic)
    report = ok(await issue(physician, case), 201)
    token = token_in(await pdf_of(physician, report))
    public = await world.http()
    answer = await public.get(f"/verify/{token}")
    assert set(ok(answer)) == {
        "status", "organisation", "issued_at", "superseded", "sha256", "content_sha256"
    }  # fmt: skip
    assert "Accept" in answer.headers["Vary"]
    page = await public.get(f"/verify/{token}", headers={"Accept": "text/html,*/*"})
    assert page.headers["Content-Type"].startswith("text/html")
    assert "This report is genuine" in page.text
    assert report["sha256"] in page.text
    assert "<script" not in page.text
    for told in (answer.text, page.text):
        for secret in ("Ada", case["reference"], case["id"], ANSWER["findings"], "Grace"):
            assert secret not in told

    async with world.database.tenant(world.tenant().scope) as session:
        row = await session.get_one(Report, UUID(report["id"]))
    assert row.verify_hash == hash_token(token)
    other = token[:-1] + ("y" if token.endswith("x") else "x")
    for path in (f"/verify/{other}", "/verify/x", f"/verify/{row.verify_hash}"):
        assert (await public.get(path)).status_code == 404
        assert "no report" in (await public.get(path, headers={"Accept": "text/html"})).text
    # Another tenant's host knows nothing of it.
    assert (await (await world.http("globex.localhost")).get(f"/verify/{token}")).status_code == 404


async def test_a_row_that_was_tampered_with_is_not_genuine(clinic: Clinic, world: World) -> None:
    physician, case = await answered(clinic)
    report = ok(await issue(physician, case), 201)
    token = token_in(await pdf_of(physician, report))
    public = await world.http()
    head, payload, signature = report["signature"].split(".")
    forged = {
        "sha256": {"sha256": "0" * 64},
        "signature": {"signature": f"{head}.{payload}.{signature[::-1]}"},
        "nonsense": {"signature": "nonsense"},
        "payload": {"signature": f"{head}.{payload[:-4]}AAAA.{signature}"},
    }
    for change in forged.values():
        async with world.database.tenant(world.tenant().scope) as session:
            await session.execute(update(Report).where(Report.id == UUID(report["id"])).values(**change))
        assert (await public.get(f"/verify/{token}")).status_code == 404
        async with world.database.tenant(world.tenant().scope) as session:
            values = {"sha256": report["sha256"], "signature": report["signature"]}
            await session.execute(update(Report).where(Report.id == UUID(report["id"])).values(**values))
    assert (await public.get(f"/verify/{token}")).status_code == 200


async def test_a_report_is_read_by_a_link_where_the_tenant_prefers_it(clinic: Clinic, world: World) -> None:
    physician, case = await answered(clinic)
    path = f"/v1/reports/{ok(await issue(physician, case), 201)['id']}/pdf"

    async def prefer(how: str) -> None:
        async with world.admin.control() as session:
            await update_tenant(session, "acme", {"image_links": how})
        await world.parts[Directory].refresh()

    await prefer("signed")
    try:
        answer = await physician.http.get(path)
    finally:
        await prefer("streamed")
    assert answer.status_code == 307
    read = await (await world.http()).get(answer.headers["Location"])
    assert read.content == (await physician.http.get(path)).content
    assert read.headers["Content-Type"] == "application/pdf"
    assert read.headers["Content-Disposition"].startswith("attachment; filename=")


async def test_who_may_issue_and_read_reports(clinic: Clinic, world: World) -> None:
    physician, case = await answered(clinic)
    stranger = await world.person("referrer")
    colleague, _ = await clinic.physician()
    elsewhere = await world.person("coordinator", tenant="globex")
    auditor = await world.person("auditor")
    for who, status in (
        (stranger, 404),
        (colleague, 404),
        (elsewhere, 404),
        (auditor, 403),
        (clinic.admin, 403),
    ):
        assert (await issue(who, case)).status_code == status
    report = ok(await issue(clinic.coordinator, case), 201)
    path = f"/v1/reports/{report['id']}/pdf"
    for who, status in (
        (stranger, 404),
        (colleague, 404),
        (elsewhere, 404),
        (auditor, 403),
        (clinic.admin, 200),
    ):
        assert (await who.http.get(path)).status_code == status
    assert (await stranger.http.get(path)).json()["type"].endswith("report-not-found")
    async with world.database.tenant(world.tenant().scope) as session:
        viewers = await session.scalars(
            select(AuditEvent.actor).where(
                AuditEvent.action == "report.view", AuditEvent.subject == UUID(report["id"])
            )
        )
        assert viewers.all() == [clinic.admin.user_id]
    assert (await physician.http.get(path)).headers["Content-Disposition"].startswith("attachment")
    etag = {"If-None-Match": f'"{report["sha256"]}"'}
    assert (await physician.http.get(path, headers=etag)).status_code == 304
    part = await physician.http.get(path, headers={"Range": "bytes=0-4"})
    assert (part.status_code, part.content) == (206, b"%PDF-")


async def test_there_is_no_report_before_the_answer(clinic: Clinic) -> None:
    physician, case = await in_review(clinic)
    early = await issue(physician, case)
    assert (early.status_code, early.json()["case_status"]) == (409, "in_review")
    assert (await issue(physician, case, locale="it")).status_code == 422


async def test_a_failure_leaves_no_reservation_behind(clinic: Clinic, world: World) -> None:
    physician, case = await answered(clinic)
    (image,) = ok(await physician.http.get(f"/v1/cases/{case['id']}/images"))["items"]
    store = world.parts[BlobStores].at()
    container, name = world.tenant().scope.container, f"cases/{case['id']}/{image['id']}/original"
    photograph = await (await store.open(container, name)).read()
    await store.delete(container, name)
    assert (await issue(physician, case)).status_code == 404
    await store.put(container, name, photograph, content_type="image/jpeg")
    ok(await issue(physician, case), 201)


async def test_verification_is_limited(world: World) -> None:
    await world.create_tenant("scanned")
    public = await world.http("scanned.localhost")
    statuses = [(await public.get("/verify/guess")).status_code for _ in range(31)]
    assert statuses == [404] * 30 + [429]


async def test_a_report_under_way_is_not_made_twice(clinic: Clinic, world: World) -> None:
    physician, case = await answered(clinic)
    reserved = Report(
        case_id=UUID(case["id"]),
        case_version=case["version"],
        locale="de",
        created_by=physician.user_id,
        verify_hash=case["id"],
    )
    async with world.database.tenant(world.tenant().scope) as session:
        session.add(reserved)
    refused = await issue(physician, case)
    assert (refused.status_code, refused.json()["type"][-18:]) == (409, "report-in-progress")
    async with world.database.tenant(world.tenant().scope) as session:
        await session.execute(
            text("UPDATE reports SET created_at = now() - interval '3 minutes' WHERE id = :id"),
            {"id": reserved.id},
        )
    ok(await issue(physician, case), 201)
