"""Logs: one JSON object a line, with the request's id and tenant, and no health data or secrets.

Code logs a constant message and names what varies in `extra`; only the fields of `_FIELDS` are written, so
that a careless `extra` cannot leak a patient's name.
"""

import json
import logging
import sys
from contextvars import ContextVar
from typing import Any

_request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
_tenant_key: ContextVar[str | None] = ContextVar("tenant_key", default=None)

_FIELDS = frozenset(
    """
    attempt bytes check count duration_ms endpoint error host job kind limit method path pid port
    revision route schema sqlstate state status step tenant url
    """.split()
)


def bind(request_id: str | None = None, tenant: str | None = None) -> None:
    """Name the request and tenant that log lines of the current task belong to."""
    if request_id is not None:
        _request_id.set(request_id)
    if tenant is not None:
        _tenant_key.set(tenant)


def current_request_id() -> str | None:
    return _request_id.get()


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S") + f".{int(record.msecs):03d}",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request_id := _request_id.get():
            line["request_id"] = request_id
        if tenant := _tenant_key.get():
            line["tenant"] = tenant
        line |= {name: value for name, value in record.__dict__.items() if name in _FIELDS}
        if record.exc_info:
            # Where it happened, but not what the exception says: messages of libraries quote values.
            kind, _, trace = record.exc_info
            line["error"] = kind.__name__ if kind else None
            frames = []
            while trace is not None:
                code = trace.tb_frame.f_code
                frames.append(f"{code.co_filename.rsplit('/', 2)[-1]}:{trace.tb_lineno} {code.co_name}")
                trace = trace.tb_next
            line["trace"] = frames[-12:]
        return json.dumps(line, default=str)


class _StandardError(logging.StreamHandler[Any]):
    """Writes to whatever standard error is at the time, which tests and terminals replace."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> Any:
        return sys.stderr


def configure_logging(level: str) -> None:
    """Send every logger of the process to standard error as JSON."""
    handler = _StandardError()
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for chatty in ("azure", "httpx", "httpcore", "uvicorn.access"):
        logging.getLogger(chatty).setLevel("WARNING")
