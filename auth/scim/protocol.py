"""The protocol as `scim2-server` speaks it, with bounds on what it parses: its models cost a millisecond for every few
values. So the members of groups, of which there may be ten thousand, are taken out of what it reads, and put into what
it has written."""

from collections.abc import Iterator
from typing import Any

from pydantic_core import from_json, to_json
from scim2_models import InvalidValueException, PatchOp, Resource, ResourceType, SearchRequest
from scim2_server.conditions import Conditions
from scim2_server.handler import AsyncScimHandler
from scim2_server.requests import ScimRequest
from scim2_server.responses import ScimResponse
from scim2_server.service import ScimService

from auth.scim.filters import check_size
from auth.scim.groups import listed_members, take_members
from auth.scim.schemas import PROVIDER
from auth.scim.storage import Storage

MOST_TARGETS = 300  # paths and attributes that a PATCH names
LONGEST_TARGETS = 20_000  # characters, together


class Service(ScimService):
    """Reads and writes messages, and refuses what would take long to read."""

    def read_search(self, resource_types: list[ResourceType], payload: Any) -> tuple[SearchRequest[Any], Any]:
        for value in payload.values() if isinstance(payload, dict) else ():
            if isinstance(value, str):
                check_size(value)
        return super().read_search(resource_types, payload)

    def read_patch(
        self, resource_type: ResourceType, body: bytes, content_type: str | None
    ) -> "PatchOp[Any]":
        targets = list(_targets(self.decode_body(body, content_type)))
        if len(targets) > MOST_TARGETS or sum(map(len, targets)) > LONGEST_TARGETS:
            raise InvalidValueException(
                detail=f"A PATCH names {MOST_TARGETS} paths and attributes at most, with {LONGEST_TARGETS} characters."
            )
        for target in targets:
            check_size(target)
        return super().read_patch(resource_type, body, content_type)


def _targets(payload: Any) -> Iterator[str]:
    """The paths and the names of attributes in a PATCH, however they are written."""
    operations = _member(payload, "operations")
    for operation in operations if isinstance(operations, list) else ():
        yield from _names(_member(operation, "value"))
        if isinstance(path := _member(operation, "path"), str):
            yield path
        else:
            yield ""


def _names(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield name
            yield from _names(inner)


def _member(value: Any, name: str) -> Any:
    """What an object holds under a name, which SCIM takes in any case."""
    if not isinstance(value, dict):
        return None
    return next((inner for key, inner in value.items() if key.lower() == name), None)


class Handler(AsyncScimHandler):
    """Serves one request on its storage."""

    storage: Storage

    async def handle(self, request: ScimRequest) -> ScimResponse:
        if request.path.lower().startswith("/groups"):
            if request.method in ("POST", "PUT"):
                self._take_listed_members(request)
            with self.service.provider:
                group = self.service.get_resource_type("Group")
                self.storage.asked = self.service.read_response_parameters(group, request.query)
        response = await super().handle(request)
        if response.body is not None:
            self.storage.show_members(response.body, request.base_url)
        return response

    def _take_listed_members(self, request: ScimRequest) -> None:
        try:
            payload = from_json(request.body)
        except ValueError:
            return  # the library tells what is wrong
        names = [name for name in payload if name.lower() == "members"] if isinstance(payload, dict) else []
        if names:
            self.storage.listed = listed_members(payload.pop(names[0]))
            request.body = to_json(payload)

    async def replace_resource(
        self,
        resource_type: ResourceType,
        current: Resource[Any],
        replacement: Resource[Any],
        conditions: Conditions,
    ) -> Resource[Any]:
        if resource_type.id == "User":
            return await super().replace_resource(resource_type, current, replacement, conditions)
        self.service.apply_replacement(current, replacement, conditions)
        return await self.storage.change_group(replacement, self.storage.listed, shown=True)

    async def patch_resource(
        self, resource_type: ResourceType, resource_id: str, patch_op: "PatchOp[Any]", conditions: Conditions
    ) -> Resource[Any]:
        if resource_type.id == "User":
            return await super().patch_resource(resource_type, resource_id, patch_op, conditions)
        members, more = take_members(patch_op)
        current = await self.storage.get(resource_type, resource_id)
        self.service.check_preconditions(current, "PATCH", conditions)
        patched = self.service.apply_patch(current, patch_op, conditions) if more else None
        if patched is None and not members:
            return current
        return await self.storage.change_group(patched or current, members, shown=False)


SERVICE = Service(PROVIDER)
