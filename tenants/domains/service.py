"""A tenant's own domains: claimed, proven by a DNS record, then routed like its slug's host.

A domain only routes. Sign-in and the issuer of tokens stay on the home host, so adding and removing one changes
nothing at the identity provider.
"""

import secrets
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

import idna
from sqlalchemy import select

from core.clock import utcnow
from core.database import ControlSession
from tenants.audit.service import record
from tenants.directory.models import Host, Tenant
from tenants.directory.service import find_tenant, next_epoch
from tenants.domains.errors import BadDomain, DomainNotFound, DomainNotProven, DomainTaken
from tenants.domains.models import DomainClaim

# Opens a control transaction of its own: none stays open while the network is asked.
Transactions = Callable[[], AbstractAsyncContextManager[ControlSession]]
# The texts published at a name; none where the name does not exist. Raises `Unavailable`.
TextRecords = Callable[[str], Awaitable[set[str]]]


@dataclass(frozen=True)
class Domain:
    """A host of a tenant. `record` must hold the text `challenge` before a claimed one is routed."""

    host: str
    kind: str  # home, alias (of a present or former slug), custom, or claimed
    record: str | None = None
    challenge: str | None = None


def normalise(domain: str, base_domain: str) -> str:
    """The ASCII form of a domain (IDNA 2008, RFC 5891; UTS 46). Raises `BadDomain`, also for those below the
    platform's own, which are slugs'."""
    try:
        ascii_form = idna.encode(domain.strip().rstrip("."), uts46=True).decode().lower()
    except UnicodeError as error:  # idna's own errors are some
        raise BadDomain(f"{domain!r} is not a domain name: {error}.") from None
    if "." not in ascii_form or ascii_form.rpartition(".")[2].isdigit():
        raise BadDomain(f"{domain!r} is not a full domain name, such as derma.clinic.example.")
    if f".{ascii_form}".endswith(f".{base_domain}"):
        raise BadDomain(f"{domain!r} lies below {base_domain}; there, a tenant's slug names its host.")
    return ascii_form


def _claimed(claim: DomainClaim) -> Domain:
    return Domain(
        claim.domain, "claimed", f"_dermadetect-challenge.{claim.domain}", f"dermadetect={claim.challenge}"
    )


async def add_domain(session: ControlSession, slug: str, domain: str, base_domain: str) -> Domain:
    """Claim a domain; what it gives back says which record proves it. Idempotent. Raises `BadDomain`,
    `DomainTaken`, `TenantNotFound`."""
    tenant = await find_tenant(session, slug, lock=True)
    name = normalise(domain, base_domain)
    host = await _own_host(session, tenant, name)
    if host is not None and host.removed_at is None:
        return Domain(name, "custom")
    claim = await _find_claim(session, tenant, name)
    if claim is None:
        claim = DomainClaim(tenant_id=tenant.id, domain=name, challenge=secrets.token_urlsafe(24))
        session.add(claim)
        record(session, tenant, "domain.claimed", domain=name)
        await session.flush()
    return _claimed(claim)


async def verify_domain(
    control: Transactions, slug: str, domain: str, base_domain: str, text_records: TextRecords
) -> Domain:
    """Look for the record, and route the domain if it is there. Idempotent.

    Raises `BadDomain`, `DomainTaken`, `DomainNotFound`, `DomainNotProven`, and what `text_records` raises.
    """
    async with control() as session:
        wanted = await add_domain(session, slug, domain, base_domain)
    if wanted.record is None:
        return wanted
    if wanted.challenge not in await text_records(wanted.record):
        raise DomainNotProven(
            f"Publish a TXT record at {wanted.record} with the text {wanted.challenge}; "
            "a new record can take minutes to be seen."
        )
    async with control() as session:
        tenant = await find_tenant(session, slug, lock=True)
        epoch = await next_epoch(
            session
        )  # its lock makes two tenants that prove one domain follow each other
        host = await _own_host(session, tenant, wanted.host)
        claim = await _find_claim(session, tenant, wanted.host)
        if claim is not None:
            if host is None:
                session.add(Host(host=wanted.host, tenant_id=tenant.id))
            else:
                host.removed_at = None
            await session.delete(claim)
            tenant.epoch = epoch
            record(session, tenant, "domain.verified", domain=wanted.host)
    return Domain(wanted.host, "custom")


async def remove_domain(session: ControlSession, slug: str, domain: str, base_domain: str) -> None:
    """Route a domain no more, or take a claim back. Raises `BadDomain`, `DomainNotFound`, `TenantNotFound`."""
    tenant = await find_tenant(session, slug, lock=True)
    name = normalise(domain, base_domain)
    claim = await _find_claim(session, tenant, name)
    host = await session.scalar(select(Host).where(Host.host == name, Host.tenant_id == tenant.id))
    if claim is not None:
        await session.delete(claim)
    elif host is not None and host.removed_at is None:
        host.removed_at = utcnow()
        tenant.epoch = await next_epoch(session)
    else:
        raise DomainNotFound(f"{name} is none of the domains of {tenant.slug}.")
    record(session, tenant, "domain.removed", domain=name)


async def list_domains(session: ControlSession, slug: str, base_domain: str) -> list[Domain]:
    """The hosts a tenant answers at, the home host first, and the domains it has yet to prove."""
    tenant = await find_tenant(session, slug)
    hosts = await session.scalars(
        select(Host).where(Host.tenant_id == tenant.id, Host.removed_at.is_(None)).order_by(Host.host)
    )
    claims = await session.scalars(
        select(DomainClaim).where(DomainClaim.tenant_id == tenant.id).order_by(DomainClaim.domain)
    )
    kinds = [
        Domain(
            host.host,
            "home"
            if host.host == tenant.home_host
            else "alias"
            if host.host.endswith(f".{base_domain}")
            else "custom",
        )
        for host in hosts
    ]
    return sorted(kinds, key=lambda each: each.kind != "home") + [_claimed(claim) for claim in claims]


async def _own_host(session: ControlSession, tenant: Tenant, name: str) -> Host | None:
    host = await session.get(Host, name)
    if host is not None and host.tenant_id != tenant.id:
        raise DomainTaken(f"{name} is or was another tenant's, and is never handed on.")
    return host


async def _find_claim(session: ControlSession, tenant: Tenant, name: str) -> DomainClaim | None:
    claim: DomainClaim | None = await session.scalar(
        select(DomainClaim).where(DomainClaim.tenant_id == tenant.id, DomainClaim.domain == name)
    )
    return claim
