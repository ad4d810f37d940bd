"""The two parties of a SAML sign-in, and how python3-saml is told about them."""

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from onelogin.saml2.constants import OneLogin_Saml2_Constants as Constants


@dataclass(frozen=True, slots=True)
class ServiceProvider:
    """One tenant's side. URLs come from the tenant's record, never from a request; key and certificate are PEM.

    `other_keys` are pairs of both that open assertions, too: while the key is being rotated, there is one.
    """

    entity_id: str
    acs_url: str
    private_key_pem: str
    certificate_pem: str
    logout_url: str | None = None
    require_encryption: bool = False
    other_keys: tuple[tuple[str, str], ...] = ()

    def __repr__(self) -> str:  # a traceback must not show the private key
        return f"ServiceProvider({self.entity_id!r})"


@dataclass(frozen=True, slots=True)
class IdentityProvider:
    """The tenant's identity provider. `certificates` (PEM) has several while the provider changes its key.

    `logout_response_url` is where it wants answers to its own LogoutRequests, if not at `logout_url`.
    `allow_idp_initiated` admits responses nobody asked for; `refuse_expired_certificates` is the tenant's
    policy for certificates past their date (their keys still verify; SAML does not look at dates); `allow_cbc`
    admits assertions encrypted with AES-CBC, which does not notice changes.
    """

    entity_id: str
    sso_url: str
    certificates: tuple[str, ...]
    logout_url: str | None = None
    allow_idp_initiated: bool = False
    refuse_expired_certificates: bool = False
    logout_response_url: str | None = None
    allow_cbc: bool = False


def library_settings(
    sp: ServiceProvider, idp: IdentityProvider | None = None, **security: Any
) -> dict[str, Any]:
    """The settings of python3-saml, fresh each time because the library writes into them.

    `security` overrides single entries of the security section.
    """
    settings: dict[str, Any] = {
        "strict": True,
        "debug": False,
        "sp": {
            "entityId": sp.entity_id,
            "assertionConsumerService": {"url": sp.acs_url},
            "NameIDFormat": Constants.NAMEID_UNSPECIFIED,
            "x509cert": sp.certificate_pem,
            "privateKey": sp.private_key_pem,
        },
        "security": {
            "authnRequestsSigned": True,
            "logoutRequestSigned": True,
            "logoutResponseSigned": True,
            "signatureAlgorithm": Constants.RSA_SHA256,
            "digestAlgorithm": Constants.SHA256,
            "rejectDeprecatedAlgorithm": True,
            "wantAssertionsEncrypted": sp.require_encryption,
            # The gate demands a signature over the assertion or over the whole response; the library's flag
            # would refuse providers that sign the response alone, which covers the assertion too.
            "wantAssertionsSigned": False,
            "wantAttributeStatement": False,
            "allowRepeatAttributeName": True,
            # How people prove themselves is the identity provider's matter; a demand for passwords would
            # refuse those who use something better.
            "requestedAuthnContext": False,
            "allowSingleLabelDomains": True,
        }
        | security,
    }
    if sp.logout_url:
        settings["sp"]["singleLogoutService"] = {"url": sp.logout_url}
    if idp:
        settings["idp"] = {
            "entityId": idp.entity_id,
            "singleSignOnService": {"url": idp.sso_url},
            # The library looks for a file on disk when this is empty.
            "x509cert": idp.certificates[0],
            "x509certMulti": {"signing": list(idp.certificates)},
        }
        if idp.logout_url:
            settings["idp"]["singleLogoutService"] = {"url": idp.logout_url}
    return settings


def library_request(url: str) -> dict[str, str]:
    """What the library calls the request: `url` in the parts it wants."""
    parts = urlsplit(url)
    return {
        "https": "on" if parts.scheme == "https" else "off",
        "http_host": parts.netloc,
        "script_name": parts.path,
    }
