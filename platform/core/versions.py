"""Optimistic concurrency over HTTP: `ETag` out, `If-Match` in (RFC 9110, 13.1.1; RFC 6585 for 428)."""

import re
from typing import Annotated

from fastapi import Depends, Header, Response

from core.problems import Invalid, Problem, Stale


class PreconditionRequired(Problem):
    status, slug, title = 428, "precondition-required", "Say which version you change"


class BadETag(Invalid):
    slug, title = "bad-etag", "Not an ETag of ours"


async def _if_match(
    if_match: Annotated[
        str | None, Header(description='The `ETag` of the version you saw, such as `"3"`.')
    ] = None,
) -> int:
    if if_match is None:
        raise PreconditionRequired('Send `If-Match` with the `ETag` you last read, such as `If-Match: "3"`.')
    match = re.fullmatch(r'"(\d{1,9})"', if_match.strip())
    if match is None:
        raise BadETag('`If-Match` takes one ETag as this API gave it, such as `"3"`.')
    return int(match[1])


IfMatch = Annotated[int, Depends(_if_match)]
"""The version the client saw."""


def check_version(present: int, seen: int) -> None:
    """Raise `Stale` unless the client saw the present version."""
    if present != seen:
        raise Stale(
            f"It is at version {present} and you saw {seen}; read it again and decide anew.", version=present
        )


def set_etag(response: Response, version: int) -> None:
    response.headers["ETag"] = f'"{version}"'
