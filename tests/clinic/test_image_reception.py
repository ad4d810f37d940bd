"""Photographs as a body of their own, as part of a form, and hostile bodies: bounded in memory and in time."""

import base64
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from core.settings import Settings
from tests.clinic.journey import NEW_CASE, Clinic, ok, photograph
from tests.fixtures.world import World

JPEG = base64.b64decode(photograph()["data"])
LIMIT: int = Settings.model_fields["max_image_bytes"].default
PIECE = 1_000_000


@pytest.fixture(scope="module")
async def clinic(world: World) -> Clinic:
    return await Clinic.open(world)


@pytest.fixture
async def path(clinic: Clinic) -> str:
    case = ok(await clinic.referrer.http.post("/v1/cases", json=NEW_CASE), 201)
    return f"/v1/cases/{case['id']}/images"


async def send(
    clinic: Clinic, path: str, body: Any, content_type: str | None, query: str = "?view=close_up"
) -> httpx.Response:
    headers = {"Content-Type": content_type} if content_type else {}
    return await clinic.referrer.http.post(path + query, content=body, headers=headers)


async def send_form(
    clinic: Clinic, path: str, file: tuple[Any, ...] | None, fields: dict[str, str]
) -> httpx.Response:
    files = {"file": file} if file else {"another": ("", b"")}
    return await clinic.referrer.http.post(path, data=fields, files=files)


def slug(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["type"].rsplit(":", 1)[1]


async def test_three_ways_lead_to_the_same_image(clinic: Clinic, path: str) -> None:
    raw = await send(clinic, path, JPEG, "image/jpeg", "?view=close_up&body_site=left%20arm")
    image = ok(raw, 201)
    assert raw.headers["Location"] == f"{path}/{image['id']}"
    assert (image["view"], image["body_site"], image["size"]) == ("close_up", "left arm", len(JPEG))
    form = await send_form(clinic, path, ("a.jpg", JPEG, "image/jpeg"), {"view": "close_up"})
    assert ok(form, 200) == image
    assert ok(await clinic.referrer.http.post(path, json=photograph()), 200) == image


async def test_a_form_stores_what_its_fields_say(clinic: Clinic, path: str) -> None:
    form = await send_form(
        clinic, path, ("a.jpg", JPEG, "image/jpeg"), {"view": "dermoscopy", "body_site": " nose "}
    )
    image = ok(form, 201)
    assert (image["view"], image["body_site"]) == ("dermoscopy", "nose")
    whole = await clinic.referrer.http.get(f"{path}/{image['id']}/content?variant=original")
    assert whole.content == JPEG


@pytest.mark.parametrize(
    ("content_type", "query", "status", "name"),
    [
        ("image/png", "?view=close_up", 415, "image-type-mismatch"),
        ("image/gif", "?view=close_up", 415, "image-type-unsupported"),
        ("application/octet-stream", "?view=close_up", 415, "image-type-unsupported"),
        (None, "?view=close_up", 415, "image-type-unsupported"),
        ("image/jpeg", "", 422, "invalid"),
        ("image/jpeg", "?view=selfie", 422, "invalid"),
        ("image/jpeg", "?view=close_up&body_site=%00", 422, "invalid"),
    ],
)
async def test_a_raw_body_that_is_not_as_declared_is_refused(
    clinic: Clinic, path: str, content_type: str | None, query: str, status: int, name: str
) -> None:
    assert slug(await send(clinic, path, JPEG, content_type, query)) == (status, name)


@pytest.mark.parametrize(
    ("file", "fields", "status", "name"),
    [
        (("a.png", JPEG, "image/png"), {"view": "close_up"}, 415, "image-type-mismatch"),
        (("a.gif", JPEG, "image/gif"), {"view": "close_up"}, 415, "image-type-unsupported"),
        (("a.jpg", b"", "image/jpeg"), {"view": "close_up"}, 422, "image-empty"),
        (("a.jpg", JPEG, "image/jpeg"), {}, 422, "invalid"),
        (("a.jpg", JPEG, "image/jpeg"), {"view": "selfie"}, 422, "invalid"),
        (("a.jpg", JPEG, "image/jpeg"), {"view": "close_up", "surprise": "1"}, 422, "invalid"),
        (None, {"view": "close_up", "file": "text"}, 422, "invalid"),
        (None, {"view": "close_up"}, 422, "invalid"),
        (("a.jpg", JPEG, "image/jpeg"), {"view": "close_up", "body_site": "x" * 70_000}, 400, "bad-request"),
        (("a.jpg", JPEG, "image/jpeg"), {f"f{n}": "1" for n in range(9)}, 400, "bad-request"),
    ],
)
async def test_a_form_that_is_not_as_it_should_be_is_refused(
    clinic: Clinic, path: str, file: Any, fields: dict[str, str], status: int, name: str
) -> None:
    assert slug(await send_form(clinic, path, file, fields)) == (status, name)


FORM_START = (
    b'--x\r\nContent-Disposition: form-data; name="view"\r\n\r\nclose_up\r\n--x\r\n'
    b'Content-Disposition: form-data; name="file"; filename="a.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
)


@pytest.mark.parametrize(
    ("body", "content_type", "status", "name"),
    [
        (b"nonsense", "multipart/form-data; boundary=x", 400, "bad-request"),
        (FORM_START + JPEG + b"\r\n--x--\r\n", "multipart/form-data", 400, "bad-request"),
        (FORM_START + JPEG[:100], "multipart/form-data; boundary=x", 422, "invalid"),
        (b"", "multipart/form-data; boundary=x", 422, "invalid"),
    ],
    ids=["no form", "no boundary", "breaks off", "empty"],
)
async def test_a_form_that_cannot_be_read_is_refused(
    clinic: Clinic, path: str, body: bytes, content_type: str, status: int, name: str
) -> None:
    assert slug(await send(clinic, path, body, content_type)) == (status, name)


@pytest.mark.parametrize(
    ("content_type", "start"),
    [("image/jpeg", b"\xff\xd8\xff"), ("multipart/form-data; boundary=x", FORM_START)],
)
async def test_no_more_is_taken_than_the_limit(
    clinic: Clinic, path: str, content_type: str, start: bytes
) -> None:
    taken = 0

    async def three_times_the_limit() -> AsyncIterator[bytes]:
        nonlocal taken
        yield start
        while taken < 3 * LIMIT:
            taken += PIECE
            yield bytes(PIECE)

    assert slug(await send(clinic, path, three_times_the_limit(), content_type)) == (413, "image-too-large")
    assert LIMIT - PIECE <= taken <= LIMIT + 2 * PIECE


async def test_what_is_announced_as_too_long_is_not_read(clinic: Clinic, path: str) -> None:
    taken = 0

    async def announced() -> AsyncIterator[bytes]:
        nonlocal taken
        while taken < LIMIT:
            taken += PIECE
            yield bytes(PIECE)

    headers = {"Content-Type": "image/jpeg", "Content-Length": str(LIMIT + 1)}
    answer = await clinic.referrer.http.post(f"{path}?view=close_up", content=announced(), headers=headers)
    assert slug(answer) == (413, "image-too-large")
    assert taken <= PIECE  # the test's client sends the first part unasked


async def test_a_form_whose_file_alone_is_too_long_is_refused(clinic: Clinic, path: str) -> None:
    answer = await send_form(clinic, path, ("a.jpg", bytes(LIMIT + 1), "image/jpeg"), {"view": "close_up"})
    assert slug(answer) == (413, "image-too-large")


@pytest.mark.parametrize(
    ("body", "refusal"),
    [
        (b"[" * 25_000_000, (413, "too-large")),
        (b'{"data":' + b"[" * 25_000_000, (413, "too-large")),
        (b'{"a":' * 5_000_000, (413, "too-large")),
        (b"[" * 10_000, (422, "invalid")),
        (b'{"data": [' + b"[]," * 8_000_000 + b"1]}", (413, "too-large")),
        (b'{"data": [' + b"1," * 12_000_000 + b"1]}", (413, "too-large")),
        (
            b'{"data": "' + b"\\u0041" * 4_500_000 + b'", "media_type": "image/gif", "view": "close_up"}',
            (422, "invalid"),
        ),
    ],
    ids=["nested", "nested in a member", "objects", "short", "wide", "numbers", "escapes"],
)
async def test_json_that_is_costly_to_parse_is_refused_quickly(
    clinic: Clinic, path: str, body: bytes, refusal: tuple[int, str]
) -> None:
    started = time.perf_counter()
    assert slug(await send(clinic, path, body, "application/json")) == refusal
    assert time.perf_counter() - started < 2


async def test_the_description_names_every_way(world: World) -> None:
    upload = world.app.openapi()["paths"]["/v1/cases/{case_id}/images"]["post"]
    assert set(upload["requestBody"]["content"]) == {
        "application/json",
        "image/jpeg",
        "image/png",
        "multipart/form-data",
    }
    assert {"view", "body_site"} <= {parameter["name"] for parameter in upload["parameters"]}
