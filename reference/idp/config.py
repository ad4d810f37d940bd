"""What the reference identity provider knows: its key, the people, and who may ask."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from core.clock import utcnow

Signed = Literal["assertion", "response", "both"]


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key and its certificate, PEM."""

    private_pem: bytes = field(repr=False)
    certificate_pem: bytes

    @classmethod
    def generate(cls, common_name: str = "reference identity provider") -> "SigningKey":
        """A new RSA-2048 key with a self-signed certificate of one year."""
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        now = utcnow()
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=365))
            .sign(key, hashes.SHA256())
        )
        private_pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return cls(private_pem, certificate.public_bytes(serialization.Encoding.PEM))

    @classmethod
    def read(cls, private_key: Path, certificate: Path) -> "SigningKey":
        """Read both from PEM files."""
        return cls(private_key.read_bytes(), certificate.read_bytes())


@dataclass(frozen=True, slots=True)
class User:
    """A person of the directory."""

    name_id: str
    email: str
    display_name: str
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ServiceProvider:
    """Someone who may ask for sign-ins. Responses go to `acs_url` and nowhere else."""

    entity_id: str
    acs_url: str
    certificate_pem: bytes | None = None
    requires_signed_requests: bool = False


def default_directory(sp: ServiceProvider) -> tuple[User, ...]:
    """One person of each calling at the service provider's own domain."""
    domain = urlsplit(sp.acs_url).hostname or "example.org"
    return tuple(
        User(f"u-{login}@{domain}", f"{login}@{domain}", name, (group,))
        for login, name, group in (
            ("coordinator", "Carla Cordes (coordinator)", "derma-coordinators"),
            ("dermatologist", "Dr. Dana Derm (dermatologist)", "derma-physicians"),
            ("gp", "Dr. Gerd Hausmann (general practitioner)", "derma-referrers"),
            ("admin", "Ada Adler (administrator)", "derma-admins"),
        )
    )


@dataclass(frozen=True, slots=True)
class IdpConfig:
    """`base_url` is where the application is reached, without a slash at the end."""

    base_url: str
    key: SigningKey = field(default_factory=SigningKey.generate)
    service_providers: tuple[ServiceProvider, ...] = ()
    directory: Callable[[ServiceProvider], tuple[User, ...]] = default_directory
    sign: Signed = "assertion"
    encrypt: bool = False

    @property
    def entity_id(self) -> str:
        return self.base_url + "/metadata"

    @property
    def sso_url(self) -> str:
        return self.base_url + "/sso"
