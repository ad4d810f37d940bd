"""Whether an AI Service keeps the contract: real requests to it, and what was wrong with each answer.

Every check names the rule of `core.ai_contract` that it stands on. The endpoints are asked side by side, each of
them one request after another. Photographs are made here and show nobody.
"""

import asyncio
import base64
import hashlib
import io
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import httpx
from PIL import Image, ImageChops
from pydantic import ValidationError
from pydantic_core import from_json

from core.ai_contract import (
    MAX_RESPONSE_BYTES,
    RESPONSES,
    AiContext,
    AiEndpoint,
    AiImage,
    AiRequest,
    ImageValidityResponse,
    input_hash,
)
from core.ids import new_id

_AUTHORIZED = object()


@dataclass(frozen=True)
class Finding:
    """One check of one endpoint; `untried` where an earlier failure leaves nothing to look at."""

    endpoint: str
    check: str
    state: Literal["pass", "fail", "untried"]
    detail: str
    rule: str


@dataclass(frozen=True)
class _Answer:
    """What came back. `status` is None where nothing did, and `broke` then says why."""

    status: int | None
    media_type: str = ""
    encoding: str = ""
    body: bytes = b""
    broke: str = ""

    @property
    def said(self) -> str:
        return self.broke or f"answered {self.status}"

    @property
    def refused(self) -> bool:
        return self.status is not None and 400 <= self.status < 500

    def document(self) -> dict[str, Any]:
        """The body as a JSON object; empty where it is none."""
        try:
            found = from_json(self.body)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}


async def check_service(url: str, token: str | None, deadline_s: float) -> list[Finding]:
    """Check all five endpoints of the service at `url`, each answer within `deadline_s` seconds.

    With a `token`, also whether the service refuses who does not have it. Never raises for what the service does.
    """
    photographs = await asyncio.to_thread(lambda: [photograph(seed) for seed in (1, 2)])
    async with httpx.AsyncClient(
        timeout=httpx.Timeout(None), trust_env=False, follow_redirects=False
    ) as http:
        examinations = [
            _Examination(http, url.rstrip("/"), token, deadline_s, endpoint, photographs)
            for endpoint in AiEndpoint
        ]
        found = await asyncio.gather(*(each.run() for each in examinations))
    return [finding for findings in found for finding in findings]


def photograph(seed: int) -> bytes:
    """A JPEG of a dark round spot on a grainy, skin-coloured ground, the same for the same `seed`."""
    size = (800, 600)
    grain = Image.frombytes("L", size, random.Random(seed).randbytes(size[0] * size[1]))  # noqa: S311  # no secret
    grain = grain.point([int((value - 128) * 0.1) + 128 for value in range(256)])
    skin = ImageChops.add(
        Image.new("RGB", size, (205, 155, 125)), Image.merge("RGB", [grain] * 3), offset=-128
    )
    spot = (
        Image.radial_gradient("L")
        .resize((200, 200))
        .point([255 if value < 120 else 0 for value in range(256)])
    )
    skin.paste((110, 70, 55), (280 + 20 * seed, 200), spot)
    file = io.BytesIO()
    skin.save(file, "JPEG", quality=85)
    return file.getvalue()


class _Examination:
    """All checks of one endpoint, in order; `findings` grows as they are made."""

    def __init__(
        self,
        http: httpx.AsyncClient,
        url: str,
        token: str | None,
        deadline_s: float,
        endpoint: AiEndpoint,
        photographs: list[bytes],
    ) -> None:
        self._http = http
        self._path = f"{url}/v1/{endpoint}"
        self._token = token
        self._deadline_s = deadline_s
        self._endpoint = endpoint
        self._images = [
            AiImage(
                image_id=f"image-{number}",
                sha256=hashlib.sha256(data).hexdigest(),
                base64=base64.b64encode(data).decode(),
                view="close_up",
                body_site="left shoulder",
            )
            for number, data in enumerate(photographs, 1)
        ]
        self.findings: list[Finding] = []

    async def run(self) -> list[Finding]:
        request = self._request()
        answer = await self._send(request)
        self._look_at(request, answer)
        if answer.status is None:  # a service that does not answer is not asked ten more times
            self._note("all other checks", None, "there was no answer to the first request", "rules 1 to 9")
            return self.findings
        await self._without_photographs()
        await self._determinism(answer)
        await self._idempotency()
        await self._refusals()
        await self._model_version(answer)
        if self._token is not None:
            await self._authorisation()
        return self.findings

    def _request(self, **changes: Any) -> AiRequest:
        members: dict[str, Any] = {
            "request_id": str(new_id()),
            "case_ref": "conformance-check",
            "images": self._images,
            "context": AiContext(
                age_years=41, sex="female", fitzpatrick=3, duration_days=60, symptoms=["itch"]
            ),
        }
        return AiRequest(**members | changes)

    async def _send(
        self,
        request: AiRequest | Mapping[str, Any] | bytes,
        *,
        key: str | None = None,
        token: object = _AUTHORIZED,
    ) -> _Answer:
        """The answer to one POST, read no further than it may be long."""
        headers = {
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "Content-Type": "application/json",
            "Idempotency-Key": key or str(new_id()),
        }
        token = self._token if token is _AUTHORIZED else token
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        sent: dict[str, Any] = {"json": request}
        if isinstance(request, AiRequest):
            sent = {"content": request.model_dump_json(exclude_none=True).encode()}
        elif isinstance(request, bytes):
            sent = {"content": request}
        started = time.monotonic()
        try:
            async with (
                asyncio.timeout(self._deadline_s),
                self._http.stream("POST", self._path, headers=headers, **sent) as answer,
            ):
                body = bytearray()
                async for chunk in answer.aiter_raw():
                    body += chunk
                    if len(body) > MAX_RESPONSE_BYTES:
                        break
        except TimeoutError:
            return _Answer(None, broke=f"no whole answer within {self._deadline_s:g} s")
        except httpx.HTTPError as error:
            took = time.monotonic() - started
            return _Answer(None, broke=f"broke off after {took:.1f} s: {type(error).__name__}")
        media_type = answer.headers.get("Content-Type", "").split(";")[0].strip().lower()
        encoding = answer.headers.get("Content-Encoding", "identity").lower()
        return _Answer(answer.status_code, media_type, encoding, bytes(body))

    def _note(self, check: str, passed: bool | None, detail: str, rule: str) -> None:
        """`detail` is kept only of what did not pass. `passed` None: could not be tried."""
        state: Literal["pass", "fail", "untried"] = (
            "untried" if passed is None else "pass" if passed else "fail"
        )
        self.findings.append(Finding(self._endpoint.value, check, state, "" if passed else detail, rule))

    def _look_at(self, request: AiRequest, answer: _Answer) -> None:
        self._note("answers in time", answer.status == 200, answer.said, "rule 1")
        if answer.status != 200:
            return
        self._note(
            "content type", answer.media_type == "application/json", f"is {answer.media_type!r}", "rule 2"
        )
        self._note("not compressed", answer.encoding == "identity", f"is {answer.encoding!r}", "rule 2")
        fits = len(answer.body) <= MAX_RESPONSE_BYTES
        self._note("size", fits, f"is larger than {MAX_RESPONSE_BYTES} bytes", "rule 2")
        if not fits:
            return
        schema = RESPONSES[self._endpoint]
        wrong = self._wrong_shape(answer)
        self._note("shape", wrong is None, wrong or "", schema.__name__)
        document = answer.document()
        self._note(
            "request_id",
            document.get("request_id") == request.request_id,
            f"is {_brief(document.get('request_id'))}, not that of the request",
            "rule 3",
        )
        expected = input_hash(request)
        self._note(
            "input_hash",
            document.get("input_hash") == expected,
            f"is {_brief(document.get('input_hash'))}, not {expected}",
            "rule 3",
        )
        if schema is ImageValidityResponse:
            self._judges_every_image(answer, wrong is None)

    def _judges_every_image(self, answer: _Answer, readable: bool) -> None:
        if not readable:
            self._note("every photograph", None, "the answer's shape is wrong", "rule 4")
            return
        judged = sorted(image["image_id"] for image in answer.document()["images"])
        sent = sorted(image.image_id for image in self._images)
        self._note("every photograph", judged == sent, f"sent {sent}, judged {_brief(judged)}", "rule 4")

    def _wrong_shape(self, answer: _Answer) -> str | None:
        """Where an answer leaves the schema, without repeating what it says there."""
        try:
            RESPONSES[self._endpoint].model_validate(from_json(answer.body, allow_inf_nan=False))
        except ValidationError as error:
            places = [
                f"{'.'.join(map(str, each['loc'])) or 'body'}: {each['msg']}" for each in error.errors()[:5]
            ]
            return "; ".join(places)
        except ValueError:
            return "is not JSON"
        if b"\\u0000" in answer.body:
            return "holds a NUL character"
        return None

    async def _without_photographs(self) -> None:
        answer = await self._send(self._request(images=[], context=AiContext()))
        wrong = answer.said if answer.status != 200 else self._wrong_shape(answer)
        self._note("no photographs", wrong is None, wrong or "", "rule 1")

    async def _determinism(self, first: _Answer) -> None:
        """The same content under another request id, with a default spelled out."""
        again = self._request().model_dump(mode="json", exclude_none=True)
        answer = await self._send(again)
        if first.status != 200 or answer.status != 200:
            self._note("same content, same input_hash", None, answer.said, "rule 3")
            return
        before, after = first.document().get("input_hash"), answer.document().get("input_hash")
        self._note(
            "same content, same input_hash",
            before is not None and before == after,
            f"first {_brief(before)}, then {_brief(after)}",
            "rule 3",
        )

    async def _idempotency(self) -> None:
        request, key = self._request(), str(new_id())
        first, second = await self._send(request, key=key), await self._send(request, key=key)
        if first.status != 200:
            self._note("same key, same answer", None, first.said, "rule 5")
        else:
            before, after = (answer.document() | {"latency_ms": None} for answer in (first, second))
            differing = sorted(name for name in before | after if before.get(name) != after.get(name))
            same = second.status == 200 and not differing
            detail = f"differs in {', '.join(differing)[:200]}" if second.status == 200 else second.said
            self._note("same key, same answer", same, detail, "rule 5")
        other = self._request(request_id=request.request_id, context=AiContext(age_years=42))
        answer = await self._send(other, key=key)
        self._note("same key, another request", answer.refused, answer.said, "rule 5")

    async def _refusals(self) -> None:
        wrong_hash = self._images[0].model_copy(update={"sha256": "0" * 64})
        answer = await self._send(self._request(images=[wrong_hash]))
        self._note("photograph of another hash", answer.status == 422, answer.said, "rule 6")

        plain = self._request(images=[]).model_dump(mode="json", exclude_none=True)
        unknown = {
            "in the request": plain | {"surprise": 1},
            "in context": plain | {"context": {"surprise": 1}},
        }
        wrong = [
            f"{where}: {answer.said}"
            for where, body in unknown.items()
            if (answer := await self._send(body)).status != 422
        ]
        self._note("unknown member", not wrong, "; ".join(wrong), "rule 7")

        malformed: dict[str, Mapping[str, Any] | bytes] = {
            "images is a text": plain | {"images": "none"},
            "age_years is a text": plain | {"context": {"age_years": "old"}},
            "request_id is missing": {name: each for name, each in plain.items() if name != "request_id"},
            "a list": b"[]",
            "not JSON": b'{"request_id": ',
            "nothing": b"",
        }
        wrong = [
            f"{what}: {answer.said}"
            for what, sent in malformed.items()
            if not (answer := await self._send(sent)).refused
        ]
        self._note("what is no request", not wrong, "; ".join(wrong), "rule 7")

    async def _model_version(self, first: _Answer) -> None:
        if first.status != 200 or self._wrong_shape(first) is not None:
            self._note("its model version", None, "the first answer's shape is wrong", "rule 9")
        else:
            version = first.document()["model"]["version"]
            answer = await self._send(self._request(images=[], model_version=version))
            found = answer.document().get("model")
            same = answer.status == 200 and isinstance(found, dict) and found.get("version") == version
            detail = f"is {_brief(found)}, not {_brief(version)}" if answer.status == 200 else answer.said
            self._note("its model version", same, detail, "rule 9")
        answer = await self._send(self._request(images=[], model_version=f"none-{new_id()}"))
        self._note("unknown model version", answer.status == 410, answer.said, "rule 9")

    async def _authorisation(self) -> None:
        for check, token in (("without the token", None), ("with a wrong token", "not-the-token")):
            answer = await self._send(self._request(images=[]), token=token)
            self._note(check, answer.status == 401, answer.said, "rule 8")


def _brief(value: Any) -> str:
    """What a service said, short enough to print."""
    said = repr(value)
    return said if len(said) <= 80 else said[:77] + "…"
