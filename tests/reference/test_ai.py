"""The reference AI service over real HTTP, and the contract it shares with the gateway."""

import base64
import hashlib
import http.server
import io
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from PIL import Image, ImageChops, ImageFilter
from pydantic import ValidationError

from core.ai_contract import (
    MAX_IMAGES,
    MAX_REQUEST_BYTES,
    RESPONSES,
    AiEndpoint,
    AiRequest,
    TriageResponse,
    input_hash,
)
from reference.ai.app import KEYS_REMEMBERED, NOTICE, Answers, answer_request, create_app
from reference.ai.diagnosis import CONDITIONS
from reference.ai.facts import FINDINGS
from reference.ai.faults import Faults
from reference.ai.next_question import ASKED
from reference.ai.red_flags import RULES, SEVEN_POINTS


@contextmanager
def running(app: FastAPI, **headers: str) -> Iterator[httpx.Client]:
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", lifespan="off", ws="none"))
    thread = threading.Thread(target=server.run)
    thread.start()
    deadline = time.monotonic() + 10
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.01)
    try:
        port = server.servers[0].sockets[0].getsockname()[1]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, trust_env=False) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def service() -> Iterator[httpx.Client]:
    with running(create_app()) as client:
        yield client


@pytest.fixture
def faulty(service: httpx.Client) -> Iterator[Callable[..., httpx.Client]]:
    def switch(**faults: Any) -> httpx.Client:
        assert service.put("/faults", json=faults).status_code == 200
        return service

    yield switch
    service.put("/faults", json={})


def ask(client: httpx.Client, endpoint: str, *, headers: dict[str, str] | None = None, **request: Any) -> Any:
    """The answer as JSON, after it has passed the contract."""
    response = client.post(f"/v1/{endpoint}", json=payload(**request), headers=headers)
    assert response.status_code == 200, response.text
    RESPONSES[AiEndpoint(endpoint)].model_validate_json(response.content)
    return response.json()


def payload(*symptoms: str, **members: Any) -> dict[str, Any]:
    symptoms = members.pop("symptoms", symptoms)
    return {"request_id": "r1", "case_ref": "c1", "context": {"symptoms": list(symptoms)}} | members


def denied(*codes: str) -> list[dict[str, Any]]:
    return [{"link_id": code, "value": False} for code in codes]


def photograph(
    size: tuple[int, int] = (1280, 960), tone: tuple[int, int, int] = (200, 150, 120)
) -> Image.Image:
    """A plain skin tone under fine, seeded texture."""
    grain = Image.frombytes("L", size, random.Random(7).randbytes(size[0] * size[1]))
    grain = grain.point([int((v - 128) * 0.2) + 128 for v in range(256)])
    return ImageChops.add(Image.new("RGB", size, tone), Image.merge("RGB", [grain] * 3), offset=-128)


def jpeg(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=92)
    return stream.getvalue()


def attached(data: bytes, **members: Any) -> dict[str, Any]:
    digest = hashlib.sha256(data).hexdigest()
    return {"image_id": "i1", "sha256": digest, "base64": base64.b64encode(data).decode()} | members


def judged(client: httpx.Client, image: Image.Image) -> tuple[float, dict[str, str], bool]:
    [verdict] = ask(client, "image-validity", images=[attached(jpeg(image))])["images"]
    return (
        verdict["score"],
        {issue["code"]: issue["severity"] for issue in verdict["issues"]},
        verdict["valid"],
    )


# --- the contract ---


def test_an_image_has_exactly_one_source() -> None:
    image = {"image_id": "i1", "sha256": "0" * 64}
    for wrong in (image, image | {"url": "https://a/b", "base64": "AAAA"}):
        with pytest.raises(ValidationError, match="exactly one"):
            AiRequest.model_validate(payload(images=[wrong]))


@pytest.mark.parametrize(
    "wrong",
    [
        {"surprise": 1},
        {"images": [attached(b"xxx")] * (MAX_IMAGES + 1)},
        {"context": {"age_years": float("nan")}},
        {"context": {"fitzpatrick": 7}},
        {"context": {"symptoms": ["x" * 129]}},
        {"answers": [{"link_id": "fever", "value": 1e300}]},
        {"locale": "en\n"},
    ],
)
def test_a_request_out_of_bounds_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        AiRequest.model_validate(payload(**wrong))


def test_the_input_hash_is_of_what_determines_the_answer() -> None:
    data = b"bytes"
    sent = AiRequest.model_validate(payload("itch", images=[attached(data)]))
    again = AiRequest.model_validate_json(sent.model_dump_json())
    by_url = attached(data, url="https://blobs.example/x")
    del by_url["base64"]
    same = AiRequest.model_validate(payload("itch", images=[by_url], request_id="r2", locale="en"))
    assert input_hash(sent) == input_hash(again) == input_hash(same)
    others = [
        payload("itch", images=[attached(b"other")]),
        payload("fever", images=[attached(data)]),
        payload("itch", images=[attached(data)], answers=denied("fever")),
        payload("itch", images=[attached(data)], model_version="1.0.0"),
    ]
    hashes = {input_hash(AiRequest.model_validate(other)) for other in others}
    assert len(hashes | {input_hash(sent)}) == 5


def test_a_response_may_grow_but_not_contradict_itself() -> None:
    envelope = {
        "request_id": "r",
        "model": {"name": "m", "version": "1"},
        "input_hash": "0" * 64,
        "latency_ms": 1,
    }
    grown = TriageResponse.model_validate(envelope | {"level": "soon", "target_hours": 9, "new_member": True})
    assert not hasattr(grown, "new_member")
    for wrong in (
        {"level": None, "target_hours": None},
        {"level": "soon", "target_hours": 9, "abstained": True},
    ):
        with pytest.raises(ValidationError):
            TriageResponse.model_validate(envelope | wrong)


# --- the tables ---


def test_the_tables_speak_the_vocabulary_and_cite_a_source() -> None:
    used = set(SEVEN_POINTS).union(*ASKED.values())
    for rule in RULES:
        used |= frozenset().union(*rule.groups)
        assert rule.source
    for condition in CONDITIONS:
        used |= frozenset().union(*condition.needs) | condition.weights.keys()
        assert condition.source
        assert frozenset().union(*condition.needs) & condition.weights.keys()
    assert used | {"other_problem", "single_spot"} == set(FINDINGS)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)
def test_each_danger_sign_fires_and_is_excluded(service: httpx.Client, rule: Any) -> None:
    def state(*symptoms: str, **request: Any) -> str:
        flags = ask(service, "red-flags", symptoms=symptoms, **request)["flags"]
        return str(next(flag["present"] for flag in flags if flag["code"] == rule.code))

    stated = [min(group) for group in rule.groups]
    assert state(*stated) == "yes"
    assert state("dry_skin") == "unknown"
    for number, group in enumerate(rule.groups):
        others = [
            min(other) for other in rule.groups[:number] + rule.groups[number + 1 :] if not other & group
        ]
        assert state(*(set(others) - group), answers=denied(*group)) == "no"


def test_the_seven_point_checklist_counts(service: httpx.Client) -> None:
    def state(*symptoms: str, **request: Any) -> str:
        return str(ask(service, "red-flags", symptoms=symptoms, **request)["flags"][-1]["present"])

    assert state("change_in_size", "diameter_7mm") == "yes"
    assert state("change_in_size") == "unknown"
    assert state("change_in_size", answers=denied(*SEVEN_POINTS.keys() - {"change_in_size"})) == "no"


def test_emergency_is_said_only_in_an_emergency(service: httpx.Client) -> None:
    assert ask(service, "red-flags", symptoms=["non_blanching_rash", "fever"])["emergency"]
    assert not ask(service, "red-flags", symptoms=["widespread_redness"])["emergency"]


@pytest.mark.parametrize(
    ("symptoms", "level", "hours"),
    [
        (["non_blanching_rash", "fever"], "emergency", 1),
        (["non_blanching_rash"], "urgent", 24),  # raised, not excluded
        (["widespread_redness", "change_in_size", "irregular_colour"], "urgent", 24),  # the gravest decides
        (["non_blanching_rash", "change_in_size", "irregular_colour"], "urgent", 24),
        (["change_in_size", "irregular_colour"], "soon", 336),
        (["itch"], "routine", 3024),
    ],
)
def test_triage_follows_the_gravest_sign(
    service: httpx.Client, symptoms: list[str], level: str, hours: float
) -> None:
    answer = ask(service, "triage", symptoms=symptoms)
    assert (answer["level"], answer["target_hours"]) == (level, hours)
    assert answer["reasons"]


def test_an_excluded_emergency_no_longer_raises(service: httpx.Client) -> None:
    excluded = denied("fever", "very_unwell", "confusion", "stiff_neck", "light_hurts_eyes")
    assert ask(service, "triage", symptoms=["non_blanching_rash"], answers=excluded)["level"] == "routine"


def test_an_infant_with_fever_is_an_emergency(service: httpx.Client) -> None:
    levels = [
        ask(service, "triage", context={"age_years": age, "symptoms": ["fever"]})["level"]
        for age in (0.1, 30)
    ]
    assert levels == ["emergency", "routine"]


@pytest.mark.parametrize("condition", CONDITIONS, ids=lambda condition: condition.label)
def test_each_condition_is_proposed_and_not_proposed(service: httpx.Client, condition: Any) -> None:
    def labels(symptoms: list[str]) -> list[str]:
        answer = ask(service, "diagnosis", symptoms=symptoms)
        assert answer["calibrated"] is False
        assert sum(line["probability"] for line in answer["differential"]) < 1
        return [line["label"] for line in answer["differential"]]

    speaking_for = [code for code, weight in condition.weights.items() if weight > 0]
    needed = [min(group) for group in condition.needs]
    assert condition.label in labels([*needed, *speaking_for])
    lead = condition.needs[0]
    assert condition.label not in labels(sorted({*needed, *speaking_for} - lead))


def test_more_evidence_ranks_higher(service: httpx.Client) -> None:
    answer = ask(service, "diagnosis", symptoms=["scaly_plaques", "silvery_scale", "extensor_sites", "weals"])
    assert [line["label"] for line in answer["differential"]] == ["Plaque psoriasis", "Urticaria"]
    assert [line["rank"] for line in answer["differential"]] == [1, 2]
    assert answer["differential"][0]["codes"][0]["code"] == "L40.0"


@pytest.mark.parametrize("endpoint", ["diagnosis", "red-flags", "triage", "image-validity"])
def test_it_abstains_where_nothing_supports_an_answer(service: httpx.Client, endpoint: str) -> None:
    answer = ask(service, endpoint, context={"age_years": 40, "symptoms": ["rash"]})
    assert answer["abstained"]
    assert answer["abstain_reason"]


def test_questions_follow_what_is_open_and_come_to_an_end(service: httpx.Client) -> None:
    first = ask(service, "next-question")
    assert first["questions"][0]["link_id"] == "complaint"
    assert [option["value"] for option in first["questions"][0]["options"]] == [
        "single_spot",
        "rash",
        "other_problem",
    ]

    follow_up = ask(service, "next-question", symptoms=["rash", "blisters"])
    assert follow_up["questions"][0]["link_id"] in {"mucosal_sores", "skin_pain"}
    assert "Stevens-Johnson" in follow_up["questions"][0]["reason"]
    assert follow_up["questions"][0]["required"]

    answers: list[dict[str, Any]] = [{"link_id": "complaint", "value": "rash"}]
    progress = [0.0]
    for _ in range(40):
        answer = ask(service, "next-question", answers=answers)
        assert answer["progress"] > progress[-1]
        progress.append(answer["progress"])
        if answer["status"] == "completed":
            break
        answers += denied(*(question["link_id"] for question in answer["questions"]))
    assert answer["status"] == "completed"
    assert answer["questions"] == []
    assert {row["link_id"] for row in answers} == {"complaint", *ASKED["rash"]}


def test_unknown_codes_are_ignored_with_a_warning(service: httpx.Client) -> None:
    plain = ask(service, "triage", symptoms=["itch"])
    strange = ask(service, "triage", symptoms=["itch", "glowing_in_the_dark"])
    assert strange["reasons"] == plain["reasons"]
    assert any("glowing_in_the_dark" in warning for warning in strange["warnings"])
    assert not any("not know" in warning for warning in plain["warnings"])


# --- photographs ---


def falling(scores: list[float]) -> bool:
    return scores == sorted(scores, reverse=True) and scores[0] > 0.9 and scores[-1] < 0.1


def test_a_good_photograph_is_valid_in_every_skin_tone(service: httpx.Client) -> None:
    for tone in ((240, 205, 180), (200, 150, 120), (120, 80, 60), (70, 46, 34)):
        score, issues, valid = judged(service, photograph(tone=tone))
        assert (issues, valid) == ({}, True), tone
        assert score > 0.9


def test_blur_lowers_the_score_until_the_image_is_invalid(service: httpx.Client) -> None:
    verdicts = [judged(service, photograph().filter(ImageFilter.GaussianBlur(r))) for r in (0, 1, 2, 4, 8)]
    assert falling([score for score, _, _ in verdicts])
    assert verdicts[-1][1:] == ({"blur": "error"}, False)


def test_dim_light_is_not_taken_for_blur(service: httpx.Client) -> None:
    soft = photograph().filter(ImageFilter.GaussianBlur(0.9))
    dim = soft.point([v * 2 // 5 for v in range(256)] * 3)
    assert "blur" not in judged(service, soft)[1]
    assert "blur" not in judged(service, dim)[1]


def test_exposure_lowers_the_score_both_ways(service: httpx.Client) -> None:
    for factors, code in (((1, 0.17, 0.14, 0.05), "underexposed"), ((1, 1.6, 1.75, 3), "overexposed")):
        images = [
            photograph().point([min(255, int(v * factor)) for v in range(256)] * 3) for factor in factors
        ]
        verdicts = [judged(service, image) for image in images]
        assert falling([score for score, _, _ in verdicts]), code
        assert verdicts[0][1:] == ({}, True)
        assert verdicts[-1][1][code] == "error"


def test_size_lowers_the_score(service: httpx.Client) -> None:
    sizes = ((1280, 960), (1024, 768), (800, 600), (640, 480), (320, 240), (80, 60))
    verdicts = [judged(service, photograph(size)) for size in sizes]
    assert falling([score for score, _, _ in verdicts])
    assert [v[1].get("low_resolution") for v in verdicts] == [None, None, None, "warning", "error", "error"]


def test_glare_and_foreign_colours_warn_but_do_not_refuse(service: httpx.Client) -> None:
    shining = photograph()
    shining.paste((255, 255, 255), (500, 400, 800, 600))
    assert judged(service, shining)[1:] == ({"glare": "warning"}, True)
    assert judged(service, photograph(tone=(90, 150, 90)))[1:] == ({"not_skin": "warning"}, True)


def test_bytes_must_match_their_hash(service: httpx.Client) -> None:
    wrong = attached(jpeg(photograph()), sha256="0" * 64)
    for endpoint in AiEndpoint:
        response = service.post(f"/v1/{endpoint}", json=payload(images=[wrong]))
        assert (response.status_code, response.headers["content-type"]) == (422, "application/problem+json")
        assert "sha256" in response.json()["detail"]


def test_what_is_no_image_is_refused(service: httpx.Client) -> None:
    header_only = io.BytesIO()
    Image.new("1", (12_000, 12_000)).save(header_only, "PNG")
    for data, status in (
        (b"not an image", 422),
        (jpeg(photograph())[:5_000], 422),
        (header_only.getvalue(), 413),
    ):
        assert service.post("/v1/image-validity", json=payload(images=[attached(data)])).status_code == status
    assert (
        service.post("/v1/image-validity", json=payload(images=[attached(b"xxx", base64="*!*!")])).status_code
        == 422
    )


def test_an_image_by_url_is_fetched_from_known_hosts_only(service: httpx.Client) -> None:
    data = jpeg(photograph())

    class Blob(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None: ...

    def by_url(url: str) -> httpx.Response:
        image = {"image_id": "i1", "sha256": hashlib.sha256(data).hexdigest(), "url": url}
        return service.post("/v1/image-validity", json=payload(images=[image]))

    with http.server.HTTPServer(("127.0.0.1", 0), Blob) as blobs:
        thread = threading.Thread(target=blobs.serve_forever)
        thread.start()
        try:
            fetched = by_url(f"http://127.0.0.1:{blobs.server_port}/x")
        finally:
            blobs.shutdown()
            thread.join()
    assert fetched.json()["images"][0]["valid"]
    foreign = by_url("http://169.254.169.254/metadata")
    assert (foreign.status_code, "host" in foreign.json()["detail"]) == (422, True)


# --- the server ---


def test_it_says_what_it_is(service: httpx.Client) -> None:
    answer = ask(service, "triage", symptoms=["itch"])
    assert answer["warnings"][0] == NOTICE
    assert "not-a-medical-device" in answer["model"]["name"]
    document = service.get("/openapi.json").json()
    assert "not a medical device" in document["info"]["title"]
    assert all(f"`{code}`" in document["info"]["description"] for code in FINDINGS)
    assert {f"/v1/{endpoint}" for endpoint in AiEndpoint} | {"/healthy", "/faults"} == document[
        "paths"
    ].keys()
    assert service.get("/healthy").json()["status"] == "ok"


@pytest.mark.parametrize("endpoint", list(AiEndpoint))
def test_the_same_input_has_the_same_answer(service: httpx.Client, endpoint: str) -> None:
    request: dict[str, Any] = {
        "symptoms": ["rash", "weals", "itch"],
        "images": [attached(jpeg(photograph((900, 700))))],
    }
    first, second = (ask(service, endpoint, request_id=rid, **request) for rid in ("r1", "r2"))
    assert (first.pop("request_id"), second.pop("request_id")) == ("r1", "r2")
    for answer in (first, second):
        answer.pop("latency_ms")
    assert first == second
    assert first["input_hash"] == input_hash(
        AiRequest.model_validate(payload(*request["symptoms"], images=request["images"]))
    )


def test_a_pinned_version_must_exist(service: httpx.Client) -> None:
    assert ask(service, "triage", symptoms=["itch"], model_version="1.0.0")
    assert service.post("/v1/triage", json=payload("itch", model_version="9")).status_code == 410


def test_an_idempotency_key_repeats_the_first_answer(service: httpx.Client) -> None:
    key = {"Idempotency-Key": "k1"}
    first = ask(service, "triage", symptoms=["itch"], headers=key)
    assert ask(service, "triage", symptoms=["itch"], request_id="r2", headers=key) == first
    assert ask(service, "triage", symptoms=["itch"], request_id="r2")["request_id"] == "r2"
    assert service.post("/v1/triage", json=payload("fever"), headers=key).status_code == 422
    assert service.post("/v1/diagnosis", json=payload("itch"), headers=key).status_code == 422


def test_remembered_answers_are_bounded() -> None:
    answers = Answers(2)
    for key in ("a", "b", "c"):
        request = AiRequest.model_validate(payload("itch"))
        answers.keep(
            key, ("triage", key), answer_request(AiEndpoint.TRIAGE, request, [], input_hash(request))
        )
    assert [answers.find(key, ("triage", key)) is None for key in ("a", "b", "c")] == [True, False, False]
    assert KEYS_REMEMBERED <= 10_000


def test_a_token_is_needed_where_one_is_set() -> None:
    app = create_app(token="open-sesame")
    with running(app) as client:
        for header in (None, "Bearer wrong", "open-sesame"):
            headers = {"Authorization": header} if header else {}
            refused = client.post("/v1/triage", json=payload("itch"), headers=headers)
            assert (refused.status_code, refused.headers["www-authenticate"][:6]) == (401, "Bearer")
            assert client.put("/faults", json={}, headers=headers).status_code == 401
        assert ask(client, "triage", symptoms=["itch"], headers={"Authorization": "Bearer open-sesame"})
        assert client.get("/healthy").status_code == 200


def test_a_refusal_repeats_nothing_of_the_request(service: httpx.Client) -> None:
    response = service.post("/v1/triage", json=payload("itch", case_ref=["private matter"]))
    assert response.status_code == 422
    assert response.json()["errors"] == [{"field": "body.case_ref", "problem": "string_type"}]
    assert "private" not in response.text


def test_a_request_too_large_is_refused(service: httpx.Client) -> None:
    headers = {"Content-Type": "application/json"}
    response = service.post("/v1/triage", content=b" " * (MAX_REQUEST_BYTES + 1), headers=headers)
    assert response.status_code == 413


# --- faults ---


def test_delay(faulty: Callable[..., httpx.Client]) -> None:
    client = faulty(delay_s=1)
    started = time.monotonic()
    ask(client, "triage", symptoms=["itch"])
    assert time.monotonic() - started >= 1
    started = time.monotonic()
    client.get("/healthy")
    assert time.monotonic() - started < 1


def test_status_for_a_number_of_requests_on_one_endpoint(faulty: Callable[..., httpx.Client]) -> None:
    client = faulty(status=503, times=2, endpoint="triage")
    assert ask(client, "diagnosis", symptoms=["weals"])
    large = payload("itch", images=[attached(jpeg(photograph()))])
    statuses = [client.post("/v1/triage", json=large).status_code for _ in range(3)]
    assert statuses == [503, 503, 200]


def test_cut_off(faulty: Callable[..., httpx.Client]) -> None:
    client = faulty(cut_off=True, times=1)
    with pytest.raises(httpx.RemoteProtocolError):
        client.post("/v1/triage", json=payload("itch"))
    assert ask(client, "triage", symptoms=["itch"])


def test_broken_answers(faulty: Callable[..., httpx.Client]) -> None:
    response = faulty(broken_schema=True).post("/v1/triage", json=payload("itch"))
    assert response.status_code == 200
    with pytest.raises(ValidationError):
        TriageResponse.model_validate_json(response.content)
    response = faulty(wrong_content_type=True).post("/v1/triage", json=payload("itch"))
    assert (response.status_code, response.headers["content-type"]) == (200, "text/html")
    assert len(faulty(huge_bytes=3_000_001).post("/v1/triage", json=payload("itch")).content) == 3_000_001


def test_faults_can_be_set_from_the_start_and_are_checked() -> None:
    with running(create_app(Faults(status=502))) as client:
        assert client.post("/v1/triage", json=payload("itch")).status_code == 502
        for wrong in ({"status": 200}, {"delay_s": -1}, {"explode": True}):
            assert client.put("/faults", json=wrong).status_code == 422
        assert client.put("/faults", json={}).json()["status"] is None
        assert ask(client, "triage", symptoms=["itch"])
