"""A tenant's users and groups, for one request of its directory: what `scim2-server`, which speaks the protocol, reads
and writes."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast
from uuid import UUID

from scim2_models import NotImplementedException, Resource, ResourceType, ResponseParameters, SearchRequest
from scim2_server.storage import AsyncScimStorage, SearchPage

from auth.people.models import User as Person
from auth.scim import groups, schemas, users
from auth.scim.groups import MEMBER, Members
from auth.scim.models import Group
from core.access import Principal
from core.database import Database, TenantSession
from tenants.plans.service import limit_of


class Storage(AsyncScimStorage):
    """Each operation is a transaction. What is read to be changed is locked until its end, so that of two changes at
    once the second begins with what the first made.

    `listed` are the members that a request to make or replace a group names, `asked` the attributes that a request
    about groups wants to be answered. `deactivated` are people who must have no sessions once the operation is
    committed, `out_of_groups` those who are no more in a group of this name.
    """

    def __init__(self, database: Database, by: Principal) -> None:
        self._database = database
        self._by = by
        self._session: TenantSession | None = None
        self._seat_limit = 0
        self._locked: Person | Group | None = None
        self._shown: dict[str, list[dict[str, str]]] = {}  # members of the groups in the answer
        self.listed = Members(everybody_goes=True)
        self.asked: ResponseParameters[Any] | None = None
        self.deactivated: set[UUID] = set()
        self.out_of_groups: dict[str, set[UUID]] = {}

    @asynccontextmanager
    async def operation(self) -> AsyncIterator[None]:
        async with self._database.control() as control:
            self._seat_limit = await limit_of(control, self._by.tenant, "seats")
        async with self._database.tenant(self._by.tenant) as session:
            self._session = session
            yield

    @property
    def _open(self) -> TenantSession:
        assert self._session is not None
        return self._session

    async def get(
        self,
        resource_type: ResourceType,
        resource_id: str,
        *,
        response_parameters: ResponseParameters[Any] | None = None,
    ) -> Resource[Any]:
        """What is read without parameters is locked, to be changed."""
        lock = response_parameters is None
        if resource_type.id == "User":
            person = await users.get_user(self._open, resource_id, lock=lock)
            self._locked = person if lock else None
            return await self._user(person, response_parameters)
        group = await groups.get_group(self._open, resource_id, lock=lock)
        self._locked = group if lock else None
        if not lock:
            await self._show([group], response_parameters)
        return groups.resource(group)

    async def search(
        self, resource_types: list[ResourceType], search_request: SearchRequest[Any], *, position: Any = None
    ) -> SearchPage:
        if len(resource_types) > 1:
            raise NotImplementedException(detail="Search `/Users` or `/Groups`.")
        if resource_types[0].id == "Group":
            total, found = await groups.find_groups(self._open, search_request)
            await self._show(found, search_request)
            return SearchPage(total, [groups.resource(group) for group in found])
        total, people = await users.find_users(self._open, search_request)
        shown = people if _shows(search_request, "groups") else []
        memberships = await users.memberships_of(self._open, [person.id for person in shown])
        return SearchPage(total, [users.resource(person, memberships.get(person.id)) for person in people])

    async def create(self, resource_type: ResourceType, resource: Resource[Any]) -> Resource[Any]:
        if resource_type.id == "User":
            person = await users.create_user(
                self._open, self._by, cast(schemas.User, resource), self._seat_limit
            )
            await self._open.refresh(person)
            return await self._user(person)
        wanted = cast(schemas.Group, resource)
        group = await groups.create_group(self._open, self._by, wanted, self.listed)
        return await self._changed_group(group)

    async def update(
        self, resource_type: ResourceType, resource: Resource[Any], *, expected_version: str | None = None
    ) -> Resource[Any]:
        """Change the user that was read last; see `change_group` for groups."""
        person = cast(Person, self._locked)
        wanted = cast(schemas.User, resource)
        await users.replace_user(self._open, self._by, person, wanted, self._seat_limit)
        if not person.active:
            self.deactivated.add(person.id)
        await self._open.refresh(person)
        return await self._user(person)

    async def change_group(self, wanted: Resource[Any], members: Members, *, shown: bool) -> Resource[Any]:
        """Change the group that was read last, and its members, which the answer shows or not."""
        group = cast(Group, self._locked)
        former = group.display_name
        wanted = cast(schemas.Group, wanted)
        gone = await groups.change_group(self._open, self._by, group, wanted, members)
        self.out_of_groups[former] = set(gone)
        return await self._changed_group(group, shown=shown)

    async def delete(
        self, resource_type: ResourceType, resource_id: str, *, expected_version: str | None = None
    ) -> None:
        if isinstance(self._locked, Person):
            await users.forget_user(self._open, self._by, self._locked)
            self.deactivated.add(self._locked.id)
        else:
            group = cast(Group, self._locked)
            gone = await groups.delete_group(self._open, self._by, group)
            self.out_of_groups[group.display_name] = set(gone)

    def show_members(self, body: dict[str, Any], base_url: str) -> None:
        """Put the members of groups into an answer."""
        for shown in body.get("Resources", [body]):
            if members := self._shown.get(shown.get("id", "")):
                shown["members"] = [
                    member | {"$ref": f"{base_url}/{member['$ref']}"} if "$ref" in member else member
                    for member in members
                ]

    async def _user(self, person: Person, parameters: ResponseParameters[Any] | None = None) -> schemas.User:
        shown = [person.id] if _shows(parameters, "groups") else []
        memberships = await users.memberships_of(self._open, shown)
        return users.resource(person, memberships.get(person.id))

    async def _show(self, found: Sequence[Group], parameters: ResponseParameters[Any] | None) -> None:
        parts = [part for part in MEMBER if _shows(parameters, "members", part)]
        if parts:
            self._shown = await groups.members_of(self._open, [group.id for group in found], parts)

    async def _changed_group(self, group: Group, *, shown: bool = True) -> schemas.Group:
        await self._open.refresh(group)
        asked = self.asked
        if shown or (asked and (asked.attributes or asked.excluded_attributes)):
            await self._show([group], asked)
        return groups.resource(group)


def _shows(parameters: ResponseParameters[Any] | None, attribute: str, part: str | None = None) -> bool:
    """Whether an answer with these parameters shows an attribute, or a part of it."""
    if parameters is None:
        return True
    names = {(attribute,), (attribute, (part or "").lower())}
    if parameters.attributes:
        return any(
            path.parts[0].lower() == attribute and (part is None or _lower(path.parts) in names)
            for path in parameters.attributes
        )
    return not any(_lower(path.parts) in names for path in parameters.excluded_attributes or ())


def _lower(parts: Sequence[str]) -> tuple[str, ...]:
    return tuple(part.lower() for part in parts)
