"""The service provider's own documents: its key, its metadata, its signed AuthnRequests."""

from copy import deepcopy
from dataclasses import replace
from datetime import timedelta
from xml.sax.saxutils import escape

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from lxml import etree
from onelogin.saml2.auth import OneLogin_Saml2_Auth
from onelogin.saml2.authn_request import OneLogin_Saml2_Authn_Request
from onelogin.saml2.constants import OneLogin_Saml2_Constants as Constants
from onelogin.saml2.metadata import OneLogin_Saml2_Metadata
from onelogin.saml2.settings import OneLogin_Saml2_Settings

from auth.saml.parties import IdentityProvider, ServiceProvider, library_request, library_settings
from core.clock import utcnow

KEY_BITS = 2048
CERTIFICATE_LIFETIME = timedelta(days=3650)
_COMMON_NAME_LIMIT = 64  # ub-common-name of RFC 5280


def new_sp_key(owner: str) -> tuple[str, str]:
    """A new RSA key and a self-signed certificate of ten years, both PEM: `(private_key, certificate)`.

    The certificate only carries the key; identity providers pin it. `owner` is a URI: cut to the 64 characters that
    X.509 allows it is the common name, and the whole of it stands in the subject alternative name.
    """
    key = rsa.generate_private_key(public_exponent=65537, key_size=KEY_BITS)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, owner[:_COMMON_NAME_LIMIT])])
    now = utcnow()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))  # clocks differ
        .not_valid_after(now + CERTIFICATE_LIFETIME)
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(owner)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private_pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private_pem.decode(), certificate.public_bytes(serialization.Encoding.PEM).decode()


def sp_metadata(sp: ServiceProvider) -> bytes:
    """The metadata an administrator gives to the identity provider (SAML Metadata 2.0, 2.4.4).

    It holds the certificates for signing and for encryption, the one in use first, and is valid as long as that one is:
    many identity providers refuse metadata past its date, and it is uploaded once.
    """
    expires = x509.load_pem_x509_certificate(sp.certificate_pem.encode()).not_valid_after_utc
    *first, last = sp.certificate_pem, *(certificate for _, certificate in sp.other_keys)
    settings = library_settings(
        _escaped(replace(sp, certificate_pem=last)),
        wantAssertionsEncrypted=True,
        wantAssertionsSigned=True,
        metadataValidUntil=expires,
    )
    metadata: str | bytes = OneLogin_Saml2_Settings(settings, sp_validation_only=True).get_sp_metadata()
    for certificate in reversed(first):  # each is put before those that are there
        metadata = OneLogin_Saml2_Metadata.add_x509_key_descriptors(metadata, certificate)
    root = etree.fromstring(metadata.encode() if isinstance(metadata, str) else metadata)
    for service in root.findall(".//{*}SingleLogoutService"):  # the library names HTTP-Redirect alone
        by_post = deepcopy(service)
        by_post.set("Binding", Constants.BINDING_HTTP_POST)
        service.addnext(by_post)
    return etree.tostring(root, xml_declaration=True, encoding="UTF-8")


def authn_request_url(sp: ServiceProvider, idp: IdentityProvider, relay_state: str) -> tuple[str, str]:
    """`(url, request_id)`: where to send the browser, and the id the response must answer.

    HTTP-Redirect binding, signed with RSA-SHA256 (SAML Bindings 2.0, 3.4.4.1).
    """
    escaped = library_settings(_escaped(sp), replace(idp, sso_url=_attribute(idp.sso_url)))
    request = OneLogin_Saml2_Authn_Request(OneLogin_Saml2_Settings(escaped))
    library = OneLogin_Saml2_Auth(library_request(sp.acs_url), library_settings(sp, idp))
    parameters = {"SAMLRequest": request.get_request(), "RelayState": relay_state}
    library.add_request_signature(parameters, Constants.RSA_SHA256)
    url: str = library.redirect_to(idp.sso_url, parameters)
    request_id: str = request.get_id()
    return url, request_id


def _escaped(sp: ServiceProvider) -> ServiceProvider:
    """The library pastes URLs into XML templates as they are; an ampersand would break the document."""
    return replace(
        sp,
        entity_id=_attribute(sp.entity_id),
        acs_url=_attribute(sp.acs_url),
        logout_url=_attribute(sp.logout_url) if sp.logout_url else None,
    )


def _attribute(value: str) -> str:
    return escape(value, {'"': "&quot;"})
