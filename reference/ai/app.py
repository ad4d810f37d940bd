"""The reference AI service as an ASGI application.

`create_app` needs no configuration, keeps no data and connects to nothing when made:
`uvicorn.run(create_app(), host="127.0.0.1", port=8900)`.
"""

import asyncio
import hmac
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response

from core.ai_contract import (
    MAX_REQUEST_BYTES,
    RESPONSES,
    AiEndpoint,
    AiModel,
    AiRequest,
    AiResponse,
    input_hash,
)
from core.problems import MEDIA_TYPE, Invalid, Problem, Unauthenticated
from reference.ai.diagnosis import answer_diagnosis
from reference.ai.facts import FINDINGS, read_facts
from reference.ai.faults import FaultMiddleware, Faults, FaultSwitch
from reference.ai.image_validity import answer_image_validity
from reference.ai.next_question import answer_next_question
from reference.ai.photos import Photo, load_photos
from reference.ai.red_flags import answer_red_flags
from reference.ai.triage import answer_triage

MODEL = AiModel(name="dermadetect-reference-rules-not-a-medical-device", version="1.0.0")
NOTICE = "Reference AI service: stated rules, no trained model, not a medical device."
KEYS_REMEMBERED = 1_000
LOCAL = frozenset({"127.0.0.1", "localhost"})

DESCRIPTION = f"""{NOTICE} For development, demonstration and tests of the gateway only.

### Codes the rules know
They may stand in `context.symptoms`, in `context.history`, and as `link_id` of an answer with a boolean value.
Any other code is accepted, ignored, and named in `warnings`.

| code | meaning |
|---|---|
""" + "\n".join(f"| `{code}` | {question} |" for code, question in FINDINGS.items())

_RULES: dict[AiEndpoint, Callable[..., AiResponse]] = {
    AiEndpoint.DIAGNOSIS: answer_diagnosis,
    AiEndpoint.RED_FLAGS: answer_red_flags,
    AiEndpoint.TRIAGE: answer_triage,
    AiEndpoint.NEXT_QUESTION: answer_next_question,
}


class NoSuchVersion(Invalid):
    """A model version that this service does not have."""

    status = 410


def create_app(
    faults: Faults | None = None, *, token: str | None = None, image_hosts: frozenset[str] = LOCAL
) -> FastAPI:
    """The service. `token`, if given, is the bearer token every call but `/healthy` needs; `image_hosts` are
    the hosts an image's `url` may name. `PUT /faults` replaces `faults` while it runs."""
    switch = FaultSwitch(faults or Faults())
    remembered = Answers(KEYS_REMEMBERED)
    image_work = asyncio.Semaphore(2)

    def authorise(authorization: Annotated[str | None, Header()] = None) -> None:
        expected = f"Bearer {token}".encode()
        if token is not None and not hmac.compare_digest((authorization or "").encode(), expected):
            raise Unauthenticated("This service needs its bearer token.")

    app = FastAPI(
        title="DermaDetect reference AI service (not a medical device)",
        description=DESCRIPTION,
        version=MODEL.version,
        max_body_size=MAX_REQUEST_BYTES,
    )
    app.add_middleware(FaultMiddleware, switch=switch)
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(RequestValidationError, _validation_problem)

    @app.get("/healthy", summary="Whether the service runs", operation_id="healthy")
    async def healthy() -> dict[str, str]:
        return {"status": "ok", "model": MODEL.name, "version": MODEL.version}

    @app.put(
        "/faults",
        summary="Switch faults on and off",
        operation_id="faults_set",
        dependencies=[Depends(authorise)],
    )
    async def set_faults(faults: Faults) -> Faults:
        switch.set(faults)
        return faults

    def route(endpoint: AiEndpoint) -> Callable[..., Awaitable[AiResponse]]:
        async def call(
            request: AiRequest,
            idempotency_key: Annotated[
                str | None,
                Header(
                    min_length=1,
                    max_length=255,
                    description="The same key with the same request has the same answer, so that it may be repeated.",
                ),
            ] = None,
        ) -> AiResponse:
            digest = input_hash(request)
            fingerprint = (endpoint, digest)
            if idempotency_key and (earlier := remembered.find(idempotency_key, fingerprint)):
                return earlier
            async with image_work:
                photos = await load_photos(request.images, image_hosts)
                answer = await asyncio.to_thread(answer_request, endpoint, request, photos, digest)
            return remembered.keep(idempotency_key, fingerprint, answer) if idempotency_key else answer

        return call

    for endpoint in AiEndpoint:
        app.add_api_route(
            f"/v1/{endpoint}",
            route(endpoint),
            methods=["POST"],
            response_model=RESPONSES[endpoint],
            dependencies=[Depends(authorise)],
            summary=endpoint.replace("-", " ").capitalize(),
            operation_id=endpoint.replace("-", "_"),
        )
    return app


def answer_request(endpoint: AiEndpoint, request: AiRequest, photos: list[Photo], digest: str) -> AiResponse:
    """What the rules answer: the same for the same `digest`, but for `request_id` and `latency_ms`.

    Raises `NoSuchVersion`, and `Invalid` for an image it cannot read.
    """
    started = time.perf_counter()
    if request.model_version not in (None, MODEL.version):
        raise NoSuchVersion(f"This service has model version {MODEL.version} only.")
    facts = read_facts(request)
    warnings = [NOTICE]
    if facts.unknown_codes:
        warnings.append("Codes the rules do not know were ignored: " + ", ".join(facts.unknown_codes[:10]))
    if photos and endpoint != AiEndpoint.IMAGE_VALIDITY:
        warnings.append("The images were not looked at; only what was stated counts here.")
    if request.locale.split("-")[0].lower() != "en":
        warnings.append("Texts are in English only.")
    envelope: dict[str, Any] = {
        "request_id": request.request_id,
        "model": MODEL,
        "input_hash": digest,
        "latency_ms": 0,
        "warnings": warnings,
    }
    if endpoint == AiEndpoint.IMAGE_VALIDITY:
        answer: AiResponse = answer_image_validity(photos, envelope)
    else:
        answer = _RULES[endpoint](facts, envelope)
    return answer.model_copy(update={"latency_ms": round((time.perf_counter() - started) * 1_000, 3)})


class Answers:
    """The last answers by idempotency key, `limit` of them."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: OrderedDict[str, tuple[tuple[str, str], AiResponse]] = OrderedDict()

    def find(self, key: str, fingerprint: tuple[str, str]) -> AiResponse | None:
        """Raises `Invalid` if the key was used with another request."""
        known = self._kept.get(key)
        if known and known[0] != fingerprint:
            raise Invalid("This Idempotency-Key was used with another request.")
        return known[1] if known else None

    def keep(self, key: str, fingerprint: tuple[str, str], answer: AiResponse) -> AiResponse:
        """The answer of whichever of two simultaneous requests came first."""
        earlier = self.find(key, fingerprint)
        if earlier is not None:
            return earlier
        self._kept[key] = (fingerprint, answer)
        if len(self._kept) > self._limit:
            self._kept.popitem(last=False)
        return answer


async def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return JSONResponse(error.document(), error.status, error.headers, MEDIA_TYPE)


async def _validation_problem(request: Request, error: Exception) -> Response:
    """Names the fields and never repeats their values, which may be photographs and symptoms."""
    assert isinstance(error, RequestValidationError)
    fields = [{"field": ".".join(map(str, e["loc"])), "problem": e["type"]} for e in error.errors()[:20]]
    return await _problem(request, Invalid("The request is not in the shape of the contract.", errors=fields))
