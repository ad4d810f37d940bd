"""The published contract: current, and enough to write an AI Service from."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from core.ai_contract import AiAnswer, AiContext, AiEndpoint, AiImage, AiRequest, input_hash
from reference.ai.contract import EXAMPLE, openapi

PUBLISHED = Path(__file__).parents[2] / "docs" / "ai-service.openapi.json"
DOCUMENT: dict[str, Any] = json.loads(PUBLISHED.read_text())


def test_what_is_published_is_current() -> None:
    assert openapi() == DOCUMENT, "run `make ai-contract`"


def test_it_has_the_five_endpoints_their_refusals_and_the_rules() -> None:
    assert set(DOCUMENT["paths"]) == {f"/v1/{endpoint}" for endpoint in AiEndpoint}
    for path in DOCUMENT["paths"].values():
        operation = path["post"]
        assert set(operation["responses"]) == {"200", "401", "410", "422", "503", "default"}
        assert [each["name"] for each in operation["parameters"]] == ["idempotency-key"]
        assert {"token": []} in operation["security"]
    numbers = re.findall(r"^(\d)\. ", DOCUMENT["info"]["description"], re.M)
    assert numbers == [str(number) for number in range(1, 10)]


def a_strangers_hash(sent: dict[str, Any]) -> str:
    """`input_hash` by somebody who has the published document and no code of ours."""
    schemas = DOCUMENT["components"]["schemas"]

    def without_defaults(members: dict[str, Any], schema: str) -> dict[str, Any]:
        known = schemas[schema]["properties"]
        return {
            name: value
            for name, value in members.items()
            if value is not None and value != known[name].get("default", ...)
        }

    content = {name: value for name, value in sent.items() if name != "request_id"}
    if "context" in content:
        content["context"] = without_defaults(content["context"], "AiContext")
        if content["context"].get("age_years") is not None:
            content["context"]["age_years"] = float(content["context"]["age_years"])
    content["images"] = [
        without_defaults(
            {name: value for name, value in image.items() if name not in ("url", "base64")}, "AiImage"
        )
        for image in content.get("images", [])
    ]
    content = {
        name: value
        for name, value in without_defaults(content, "AiRequest").items()
        if (name, value) != ("context", {})
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    "request_",
    [
        EXAMPLE,
        AiRequest(request_id="1", case_ref="2"),
        AiRequest(request_id="1", case_ref="2", locale="en", context=AiContext(age_years=0.5)),
        AiRequest(
            request_id="1",
            case_ref="fünf",
            model_version="2.4.1",
            images=[
                AiImage(image_id="a", sha256="0" * 64, base64="AAAA", view="close_up"),
                AiImage(image_id="b", sha256="1" * 64, url="https://x.example/b", modality="dermoscopy"),
            ],
            context=AiContext(age_years=41, sex="unknown", symptoms=["itch", "fever"]),
            answers=[
                AiAnswer(link_id="bleeding", value=True),
                AiAnswer(link_id="size", value=2),
                AiAnswer(link_id="depth", value=0.00001),
                AiAnswer(link_id="where", value=["Rücken", "Arm"]),
            ],
        ),
    ],
)
@pytest.mark.parametrize("explicit", [True, False])
def test_a_stranger_can_make_the_hash_from_it(request_: AiRequest, explicit: bool) -> None:
    """Whether or not the request spells its defaults out."""
    wire = request_.model_dump_json(exclude_none=not explicit, exclude_defaults=not explicit)
    assert a_strangers_hash(json.loads(wire)) == input_hash(request_)


def test_the_example_and_its_hash_belong_together() -> None:
    (example,) = DOCUMENT["components"]["schemas"]["AiRequest"]["examples"]
    assert AiRequest.model_validate(example) == EXAMPLE
    assert a_strangers_hash(example) in DOCUMENT["info"]["description"]
