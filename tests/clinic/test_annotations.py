"""Marks on photographs: who may make them, what shapes there are, and that none is ever edited."""

import asyncio
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import text

from core.ids import new_id
from tests.clinic.journey import ANSWER, Clinic, act, ok
from tests.fixtures.world import Person, World

SHAPES: dict[str, dict[str, Any]] = {
    "point": {"x": 0, "y": 1},
    "polyline": {"points": [[0, 0], [0.5, 1]]},
    "polygon": {"points": [[0, 0], [1, 0], [0.5, 0.5]]},
    "circle": {"x": 0.5, "y": 0.5, "radius": 0.25},
    "ellipse": {"x": 0.5, "y": 0.5, "radius_x": 0.1, "radius_y": 0.2},
    "rectangle": {"x": 0.7, "y": 0.2, "width": 0.3, "height": 0.1},
}


@dataclass
class Review:
    """A case in review by `physician`, and where its photograph's annotations are."""

    clinic: Clinic
    physician: Person
    case: dict[str, Any]
    path: str

    async def mark(self, shape: str = "point", who: Person | None = None, **changes: Any) -> httpx.Response:
        body = {"shape": shape, "geometry": SHAPES[shape], "label": "border"} | changes
        return await (who or self.physician).http.post(self.path, json=body)


@pytest.fixture(scope="module")
async def clinic(world: World) -> Clinic:
    return await Clinic.open(world)


@pytest.fixture
async def review(clinic: Clinic) -> Review:
    physician, _ = await clinic.physician()
    case = await clinic.queued()
    case = ok(await act(physician, case, "claim"))
    case = ok(await act(physician, case, "start"))
    (image,) = ok(await physician.http.get(f"/v1/cases/{case['id']}/images"))["items"]
    return Review(clinic, physician, case, f"/v1/cases/{case['id']}/images/{image['id']}/annotations")


async def test_every_shape_is_kept_as_it_was_sent(review: Review) -> None:
    for shape, geometry in SHAPES.items():
        made = ok(await review.mark(shape, text="Notched."), 201)
        assert (made["shape"], made["geometry"], made["source"]) == (shape, geometry, "human")
        assert (made["author"], made["text"]) == (str(review.physician.user_id), "Notched.")
    seen = ok(await review.clinic.referrer.http.get(review.path))["items"]
    assert [each["shape"] for each in seen] == list(reversed(SHAPES))
    page = ok(await review.physician.http.get(f"{review.path}?limit=4"))
    rest = ok(await review.physician.http.get(f"{review.path}?limit=4&cursor={page['next_cursor']}"))
    assert page["items"] + rest["items"] == seen


@pytest.mark.parametrize(
    ("shape", "geometry"),
    [
        ("point", {"x": 1.01, "y": 0}),
        ("point", {"x": 0.5}),
        ("point", {"x": -0.01, "y": 0}),
        ("point", {"x": "NaN", "y": 0}),
        ("point", {"x": 0.5, "y": 0.5, "z": 0.5}),
        ("polyline", {"points": [[0, 0]]}),
        ("polygon", {"points": [[0, 0], [1, 1]]}),
        ("polygon", {"points": [[0, 0], [1, 1], [0.5, 1.5]]}),
        ("polygon", {"points": [[0, 0]] * 501}),
        ("circle", {"x": 0.5, "y": 0.5, "radius": 0}),
        ("ellipse", {"x": 0.5, "y": 0.5, "radius_x": 0.1}),
        ("rectangle", {"x": 0.8, "y": 0.1, "width": 0.3, "height": 0.1}),
        ("rectangle", SHAPES["circle"]),
    ],
)
async def test_what_does_not_lie_on_the_picture_is_refused(
    review: Review, shape: str, geometry: dict[str, Any]
) -> None:
    assert (await review.mark(shape, geometry=geometry)).status_code == 422
    assert ok(await review.physician.http.get(review.path))["items"] == []


async def test_only_the_reviewing_physician_marks(review: Review, world: World) -> None:
    colleague, _ = await review.clinic.physician()
    assert (await review.mark(who=colleague)).status_code == 404
    assert (await review.mark(who=review.clinic.referrer)).status_code == 403
    both = await world.person("physician", "coordinator")
    refused = await review.mark(who=both)
    assert (refused.status_code, refused.json()["type"][-13:]) == (403, "not-your-part")
    elsewhere = await world.person("physician", tenant="globex")
    assert (await review.mark(who=elsewhere)).status_code == 404
    assert (await elsewhere.http.get(review.path)).status_code == 404
    unknown = await review.physician.http.post(
        f"/v1/cases/{review.case['id']}/images/{new_id()}/annotations",
        json={"shape": "point", "geometry": SHAPES["point"], "label": "x"},
    )
    assert unknown.json()["type"].endswith("image-not-found")


async def test_marks_are_made_during_the_review_alone(review: Review) -> None:
    ok(await review.mark(), 201)
    ok(await act(review.physician, review.case, "answer", ANSWER))
    late = await review.mark()
    assert (late.status_code, late.json()["case_status"]) == (409, "answered")
    assert len(ok(await review.physician.http.get(review.path))["items"]) == 1


async def test_an_annotation_has_one_successor(review: Review) -> None:
    first = ok(await review.mark(), 201)
    world = review.clinic.world
    hold = text("SELECT id FROM cases WHERE id = :id FOR UPDATE")
    async with world.database.tenant(world.tenant().scope) as session:
        await session.execute(hold, {"id": UUID(review.case["id"])})
        marks = [asyncio.create_task(review.mark("circle", supersedes=first["id"])) for _ in range(4)]
        await asyncio.sleep(0.2)  # until all of them wait for the case
    answers = await asyncio.gather(*marks)
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]
    successor = next(answer.json() for answer in answers if answer.status_code == 201)
    refused = next(answer.json() for answer in answers if answer.status_code == 409)
    assert refused["superseded_by"] == successor["id"]

    whole = ok(await review.physician.http.get(review.path))["items"]
    assert [(each["id"], each["superseded_by"]) for each in whole] == [
        (successor["id"], None),
        (first["id"], successor["id"]),
    ]
    current = ok(await review.physician.http.get(f"{review.path}?current=true"))["items"]
    assert [each["id"] for each in current] == [successor["id"]]
    ok(await review.mark(supersedes=successor["id"]), 201)
    assert (await review.mark(supersedes=str(new_id()))).status_code == 404


async def test_an_idempotency_key_makes_one_mark(review: Review) -> None:
    body = {"shape": "point", "geometry": SHAPES["point"], "label": "border"}
    headers = {"Idempotency-Key": str(new_id())}
    first = ok(await review.physician.http.post(review.path, json=body, headers=headers), 201)
    assert ok(await review.physician.http.post(review.path, json=body, headers=headers), 201) == first
    other = await review.physician.http.post(review.path, json=body | {"label": "centre"}, headers=headers)
    assert other.json()["type"].endswith("idempotency-key-reused")
