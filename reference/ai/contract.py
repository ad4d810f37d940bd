"""The contract as an OpenAPI document, for whoever writes an AI Service: the rules and schemas of `core.ai_contract`,
at the routes of the reference service."""

import inspect
from typing import Any

from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from core import ai_contract
from core.ai_contract import AiContext, AiRequest, input_hash
from reference.ai.app import create_app

VERSION = "1"  # of the contract; a change that an AI Service has to follow makes it another

EXAMPLE = AiRequest(
    request_id="0198c2f1-8a54-7d10-9f3e-5f1c2b7a6d01",
    case_ref="5d41402abc4b2a76b9719d911017c592",
    locale="de",
    context=AiContext(age_years=41, sex="female", fitzpatrick=3, symptoms=["itch"]),
)

_REFUSALS = {
    "401": "The bearer token is missing or wrong.",
    "410": "The request names a `model_version` that this service does not have.",
    "422": "What is no request of this contract, a photograph whose bytes do not have its `sha256`, or an "
    "`Idempotency-Key` that another request had. The gateway takes 400, 413 and 415 alike, and does not ask again.",
    "503": "Not now. The gateway takes 502 and 504 alike, and asks again within its deadline, under the same "
    "`Idempotency-Key`.",
    "default": "A failure. After five in a row the gateway leaves the endpoint alone for ten seconds. Nothing of a "
    "refusal is read but its status.",
}


def openapi() -> dict[str, Any]:
    """The document (OpenAPI 3.1), ready to be written as JSON."""
    document = get_openapi(
        title="The AI Service, as the DermaDetect gateway expects it",
        version=VERSION,
        description=f"{inspect.getdoc(ai_contract)}\n\n"
        f"The `input_hash` of the example request is `{input_hash(EXAMPLE)}`.",
        routes=[
            route
            for route in create_app().routes
            if isinstance(route, APIRoute) and route.path.startswith("/v1/")
        ],
    )
    components = document["components"]
    components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    for unused in ("HTTPValidationError", "ValidationError"):
        del components["schemas"][unused]
    components["schemas"]["AiRequest"]["examples"] = [EXAMPLE.model_dump(mode="json", exclude_defaults=True)]
    for path in document["paths"].values():
        operation = path["post"]
        operation["security"] = [{}, {"token": []}]
        operation["parameters"] = [
            each for each in operation["parameters"] if each["name"] != "authorization"
        ]
        operation["responses"] = {"200": operation["responses"]["200"]} | {
            status: {"description": text} for status, text in _REFUSALS.items()
        }
    return document
