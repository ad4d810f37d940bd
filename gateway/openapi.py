"""The OpenAPI document: what FastAPI derives, with our error shape and the way to sign in."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from gateway.problems import BROWSER_PATHS

PROBLEM_SCHEMA: dict[str, Any] = {
    "title": "Problem",
    "description": "RFC 9457. `docs/problems.md` lists the types.",
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {
            "type": "string",
            "format": "uri",
            "examples": ["urn:problem-type:dermadetect:quota-exceeded"],
        },
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What was wrong this time, and what to do."},
        "instance": {
            "type": "string",
            "format": "uri",
            "description": "The request id, for your administrator.",
        },
        "errors": {
            "type": "array",
            "description": "For 422: each field that is not as it should be.",
            "items": {
                "type": "object",
                "properties": {
                    "location": {"type": "string"},
                    "message": {"type": "string"},
                    "type": {"type": "string"},
                },
            },
        },
    },
}

DESCRIPTION = """Each organisation's API answers at its own host, with tokens of its own.
Errors are problem details (RFC 9457), lists are paged by `Link` headers (RFC 8288), creating POSTs take an
`Idempotency-Key`, changes take `If-Match`, and `RateLimit` headers say what is left."""


def describe(app: FastAPI) -> None:
    """Make `app.openapi()` give the document, once built."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = get_openapi(
                title=app.title, version=app.version, description=DESCRIPTION, routes=app.routes
            )
            components = made.setdefault("components", {})
            schemas = components.setdefault("schemas", {})
            schemas["Problem"] = PROBLEM_SCHEMA
            components["securitySchemes"] = {
                "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
            }
            problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
            for path, operations in made["paths"].items():
                for operation in operations.values():
                    if path.startswith(("/v1/", "/platform/v1/")):
                        operation["security"] = [{"token": []}]
                    if "422" in operation["responses"]:
                        operation["responses"]["422"] = {"description": "Invalid", "content": problem}
                    operation["responses"]["default"] = {"description": "Any problem", "content": problem}
                    if path.startswith(BROWSER_PATHS):
                        for status, answer in operation["responses"].items():
                            if status >= "400":
                                answer["content"] = answer["content"] | {"text/html": {}}
            for unused in ("HTTPValidationError", "ValidationError"):
                schemas.pop(unused, None)
            app.openapi_schema = made
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]  # FastAPI's documented way to extend the document
