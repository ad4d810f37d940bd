"""People as a directory sees them: those whom it brought or took over, and nobody else. Not patients, not people who
were invited here, not local administrators."""

from collections.abc import Sequence
from typing import Any
from unicodedata import normalize
from uuid import UUID

from scim2_models import (
    GroupMembership,
    InvalidValueException,
    Meta,
    NotFoundException,
    Reference,
    Role,
    SearchRequest,
    UniquenessException,
)
from sqlalchemy import ARRAY, Text, any_, cast, delete, func, literal, or_, select, true
from sqlalchemy.exc import IntegrityError

from auth.people import seats
from auth.people.administration import let_go
from auth.people.models import User as Person
from auth.scim import schemas
from auth.scim.filters import Attributes, Several
from auth.scim.models import Group, GroupMember
from auth.scim.searching import search
from core.access import Principal
from core.clock import utcnow
from core.database import TenantSession
from tenants.audit.service import audit

MANAGED = Person.provisioned_at.is_not(None)

_emails = func.jsonb_array_elements(Person.profile["emails"]).table_valued("email").render_derived()
_roles = func.unnest(Person.mapped_roles.op("||")(Person.granted_roles)).table_valued("role").render_derived()

ATTRIBUTES: Attributes = {
    "id": Person.id,
    "external_id": Person.scim_external_id,
    "user_name": Person.user_name,
    "display_name": Person.profile["displayName"].astext,
    "active": Person.active,
    "name": {
        "formatted": Person.profile["name"]["formatted"].astext,
        "family_name": Person.profile["name"]["familyName"].astext,
        "given_name": Person.profile["name"]["givenName"].astext,
        "honorific_prefix": Person.profile["name"]["honorificPrefix"].astext,
    },
    "emails": Several(
        _emails,
        true(),
        {name: _emails.c.email.op("->>", return_type=Text())(name) for name in ("value", "type", "display")},
    ),
    "roles": Several(_roles, true(), {"value": cast(_roles.c.role, Text())}),
    "groups": Several(
        GroupMember.__table__, GroupMember.user_id == Person.id, {"value": GroupMember.group_id}
    ),
    "meta": {"created": Person.created_at, "last_modified": Person.updated_at},
}


async def find_users(session: TenantSession, wanted: SearchRequest[Any]) -> tuple[int, Sequence[Person]]:
    """How many people are wanted, and a page of them. Raises `InvalidFilterException`."""
    return await search(session, Person, MANAGED, ATTRIBUTES, wanted)


async def get_user(session: TenantSession, user_id: str, *, lock: bool) -> Person:
    """A person; `lock` keeps others from changing them until the transaction ends. Raises `NotFoundException`."""
    try:
        query = select(Person).where(Person.id == UUID(user_id), MANAGED)
    except ValueError:
        person = None
    else:
        person = await session.scalar(query.with_for_update() if lock else query)
    if person is None:
        raise NotFoundException(detail="No user here has this id.")
    return person


async def create_user(session: TenantSession, by: Principal, wanted: schemas.User, seat_limit: int) -> Person:
    """Make a person known, or take over somebody who is known by signing in. Raises `UniquenessException`,
    `QuotaExceeded`."""
    person = await _known(session, wanted)
    if person is None:
        person = Person(display_name="")
        session.add(person)
        action = "user.provisioned"
    else:
        action = "user.taken-over"
    person.provisioned_at = utcnow()
    wanted.active = wanted.active is not False
    person.active = wanted.active
    await _write(session, person, wanted)
    audit(session, by, action, person.id)
    await seats.take(session, seat_limit)
    return person


async def replace_user(
    session: TenantSession, by: Principal, person: Person, wanted: schemas.User, seat_limit: int
) -> Person:
    """Make a locked person what the directory says. Raises `UniquenessException`, `QuotaExceeded`."""
    was_active = person.active
    if wanted.active is not None and wanted.active != was_active:
        if wanted.active:
            person.active = True
        else:
            await let_go(session, person)
        audit(session, by, "user.reactivated" if person.active else "user.deactivated", person.id)
    person.version += 1
    await _write(session, person, wanted)
    audit(session, by, "user.updated", person.id)
    if person.active and not was_active:
        await seats.take(session, seat_limit)
    elif was_active and not person.active:
        await seats.give_back(session)
    return person


async def forget_user(session: TenantSession, by: Principal, person: Person) -> None:
    """Deactivate a locked person, whom the directory sees no more. The row stays: cases refer to it. What the
    directory calls them stays too, so that it finds the same person again."""
    await let_go(session, person)
    person.provisioned_at = person.user_name = None
    person.profile = {}
    await session.execute(delete(GroupMember).where(GroupMember.user_id == person.id))
    audit(session, by, "user.deprovisioned", person.id)
    await seats.give_back(session)


async def _known(session: TenantSession, wanted: schemas.User) -> Person | None:
    """Somebody of the staff who is known already: to the identity provider by one of the directory's names, to the
    directory itself from before, or as active under the same e-mail address. Raises `UniquenessException` where
    that leaves a choice."""
    names = [name for name in (wanted.user_name, wanted.external_id) if name]
    emails = [email.value.lower() for email in wanted.emails or () if email.value]
    query = select(Person).where(
        Person.provisioned_at.is_(None),
        Person.user_name.is_(None),
        literal("patient") != func.all(Person.mapped_roles.op("||")(Person.granted_roles)),
        or_(
            Person.external_id.in_(names),
            Person.scim_external_id.in_([wanted.external_id] if wanted.external_id else []),
            Person.active & (func.lower(Person.email) == any_(literal(emails, ARRAY(Text)))),
        ),
    )
    found = (await session.scalars(query.limit(2).with_for_update())).all()
    if len(found) > 1:
        raise UniquenessException(detail="Several people here have these names and e-mail addresses.")
    return found[0] if found else None


async def _write(session: TenantSession, person: Person, wanted: schemas.User) -> None:
    emails = [email for email in wanted.emails or () if email.value]
    name = wanted.name
    parts = [name.honorific_prefix, name.given_name, name.family_name] if name else []
    person.user_name = normalize("NFC", wanted.user_name or "")
    person.scim_external_id = wanted.external_id
    person.email = next((each.value for each in sorted(emails, key=lambda each: not each.primary)), None)
    person.display_name = (
        wanted.display_name
        or (name and name.formatted)
        or " ".join(part for part in parts if part)
        or person.user_name
    )
    person.profile = wanted.model_dump(include={"active", "display_name", "name", "emails"})
    if max(len(person.user_name), len(wanted.external_id or "")) > schemas.LONGEST_NAME:
        raise InvalidValueException(detail=f"A name has {schemas.LONGEST_NAME} characters at most.")
    try:
        await session.flush()
    except IntegrityError as error:
        raise UniquenessException(detail="Somebody here has this userName.") from error


async def memberships_of(session: TenantSession, people: Sequence[UUID]) -> dict[UUID, list[GroupMembership]]:
    """The groups of each of these people who is in any, by name."""
    if not people:
        return {}
    rows = await session.execute(
        select(GroupMember.user_id, Group.id, Group.display_name)
        .join(Group, Group.id == GroupMember.group_id)
        .where(GroupMember.user_id.in_(people))
        .order_by(Group.display_name)
    )
    found: dict[UUID, list[GroupMembership]] = {}
    for user_id, group_id, name in rows:
        found.setdefault(user_id, []).append(
            GroupMembership(
                value=str(group_id), ref=Reference(f"Groups/{group_id}"), display=name, type="direct"
            )
        )
    return found


def resource(person: Person, groups: list[GroupMembership] | None) -> schemas.User:
    """A person as they go over the wire."""
    return schemas.User.model_validate(
        person.profile
        | {
            "id": str(person.id),
            "externalId": person.scim_external_id,
            "userName": person.user_name,
            "active": person.active if "active" in person.profile else None,
            "groups": groups,
            "roles": [Role(value=role) for role in person.roles] or None,
            "meta": Meta(
                resource_type="User",
                created=person.created_at,
                last_modified=person.updated_at,
                version=f'W/"{person.version}"',
            ),
        }
    )
