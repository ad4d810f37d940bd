"""Groups as a directory sees them. A group may have ten thousand members: they are changed without being read."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any
from unicodedata import normalize
from uuid import UUID

from scim2_models import (
    InvalidPathException,
    InvalidValueException,
    Meta,
    MutabilityException,
    NotFoundException,
    PatchOp,
    SearchRequest,
    UniquenessException,
)
from sqlalchemy import ARRAY, ColumnElement, Uuid, all_, any_, delete, func, literal, select, true
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError

from auth.people.models import User as Person
from auth.scim import schemas
from auth.scim.filters import Attributes, Several, simple_values
from auth.scim.models import Group, GroupMember
from auth.scim.searching import search
from auth.scim.users import MANAGED
from core.access import Principal
from core.database import TenantSession
from tenants.audit.service import audit

ATTRIBUTES: Attributes = {
    "id": Group.id,
    "external_id": Group.external_id,
    "display_name": Group.display_name,
    "members": Several(
        GroupMember.__table__, GroupMember.group_id == Group.id, {"value": GroupMember.user_id}
    ),
    "meta": {"created": Group.created_at, "last_modified": Group.updated_at},
}


MEMBER = ("value", "$ref")
"""The parts of a member."""


class Members:
    """What becomes of a group's members: everybody goes or stays, then these come, and those go."""

    def __init__(self, everybody_goes: bool = False, come: Iterable[str] = ()) -> None:
        self.everybody_goes = everybody_goes
        self.come = set(come)
        self.go: set[str] = set()

    def __bool__(self) -> bool:
        return self.everybody_goes or bool(self.come or self.go)

    def add(self, ids: Iterable[str]) -> None:
        ids = set(ids)
        self.come |= ids
        self.go -= ids

    def remove(self, ids: Iterable[str]) -> None:
        ids = set(ids)
        self.come -= ids
        self.go |= ids

    def clear(self) -> None:
        self.everybody_goes, self.come, self.go = True, set(), set()


def take_members(patch: PatchOp[schemas.Group]) -> tuple[Members, bool]:
    """What a PATCH says of a group's members, taken out of it, and whether something remains. Raises
    `InvalidPathException`, `InvalidFilterException`, `InvalidValueException`, `MutabilityException`."""
    members, others = Members(), []
    for operation in patch.operations or []:
        path = operation.path
        if path is None and isinstance(operation.value, dict):
            # A directory may send everything that changed as one object.
            named = {key: key.lower().rpartition(":")[2] for key in operation.value}
            for key in [key for key, name in named.items() if name == "members"]:
                _apply(members, operation.op, operation.value.pop(key))
            if operation.value:
                others.append(operation)
        elif path is not None and path.parts[:1] and path.parts[0].lower() == "members":
            if len(path.parts) > 1:
                raise MutabilityException(detail="A member is added or removed, and not changed.")
            if path.value_filter is None:
                _apply(members, operation.op, operation.value)
            elif operation.op == "remove":
                members.remove(simple_values(path.value_filter))
            else:
                raise InvalidPathException(detail="Members are added by the path `members`.")
        else:
            others.append(operation)
    if others:
        patch.operations = others
    return members, bool(others)


def _apply(members: Members, verb: str, value: Any) -> None:
    if verb == "remove" and value is None:
        members.clear()
        return
    values = value if isinstance(value, list) else [] if value is None else [value]
    named = [each.get("value") if isinstance(each, dict) else each for each in values]
    ids = [each for each in named if isinstance(each, str)]
    if len(ids) < len(named):
        raise InvalidValueException(detail='Members are objects such as `{"value": "<id of a user>"}`.')
    if verb == "remove":
        members.remove(ids)
        return
    if verb == "replace":
        members.clear()
    members.add(ids)


def listed_members(value: Any) -> Members:
    """The members of a group that is made or replaced. Raises `InvalidValueException`."""
    members = Members(everybody_goes=True)
    _apply(members, "add", value)
    return members


async def find_groups(session: TenantSession, wanted: SearchRequest[Any]) -> tuple[int, Sequence[Group]]:
    """How many groups are wanted, and a page of them. Raises `InvalidFilterException`."""
    return await search(session, Group, true(), ATTRIBUTES, wanted)


async def get_group(session: TenantSession, group_id: str, *, lock: bool) -> Group:
    """A group; `lock` keeps others from changing it until the transaction ends. Raises `NotFoundException`."""
    try:
        query = select(Group).where(Group.id == UUID(group_id))
    except ValueError:
        group = None
    else:
        group = await session.scalar(query.with_for_update() if lock else query)
    if group is None:
        raise NotFoundException(detail="No group here has this id.")
    return group


async def create_group(
    session: TenantSession, by: Principal, wanted: schemas.Group, members: Members
) -> Group:
    """Raises `UniquenessException`, `InvalidValueException`."""
    group = Group()
    session.add(group)
    await _write(session, group, wanted)
    await _add(session, group, members.come)
    audit(session, by, "group.created", group.id, name=group.display_name, added=len(members.come))
    return group


async def change_group(
    session: TenantSession, by: Principal, group: Group, wanted: schemas.Group, members: Members
) -> Sequence[UUID]:
    """Make a locked group what the directory says; whom that took out of it, or of its former name. Raises
    `UniquenessException`, `InvalidValueException`."""
    former = group.display_name
    group.version += 1
    await _write(session, group, wanted)
    of_group = GroupMember.group_id == group.id
    gone: list[UUID] = []
    if members.everybody_goes or members.go:
        which = (
            GroupMember.user_id != all_(_ids(members.come))
            if members.everybody_goes
            else GroupMember.user_id == any_(_ids(members.go))
        )
        gone += await session.scalars(
            delete(GroupMember).where(of_group, which).returning(GroupMember.user_id)
        )
    if former != group.display_name:
        gone += await session.scalars(select(GroupMember.user_id).where(of_group))
    await _add(session, group, members.come)
    audit(
        session,
        by,
        "group.updated",
        group.id,
        name=group.display_name,
        added=len(members.come),
        removed=len(gone),
    )
    return gone


async def delete_group(session: TenantSession, by: Principal, group: Group) -> Sequence[UUID]:
    """Delete a locked group; whom that took out of it."""
    gone = await session.scalars(
        delete(GroupMember).where(GroupMember.group_id == group.id).returning(GroupMember.user_id)
    )
    await session.delete(group)
    audit(session, by, "group.deleted", group.id, name=group.display_name)
    return gone.all()


async def _write(session: TenantSession, group: Group, wanted: schemas.Group) -> None:
    group.display_name = normalize("NFC", wanted.display_name or "")
    group.external_id = wanted.external_id
    if max(len(group.display_name), len(wanted.external_id or "")) > schemas.LONGEST_NAME:
        raise InvalidValueException(detail=f"A name has {schemas.LONGEST_NAME} characters at most.")
    try:
        await session.flush()
    except IntegrityError as error:
        raise UniquenessException(detail="A group here has this displayName.") from error


def _ids(texts: Iterable[str]) -> ColumnElement[list[UUID]]:
    """The ids that these texts name, as one value however many; nobody is called by what is no id."""
    found = []
    for text in texts:
        with suppress(ValueError):
            found.append(UUID(text))
    return literal(found, ARRAY(Uuid()))


async def _add(session: TenantSession, group: Group, come: set[str]) -> None:
    if not come:
        return
    known = select(literal(group.id, Uuid()), Person.id).where(MANAGED, Person.id == any_(_ids(come)))
    found = await session.scalar(select(func.count()).select_from(known.subquery()))
    if found != len(come):
        raise InvalidValueException(detail="Some of these members are no users here.")
    await session.execute(
        insert(GroupMember).from_select(["group_id", "user_id"], known).on_conflict_do_nothing()
    )


async def members_of(
    session: TenantSession, groups: Sequence[UUID], parts: Sequence[str]
) -> dict[str, list[dict[str, str]]]:
    """These parts of the members of each of these groups that has any, by the group's id."""
    if not groups:
        return {}
    rows = await session.execute(
        select(GroupMember.group_id, GroupMember.user_id)
        .where(GroupMember.group_id.in_(groups))
        .order_by(GroupMember.user_id)
    )
    found: dict[str, list[dict[str, str]]] = {}
    for group_id, user_id in rows:
        member = {"value": str(user_id), "$ref": f"Users/{user_id}"}
        found.setdefault(str(group_id), []).append({part: member[part] for part in parts})
    return found


def resource(group: Group) -> schemas.Group:
    """A group as it goes over the wire, but for its members."""
    return schemas.Group(
        id=str(group.id),
        external_id=group.external_id,
        display_name=group.display_name,
        meta=Meta(
            resource_type="Group",
            created=group.created_at,
            last_modified=group.updated_at,
            version=f'W/"{group.version}"',
        ),
    )
