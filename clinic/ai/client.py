"""The gateway's side of the AI contract: one deadline, few retries, a breaker, and no trust in the answer."""

import asyncio
import logging
import random
import time
from dataclasses import dataclass
from typing import Any, NoReturn

import httpx
from pydantic_core import from_json

from clinic.ai.errors import (
    AiAnswerInvalid,
    AiBusy,
    AiInputRejected,
    AiModelMissing,
    AiTimeout,
    AiUnavailable,
    AiUnreachable,
)
from core.ai_contract import MAX_RESPONSE_BYTES, RESPONSES, AiEndpoint, AiRequest, AiResponse, input_hash
from core.database import TenantScope

log = logging.getLogger(__name__)

ATTEMPTS = 4
BACKOFF_S = 0.2  # before the second attempt at most this, doubled each time ("full jitter")
CONNECT_S = 3.0
PASSING = frozenset(
    {502, 503, 504}
)  # a proxy or an overloaded process: another attempt may meet a better one
REJECTED = frozenset({400, 413, 415, 422})
NO_SUCH_MODEL = 410
MODEL_RETRY_S = 600  # somebody has to change the pin first


@dataclass(frozen=True)
class AiReply:
    """`response` in the contract's terms, and the whole `document` as it came."""

    response: AiResponse
    document: dict[str, Any]


class Breaker:
    """Refuses calls for `cool_down_s` seconds after `threshold` failures in a row, then lets one through as a
    probe: success closes it, failure opens it again.

    Own, because the libraries for this hang state on threads or decorators, and this is all there is to it. A
    probe takes the next `cool_down_s` for itself, so one that is cancelled leaves nothing to clean up.
    """

    def __init__(self, threshold: int = 5, cool_down_s: float = 10.0) -> None:
        self._threshold = threshold
        self._cool_down_s = cool_down_s
        self._failures = 0
        self._next_probe = 0.0

    def admit(self) -> None:
        """Return if a call may be made now. Raises `AiUnavailable`."""
        if self._failures < self._threshold:
            return
        wait = self._next_probe - time.monotonic()
        if wait > 0:
            raise AiUnavailable(
                "The AI Service has failed repeatedly and is left alone for a moment; go on without it or try "
                "again later.",
                retry_after=max(1, round(wait)),
            )
        self._next_probe = time.monotonic() + self._cool_down_s

    def succeeded(self) -> None:
        self._failures = 0

    def failed(self) -> None:
        self._failures += 1
        self._next_probe = time.monotonic() + self._cool_down_s


class AiClient:
    """Asks the AI Service at `base_url` (None: there is none, and every call raises `AiUnavailable`).

    `deadline_s` bounds a call with all its waiting and retries. A tenant has at most `calls_per_tenant` calls
    under way, so that one cannot starve the others; further ones wait within their deadline.
    """

    def __init__(
        self,
        base_url: str | None,
        token: str | None,
        deadline_s: float,
        *,
        calls_per_tenant: int = 8,
        cool_down_s: float = 10.0,
    ) -> None:
        self._base_url = base_url.rstrip("/") if base_url else None
        self._authorization = {"Authorization": f"Bearer {token}"} if token else {}
        self._deadline_s = deadline_s
        self._calls_per_tenant = calls_per_tenant
        self._slots: dict[str, asyncio.Semaphore] = {}
        self._breakers = {endpoint: Breaker(cool_down_s=cool_down_s) for endpoint in AiEndpoint}
        self._http: httpx.AsyncClient | None = None

    async def ask(self, tenant: TenantScope, endpoint: AiEndpoint, request: AiRequest) -> AiReply:
        """The answer to `request`, checked against the contract.

        Raises `AiTimeout` (504), `AiUnreachable` and `AiAnswerInvalid` (502), `AiUnavailable`, `AiBusy` and
        `AiModelMissing` (503), `AiInputRejected` (422).
        """
        if self._base_url is None:
            raise AiUnavailable("No AI Service is configured here.", retry_after=3600)
        slot = self._slots.setdefault(tenant.key, asyncio.Semaphore(self._calls_per_tenant))
        breaker = self._breakers[endpoint]
        admitted = False
        started = time.monotonic()
        try:
            async with asyncio.timeout(self._deadline_s), slot:
                breaker.admit()
                admitted = True
                reply = await self._exchange(endpoint, request)
        except TimeoutError:
            if not admitted:
                raise AiBusy(
                    f"Your organisation has {self._calls_per_tenant} AI calls under way; try again in a moment."
                ) from None
            breaker.failed()
            self._warn(
                endpoint, "AI Service timed out", duration_ms=round((time.monotonic() - started) * 1000)
            )
            raise AiTimeout(
                f"No answer within {self._deadline_s:g} s; go on without it or try again."
            ) from None
        except (AiInputRejected, AiModelMissing):
            breaker.succeeded()
            raise
        except (AiUnreachable, AiAnswerInvalid):
            breaker.failed()
            raise
        breaker.succeeded()
        return reply

    @property
    def configured(self) -> bool:
        """Whether there is an AI Service at all."""
        return self._base_url is not None

    async def ping(self) -> None:
        """Raise unless the AI Service answers, whatever it answers short of a fault."""
        answer = await self._pool().get(f"{self._base_url}/healthy", timeout=2.0)
        if answer.status_code >= 500:
            raise AiUnreachable("The AI Service reports a fault.")

    async def aclose(self) -> None:
        """Close the pooled connections."""
        if self._http is not None:
            await self._http.aclose()
            self._http = None

    def _pool(self) -> httpx.AsyncClient:
        """The pool, made in the loop that uses it. Proxies of the environment are not for photographs of
        patients, redirects are not in the contract, and compression is not asked for, so that the answer's size
        is known while it is read."""
        if self._http is None:
            self._http = httpx.AsyncClient(
                headers={"Accept": "application/json", "Accept-Encoding": "identity"} | self._authorization,
                timeout=httpx.Timeout(None, connect=CONNECT_S),
                limits=httpx.Limits(max_connections=128, max_keepalive_connections=32, keepalive_expiry=30),
                trust_env=False,
                follow_redirects=False,
            )
        return self._http

    async def _exchange(self, endpoint: AiEndpoint, request: AiRequest) -> AiReply:
        body = request.model_dump_json(exclude_none=True).encode()
        for attempt in range(1, ATTEMPTS + 1):
            try:
                status, answer = await self._post(endpoint, request.request_id, body)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                self._warn(endpoint, "AI Service not reached", attempt=attempt, error=type(error).__name__)
            except httpx.HTTPError as error:
                self._warn(endpoint, "AI Service broke off", attempt=attempt, error=type(error).__name__)
                break
            else:
                if status == 200:
                    return self._check(endpoint, request, answer)
                self._warn(endpoint, "AI Service refused", attempt=attempt, status=status)
                if status in REJECTED:
                    raise AiInputRejected(
                        "The AI Service cannot work with this input; check images and answers."
                    )
                if status == NO_SUCH_MODEL and request.model_version is not None:
                    raise AiModelMissing(
                        f"It was asked for version `{request.model_version}`; go on without it, or have the pin "
                        "changed.",
                        retry_after=MODEL_RETRY_S,
                    )
                if status not in PASSING:
                    break
            if attempt < ATTEMPTS:
                await asyncio.sleep(random.uniform(0, BACKOFF_S * 2 ** (attempt - 1)))  # noqa: S311  # jitter
        raise AiUnreachable("The AI Service cannot be reached; go on without it or try again.")

    async def _post(self, endpoint: AiEndpoint, key: str, body: bytes) -> tuple[int, bytes]:
        """One attempt: the status and, of a 200, the body. The same `key` every time makes retries safe."""
        headers = {"Content-Type": "application/json", "Idempotency-Key": key}
        async with self._pool().stream(
            "POST", f"{self._base_url}/v1/{endpoint}", content=body, headers=headers
        ) as answer:
            if answer.status_code != 200:
                return answer.status_code, b""
            if answer.headers.get("Content-Type", "").split(";")[0].strip().lower() != "application/json":
                self._refuse(endpoint, "content type")
            received = bytearray()
            async for chunk in answer.aiter_raw():
                received += chunk
                if len(received) > MAX_RESPONSE_BYTES:
                    self._refuse(endpoint, "size")
            return 200, bytes(received)

    def _check(self, endpoint: AiEndpoint, request: AiRequest, answer: bytes) -> AiReply:
        try:
            document = from_json(answer, allow_inf_nan=False)
            response = RESPONSES[endpoint].model_validate(document)
        except ValueError:  # not JSON, or a ValidationError
            self._refuse(endpoint, "schema")
        # Somebody else's answer, whatever mixed them up, must never stand in this patient's record.
        if response.request_id != request.request_id or response.input_hash != input_hash(request):
            self._refuse(endpoint, "belongs to another request")
        if request.model_version not in (None, response.model.version):
            self._refuse(endpoint, "another model version")
        if b"\\u0000" in answer:  # valid JSON that PostgreSQL's jsonb cannot hold
            self._refuse(endpoint, "NUL")
        return AiReply(response, document)

    def _refuse(self, endpoint: AiEndpoint, why: str) -> NoReturn:
        self._warn(endpoint, "AI Service gave an invalid answer", error=why)
        raise AiAnswerInvalid("The AI Service's answer was not usable; go on without it or try again.")

    def _warn(self, endpoint: AiEndpoint, message: str, **fields: Any) -> None:
        log.warning(message, extra={"endpoint": str(endpoint)} | fields)
