"""Fetching what identity providers publish, without being led into our own network.

Whoever names an address has our servers ask it, and those stand where cloud metadata, databases and admin consoles
answer without a password. So an address is https, its name is resolved once, every answer must be public, and the
connection is made to that very address (a second look-up could say something else), while TLS still verifies the
name. Redirects are not followed. What comes back is bounded in size and in time.

Proxies of the environment are not used: behind one, nothing said here would hold.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Collection, Mapping

import httpx

from core.problems import Invalid, Unavailable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

TIME_LIMIT_S = 10.0
_MOST_ADDRESSES = 4  # of one name, tried one after the other

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address
# Public by its number, but every virtual machine of Azure reaches its host's agent there.
_AZURE_AGENT = ipaddress.IPv4Address("168.63.129.16")


class AddressRefused(Invalid):
    slug, title = "address-refused", "The address must not be fetched"


class ProviderUnreachable(Unavailable):
    slug, title = "provider-unreachable", "The identity provider's address gave no usable answer"


def is_public(address: Address) -> bool:
    """Whether an address, and every IPv4 address that it carries inside, belongs to the public internet."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
        if address in _NAT64:
            inner.append(ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF))
        if not all(is_public(each) for each in inner if each is not None):
            return False
        if address.ipv4_mapped is not None:
            return True
    return address.is_global and not address.is_multicast and address != _AZURE_AGENT


class GuardedTransport(httpx.AsyncBaseTransport):
    """httpx's transport behind the rules of this module, for clients of libraries too. `allow` names hosts whose
    addresses may be private, and on loopback plain http. Raises `AddressRefused`."""

    def __init__(self, allow: Collection[str] = ()) -> None:
        self._allow = frozenset(allow)
        # A kept connection is found again by its address alone, whatever name its certificate was verified for.
        self._inner = httpx.AsyncHTTPTransport(limits=httpx.Limits(max_keepalive_connections=0))

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        failure: httpx.HTTPError = httpx.ConnectError("no address")
        for address in (await self._addresses(request.url))[:_MOST_ADDRESSES]:
            to_address = httpx.Request(
                request.method,
                request.url.copy_with(host=str(address)),
                headers=request.headers,  # with the name in Host
                stream=request.stream,
                extensions=request.extensions | {"sni_hostname": request.url.host},
            )
            try:
                return await self._inner.handle_async_request(to_address)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                failure = error
        raise failure

    async def _addresses(self, url: httpx.URL) -> list[Address]:
        if url.scheme not in ("https", "http") or not url.host or url.userinfo:
            raise AddressRefused("Give a https address without user name and password.")
        try:
            found = await asyncio.get_running_loop().getaddrinfo(
                url.host, url.port or 443, type=socket.SOCK_STREAM
            )
        except (OSError, UnicodeError) as error:
            raise httpx.ConnectError("the name does not resolve") from error
        # Without the scope of `fe80::1%eth0`, which is not public anyway.
        addresses = [ipaddress.ip_address(str(sockaddr[0]).partition("%")[0]) for *_, sockaddr in found]
        allowed = url.host in self._allow
        if url.scheme == "http" and not (allowed and all(each.is_loopback for each in addresses)):
            raise AddressRefused(
                f"{url.host} must be fetched by https (http only on loopback, of a host that "
                "DERMADETECT_SSO_FETCH_ALLOW names)."
            )
        if not allowed and not all(map(is_public, addresses)):
            raise AddressRefused(
                f"{url.host} is not on the public internet. If it is an identity provider in your own network, the "
                "operator names it in DERMADETECT_SSO_FETCH_ALLOW."
            )
        return addresses

    async def aclose(self) -> None:
        await self._inner.aclose()


class Fetcher:
    """Asks identity providers. `allow` is the setting `sso_fetch_allow`: hosts, separated by commas."""

    def __init__(self, allow: str = "", time_limit_s: float = TIME_LIMIT_S) -> None:
        self._allow = frozenset(host.strip().lower() for host in allow.split(",") if host.strip())
        self._time_limit_s = time_limit_s

    def transport(self) -> GuardedTransport:
        """A new transport under the same rules, for a client that sends more than a GET."""
        return GuardedTransport(self._allow)

    async def fetch(self, url: str, *, at_most: int) -> bytes:
        """The document at `url`, of at most so many bytes. Raises `AddressRefused`, `ProviderUnreachable`."""
        response = await self.ask("GET", url, at_most=at_most)
        if response.status_code != 200:
            raise ProviderUnreachable(
                f"It answered with status {response.status_code} instead of a document."
            )
        return response.content

    async def ask(
        self,
        method: str,
        url: str,
        *,
        at_most: int,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """The whole answer, whatever its status but a redirect, with a body of at most so many bytes. Raises
        `AddressRefused`, `ProviderUnreachable`."""
        # Not compressed: a small answer must not become a large one.
        plain = {**(headers or {}), "Accept-Encoding": "identity"}
        try:
            async with (
                asyncio.timeout(self._time_limit_s),
                httpx.AsyncClient(transport=self.transport(), timeout=self._time_limit_s) as client,
                client.stream(method, url, content=content, headers=plain) as response,
            ):
                body = await _read(response, at_most)
                return httpx.Response(response.status_code, headers=response.headers, content=body)
        except httpx.InvalidURL:
            raise AddressRefused(
                "The address cannot be read; give one such as https://idp.example/metadata."
            ) from None
        except (TimeoutError, httpx.TimeoutException):
            raise ProviderUnreachable(f"No whole answer came within {self._time_limit_s:g} s.") from None
        except httpx.HTTPError as error:
            raise ProviderUnreachable(
                f"The address cannot be reached ({type(error).__name__}); check its name, port and certificate."
            ) from error


async def _read(response: httpx.Response, at_most: int) -> bytes:
    if response.is_redirect:
        raise ProviderUnreachable("It redirects to another address, which is not followed; give that one.")
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise ProviderUnreachable("It answered compressed, although it was asked not to.")
    body = b""
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > at_most:
            raise ProviderUnreachable(f"The document has more than {at_most} bytes.")
    return body
