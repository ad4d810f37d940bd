"""Verbs on the tenant directory. Each change increments the control epoch, so that every process knows it
within a second."""

import itertools
import re
import secrets
import string
from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert

from core.cells import HOME
from core.database import ControlSession
from tenants.audit.service import record
from tenants.directory.errors import BadSlug, SlugTaken, TenantNotFound, WrongState
from tenants.directory.models import NOBODYS, ControlEpoch, Host, Revocation, Tenant

_SLUG = re.compile(r"[a-z0-9](?:[a-z0-9-]{1,38})[a-z0-9]")
# After a grant, the next switch of roles took 8.6 ms in each connection of a login that could become 2,000, and 210 ms
# of one that could become 10,000.
TENANTS_PER_LOGIN = 500

_RESERVED = frozenset({"www", "api", "admin", "platform", "auth", "app", "static", "mail", "status", "docs"})


async def next_epoch(session: ControlSession) -> int:
    """Increment the control epoch; its row stays locked until this transaction ends."""
    value: int | None = await session.scalar(
        update(ControlEpoch)
        .where(ControlEpoch.id == 1)
        .values(value=ControlEpoch.value + 1)
        .returning(ControlEpoch.value)
    )
    assert value is not None
    return value


def new_key() -> str:
    """A tenant key: 16 random lowercase letters and digits, a letter first."""
    return secrets.choice(string.ascii_lowercase) + "".join(
        secrets.choice(string.ascii_lowercase + string.digits) for _ in range(15)
    )


def check_slug(slug: str) -> None:
    """Raise `BadSlug` unless `slug` can be the first label of a host (RFC 1123) and is not reserved."""
    if not _SLUG.fullmatch(slug) or "--" in slug or slug in _RESERVED:
        raise BadSlug(
            f"{slug!r} is not usable: 3 to 40 lowercase letters, digits and single hyphens, not starting or "
            f"ending with a hyphen, and none of {', '.join(sorted(_RESERVED))}."
        )


async def reserve_tenant(
    session: ControlSession,
    *,
    slug: str,
    name: str,
    plan: str,
    base_domain: str,
    schema_revision: str,
    cell: str = HOME,
    successor_of: str | None = None,
) -> Tenant:
    """The tenant with this slug: the row an earlier attempt left, or else one from the pool whose schema is at
    `schema_revision`, which is active at once, or else a new row in state `provisioning`. One that is made of what
    the tenant with the key `successor_of` had is not from the pool, and gets slug and hosts of that one if it is purged.

    Raises `BadSlug`, `SlugTaken` where the slug belongs to a tenant of another name or plan, and `WrongState`
    where its creation is being undone.
    """
    check_slug(slug)
    existing = await session.scalar(select(Tenant).where(Tenant.slug == slug))
    predecessor = None
    if existing is not None and existing.state == "closed" and existing.key == successor_of:
        predecessor, existing = existing, None
        # From now on it is called by its key, which is no host of anybody.
        predecessor.slug = predecessor.home_host = predecessor.key
        await session.flush()
    if existing is not None:
        if existing.state == "closed":
            raise SlugTaken(f"{slug!r} was {existing.name}'s, which is purged; slugs are never reused.")
        check_same(existing, name, plan)
        if existing.state == "rolling-back":
            raise WrongState(
                f"The creation of {slug!r} is being undone; finish that with `--rollback` first."
            )
        if existing.state == "provisioning" and existing.cell != cell:
            raise SlugTaken(
                f"{slug!r} is half made in the cell {existing.cell!r}; repeat the command with that cell."
            )
        return existing
    home_host = f"{slug}.{base_domain}"
    if predecessor is None and await session.get(Host, home_host) is not None:
        raise SlugTaken(f"{home_host!r} belonged to another tenant and is never reused; choose another slug.")
    named = {
        "slug": slug,
        "name": name,
        "plan": plan,
        "home_host": home_host,
        "cell": cell,
        "epoch": await next_epoch(session),
    }
    tenant = None if successor_of else await _claim_warm(session, schema_revision, named)
    if tenant is None:
        tenant = Tenant(key=new_key(), login_group=await free_group(session, cell), **named)
        session.add(tenant)
        await session.flush()
    if predecessor is None:
        session.add(Host(host=home_host, tenant_id=tenant.id))
    else:
        await session.execute(
            update(Host).where(Host.tenant_id == predecessor.id).values(tenant_id=tenant.id)
        )
        predecessor.succeeded_by = tenant.id
        record(session, predecessor, "tenant.succeeded", by=tenant.key)
    record(session, tenant, "tenant.reserved", slug=slug, plan=plan, cell=cell)
    if tenant.state == "active":
        record(session, tenant, "tenant.active", warm=True)
    await session.flush()
    return tenant


async def free_group(session: ControlSession, cell: str) -> int:
    """The first group of tenants in a cell that has room. Two that ask at once may overfill one, which does no harm."""
    lives = Tenant.state.not_in(("closed", "rolled-back"))
    groups = select(Tenant.login_group, func.count()).where(Tenant.cell == cell, lives)
    sizes = dict((await session.execute(groups.group_by(Tenant.login_group))).all())
    return next(group for group in itertools.count() if sizes.get(group, 0) < TENANTS_PER_LOGIN)


def check_same(tenant: Tenant, name: str, plan: str) -> None:
    """Raise `SlugTaken` unless a command that names the tenant so means this one."""
    if (tenant.name, tenant.plan) != (name, plan):
        raise SlugTaken(
            f"{tenant.slug!r} belongs to {tenant.name!r} on the plan {tenant.plan!r}; choose another slug, "
            "or repeat the command with that name and plan."
        )


async def _claim_warm(
    session: ControlSession, schema_revision: str, named: Mapping[str, object]
) -> Tenant | None:
    warm = select(Tenant.id).where(
        Tenant.state == "warm",
        Tenant.schema_revision == schema_revision,
        Tenant.cell == named["cell"],
    )
    claimed: Tenant | None = await session.scalar(
        update(Tenant)
        .where(Tenant.id == warm.limit(1).with_for_update(skip_locked=True).scalar_subquery())
        .values(state="active", **named)
        .returning(Tenant)
    )
    return claimed


async def find_tenant(session: ControlSession, slug: str, *, lock: bool = False) -> Tenant:
    """The tenant with this slug, or else with this key. Raises `TenantNotFound`."""
    query = (
        select(Tenant)
        .where((Tenant.slug == slug) | (Tenant.key == slug))
        .order_by((Tenant.slug == slug).desc())
        .limit(1)
    )
    tenant = await session.scalar(query.with_for_update() if lock else query)
    if tenant is None:
        raise TenantNotFound(f"No tenant is called {slug!r}; `dermadetect tenants list` shows them.")
    return tenant


async def update_tenant(session: ControlSession, slug: str, changes: Mapping[str, str | None]) -> Tenant:
    """Set some of a tenant's `name`, `ai_model` and `image_links`. Raises `TenantNotFound`."""
    tenant = await find_tenant(session, slug, lock=True)
    changed = {name: value for name, value in changes.items() if getattr(tenant, name) != value}
    if changed:
        for name, value in changed.items():
            setattr(tenant, name, value)
        tenant.epoch = await next_epoch(session)
        record(session, tenant, "tenant.updated", **changed)
        await session.flush()
    return tenant


async def rename(session: ControlSession, slug: str, new: str, base_domain: str) -> Tenant:
    """Give a tenant another slug, and with it another host. The hosts it had go on answering, its home host stays what
    signs people in. Idempotent. Raises `TenantNotFound`, `BadSlug`, `SlugTaken`."""
    tenant = await find_tenant(session, slug, lock=True)
    if tenant.slug == new:
        return tenant
    check_slug(new)
    epoch = await next_epoch(session)  # its lock makes two tenants that want one slug follow each other
    host = await session.get(Host, f"{new}.{base_domain}")
    if host is not None and host.tenant_id != tenant.id:
        raise SlugTaken(f"{new!r} is or was another tenant's and is never reused; choose another slug.")
    if host is None:
        session.add(Host(host=f"{new}.{base_domain}", tenant_id=tenant.id))
    record(session, tenant, "tenant.renamed", old=tenant.slug, new=new)
    tenant.slug, tenant.epoch = new, epoch
    await session.flush()
    return tenant


async def list_tenants(session: ControlSession, state: str | None = None) -> Sequence[Tenant]:
    """All tenants by slug, or those in one state; only by asking for the state, those that are nobody's."""
    query = select(Tenant).order_by(Tenant.slug)
    wanted = Tenant.state == state if state else Tenant.state.not_in(NOBODYS)
    return (await session.scalars(query.where(wanted))).all()


async def page_of_tenants(
    session: ControlSession, state: str | None, limit: int, after: UUID | None
) -> Sequence[Tenant]:
    """Tenants in one state, or all, newest first, from the one after the row `after` on."""
    query = select(Tenant).order_by(Tenant.id.desc()).limit(limit)
    if state is not None:
        query = query.where(Tenant.state == state)
    if after is not None:
        query = query.where(Tenant.id < after)
    return (await session.scalars(query)).all()


async def move(
    session: ControlSession, tenant: Tenant, *, sources: Sequence[str], target: str, reason: str | None
) -> Tenant:
    """Bring a locked tenant to the state `target`. Idempotent. Raises `WrongState` from a state not in `sources`."""
    if tenant.state == target:
        return tenant
    if tenant.state not in sources:
        raise WrongState(
            f"{tenant.slug} is {tenant.state}; only a tenant that is {' or '.join(sources)} can become {target}."
        )
    epoch = await next_epoch(session)
    tenant.state, tenant.state_reason, tenant.epoch = target, reason, epoch
    record(session, tenant, f"tenant.{target}", reason=reason)
    await session.flush()
    return tenant


async def suspend(session: ControlSession, slug: str, reason: str) -> Tenant:
    """Stop serving a tenant, in every process within a second. Idempotent. Raises `WrongState`."""
    tenant = await find_tenant(session, slug, lock=True)
    return await move(session, tenant, sources=("active",), target="suspended", reason=reason)


async def resume(session: ControlSession, slug: str) -> Tenant:
    """Serve a suspended tenant again. Idempotent. Raises `WrongState`."""
    tenant = await find_tenant(session, slug, lock=True)
    return await move(session, tenant, sources=("suspended",), target="active", reason=None)


async def activate(session: ControlSession, tenant: Tenant, schema_revision: str) -> Tenant:
    """The last step of provisioning: from now on the tenant is served."""
    locked = await session.get_one(Tenant, tenant.id, with_for_update=True)
    with session.no_autoflush:  # all in one UPDATE
        locked.schema_revision = schema_revision
        return await move(session, locked, sources=("provisioning",), target="active", reason=None)


async def begin_rollback(session: ControlSession, slug: str, name: str, plan: str) -> Tenant:
    """The tenant whose unfinished creation is to be undone; from now on `provision` refuses it. Idempotent.

    Raises `TenantNotFound`, `SlugTaken` where the slug belongs to a tenant of another name or plan, and
    `WrongState` once its creation has finished.
    """
    tenant = await session.scalar(select(Tenant).where(Tenant.slug == slug).with_for_update())
    if tenant is None:
        raise TenantNotFound(f"No tenant is called {slug!r}; there is nothing to undo.")
    check_same(tenant, name, plan)
    return await move(session, tenant, sources=("provisioning",), target="rolling-back", reason=None)


async def finish_rollback(session: ControlSession, tenant: Tenant) -> Tenant:
    """Give slug and host back: to the purged tenant that this was to succeed, or else to whoever asks. The row stays: its
    key is never used again, since names of deleted containers are not free for a while, and what is in the audit log goes
    on having a subject."""
    locked = await session.get_one(Tenant, tenant.id, with_for_update=True)
    slug = locked.slug
    locked.slug = locked.home_host = f"rolled-back:{tenant.key}"
    await session.flush()
    purged = await session.scalar(select(Tenant).where(Tenant.succeeded_by == tenant.id).with_for_update())
    if purged is None:
        await session.execute(delete(Host).where(Host.tenant_id == tenant.id))
    else:
        await _give_back(session, purged, tenant, slug)
    return await move(session, locked, sources=("rolling-back",), target="rolled-back", reason=None)


async def _give_back(session: ControlSession, purged: Tenant, tenant: Tenant, slug: str) -> None:
    hosts = select(Host.host).where(Host.tenant_id == tenant.id).order_by(Host.created_at).limit(1)
    # The first host that a tenant ever had is its home.
    purged.slug, purged.home_host = slug, (await session.execute(hosts)).scalar_one()
    purged.succeeded_by, purged.epoch = None, await next_epoch(session)
    await session.execute(update(Host).where(Host.tenant_id == tenant.id).values(tenant_id=purged.id))
    record(session, purged, "tenant.succession-undone", by=tenant.key)


async def revoke_sessions(session: ControlSession, tenant_key: str, ended: Mapping[UUID, datetime]) -> None:
    """Refuse everywhere the tokens that bear the id of one of these sign-in sessions, or of a machine client's secret.
    `ended` says of each id when the last of its tokens dies. Idempotent."""
    epoch = await next_epoch(session)
    rows = [
        {"tenant_key": tenant_key, "session_id": session_id, "expires_at": expires_at, "epoch": epoch}
        for session_id, expires_at in ended.items()
    ]
    await session.execute(insert(Revocation).values(rows).on_conflict_do_nothing())
