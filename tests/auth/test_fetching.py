"""What may be fetched of an identity provider, asked of real servers."""

import ipaddress
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from auth.connections.fetching import AddressRefused, Fetcher, ProviderUnreachable, is_public
from core.clock import utcnow
from tests.fixtures.servers import serving


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "169.254.169.254", "0.0.0.0",
        "224.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1", "168.63.129.16",
        "::1", "::", "fe80::1", "fc00::1", "fd00:ec2::254", "ff02::1", "2001:db8::1",
        "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:10.0.0.1", "::ffff:168.63.129.16",
        "64:ff9b::a9fe:a9fe", "64:ff9b::7f00:1", "2002:7f00:1::1", "2002:a00:1::",
    ],
)  # fmt: skip
def test_an_address_of_our_own_network_is_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address", ["20.190.128.1", "2603:1006::1", "::ffff:20.190.128.1", "64:ff9b::14be:8001"]
)
def test_an_address_of_the_internet_is_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/", "https://localhost/", "https://[::1]/", "https://[::ffff:127.0.0.1]/",
        "https://169.254.169.254/metadata/identity", "https://2130706433/", "https://0x7f.1/", "https://127.1/",
        "https://0/", "https://10.0.0.1:8443/", "http://127.0.0.1/", "http://20.190.128.1/",
        "https://user:password@20.190.128.1/", "file:///etc/passwd", "ftp://20.190.128.1/", "gopher://127.0.0.1/",
        "/etc/passwd", "", "https://", "https://idp.example:port/",
    ],
)  # fmt: skip
async def test_an_address_that_must_not_be_asked_is_refused(url: str) -> None:
    with pytest.raises(AddressRefused) as refusal:
        await Fetcher().fetch(url, at_most=1000)
    assert "password@" not in refusal.value.detail


async def test_plain_http_is_for_loopback_alone_even_when_named() -> None:
    with pytest.raises(AddressRefused, match="https"):
        await Fetcher("20.190.128.1").fetch("http://20.190.128.1/", at_most=1000)


@contextmanager
def idp() -> Iterator[str]:
    """A server that answers well and badly; yields its base URL."""

    async def good(request: Request) -> Response:
        return PlainTextResponse(f"for {request.headers['Host']}")

    async def away(request: Request) -> Response:
        return RedirectResponse("/good")

    async def large(request: Request) -> Response:
        async def body() -> object:
            for _ in range(100):
                yield b"x" * 1000

        return StreamingResponse(body())  # type: ignore[arg-type]

    async def zipped(request: Request) -> Response:
        return Response(b"\x1f\x8b", headers={"Content-Encoding": "gzip"})

    async def silent(request: Request) -> Response:
        async def body() -> object:
            yield b"x"
            await request.receive()  # until the client has gone
            await request.receive()

        return StreamingResponse(body())  # type: ignore[arg-type]

    routes = [Route(f"/{each.__name__}", each) for each in (good, away, large, zipped, silent)]
    with serving(Starlette(routes=routes)) as url:
        yield url


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with idp() as url:
        yield url


async def test_a_host_of_our_own_network_is_asked_when_the_operator_names_it(server: str) -> None:
    host = server.removeprefix("http://")
    assert (
        await Fetcher(" 127.0.0.1, other.example").fetch(f"{server}/good", at_most=1000)
        == f"for {host}".encode()
    )
    with pytest.raises(AddressRefused):
        await Fetcher("other.example").fetch(f"{server}/good", at_most=1000)


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/away", "redirects"),
        ("/large", "more than 5000 bytes"),
        ("/zipped", "compressed"),
        ("/none", "status 404"),
    ],
)
async def test_an_answer_that_is_no_document_is_refused(server: str, path: str, says: str) -> None:
    with pytest.raises(ProviderUnreachable, match=says):
        await Fetcher("127.0.0.1").fetch(server + path, at_most=5000)


async def test_an_answer_that_does_not_end_is_not_waited_for(server: str) -> None:
    with pytest.raises(ProviderUnreachable, match=r"within 0\.3 s"):
        await Fetcher("127.0.0.1", time_limit_s=0.3).fetch(f"{server}/silent", at_most=5000)


async def test_nobody_at_the_address_is_said_so() -> None:
    for url in ("https://127.0.0.1:1/", "https://no-such-host.invalid/"):
        with pytest.raises(ProviderUnreachable, match="cannot be reached"):
            await Fetcher("127.0.0.1").fetch(url, at_most=5000)


async def test_the_certificate_is_compared_with_the_name_although_the_address_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(utcnow() - timedelta(days=1))
        .not_valid_after(utcnow() + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (tmp_path / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    (tmp_path / "certificate.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    async def hello(request: Request) -> Response:
        return PlainTextResponse("hello")

    app = Starlette(routes=[Route("/", hello)])
    with serving(app, ssl_keyfile=tmp_path / "key.pem", ssl_certfile=tmp_path / "certificate.pem") as url:
        port = url.rpartition(":")[2]
        fetcher = Fetcher("localhost,127.0.0.1")
        with pytest.raises(ProviderUnreachable, match="certificate"):  # by nobody we trust
            await fetcher.fetch(f"https://localhost:{port}/", at_most=1000)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
        assert ssl.create_default_context().cert_store_stats()["x509"] == 1
        assert await fetcher.fetch(f"https://localhost:{port}/", at_most=1000) == b"hello"
        with pytest.raises(ProviderUnreachable, match="certificate"):  # for another name
            await fetcher.fetch(f"https://127.0.0.1:{port}/", at_most=1000)
