"""Texts published in the DNS."""

from urllib.parse import urlsplit

from dns.asyncresolver import Resolver
from dns.exception import DNSException
from dns.nameserver import Do53Nameserver
from dns.resolver import NXDOMAIN, NoAnswer

from core.problems import Unavailable
from tenants.domains.service import TextRecords


class ResolverUnavailable(Unavailable):
    slug, title = "resolver-unavailable", "The DNS resolver does not answer"


def text_records(servers: str) -> TextRecords:
    """Asks `servers` (`192.0.2.1, [2001:db8::1]:5353`; empty: the machine's own resolver). The answer is never from a
    cache of ours: whoever has just published a record wants to see it."""

    async def look_up(name: str) -> set[str]:
        resolver = Resolver(configure=not servers)
        resolver.cache = None
        resolver.lifetime = 5
        if servers:
            resolver.nameservers = [_nameserver(each.strip()) for each in servers.split(",")]
        try:
            answer = await resolver.resolve(f"{name}.", "TXT")
        except (NXDOMAIN, NoAnswer):
            return set()
        except DNSException as error:
            raise ResolverUnavailable(f"{name} could not be looked up: {type(error).__name__}.") from error
        return {b"".join(row.strings).decode("utf-8", "replace") for row in answer}

    return look_up


def _nameserver(address: str) -> Do53Nameserver:
    parts = urlsplit(f"//{address}")
    return Do53Nameserver(parts.hostname or "", parts.port or 53)
