"""What each check of a sign-in means to whoever has to put it right: the id in the audit log, in words.

An id's first part says who refused: `login` the gateway's own rules, `saml` and `oidc` the protocol's.
"""

_FORGED = "Identity providers do not send this: it is forged, or a proxy rewrites the response on its way."
_ALGORITHM = "Choose another in the identity provider's settings for this application."
_ADDRESSES = "Compare the addresses at the identity provider with those of `dermadetect sso saml show`."
_ATTRIBUTES = "Compare what the provider sends with `dermadetect sso saml show`."

_REGISTRATION = "Compare the registration at the provider with `dermadetect sso oidc show`."
_MALFORMED = "The provider's tokens are not as OpenID Connect has them; ask whoever runs it."
_LOGOUT = "A message that was to sign somebody out was refused; nobody was signed out by it."

# By the claim's name: what is wrong with its value. Each may also be missing.
_CLAIMS = {
    "iss": "The token names another issuer than the connection. Give the issuer to the letter, as the discovery document "
    "has it.",
    "sub": f"The token does not name the person by a text of at most 255 characters. {_MALFORMED}",
    "aud": f"The token is meant for another client, or for others besides us. {_REGISTRATION}",
    "azp": f"The token was made for another client. {_REGISTRATION}",
    "exp": f"The token's end cannot be read. {_MALFORMED}",
    "iat": "The token was made in the future. See that the clocks of both sides are right.",
    "nbf": "The token is not valid yet. See that the clocks of both sides are right.",
    "nonce": "The token was made for another sign-in: an old page was sent again, or a token was stolen.",
    "auth-time": f"The time of the sign-in cannot be read. {_MALFORMED}",
    "acr": f"The way in which the person signed in cannot be read. {_MALFORMED}",
    "amr": f"The means by which the person signed in cannot be read. {_MALFORMED}",
    "at-hash": "The access token does not belong to the ID token: one of the two was exchanged on its way.",
    "jti": f"The logout token's own name is no short text. {_MALFORMED}",
    "sid": f"The session's name is no short text. {_MALFORMED}",
}

CHECKS: dict[str, str] = {
    # the gateway's own rules
    "login.ambiguous-email": "Several invited people have this e-mail address. Invite each under an address of their own.",
    "login.connection-removed": "The connection was removed or switched off while the person signed in.",
    "login.deactivated": "The person was deactivated here.",
    "login.expired": "The person took longer than ten minutes at the identity provider. Sign in again.",
    "login.kept-unreadable": "The sign-in that was kept does not open: its key is lost, or the row was changed.",
    "login.no-role": "None of the person's groups is mapped to a role, and none was granted here. Map a group with "
    "`--role`, or see that the provider sends groups at all.",
    "login.not-invited": "The person is not known here, and the connection makes nobody known. Invite them first.",
    "login.no-seat": "The person would be one more than the plan has seats. Deactivate somebody, or raise the limit "
    "(`quotas set TENANT seats N`).",
    "login.other-browser": "Another browser began this sign-in: cookies are off, a link was passed on, or somebody tried "
    "to sign a person in as somebody else.",
    "login.transient-name-id": "The NameID is new at every sign-in. Set its format to persistent at the provider.",
    "login.unknown-request": "Nobody waits for this response: an old page was sent again, or it was made up.",
    "login.used-request": "The response was posted twice, by going back in the browser or by an attacker.",
    # SAML: addresses and names
    "saml.audience": f"The response is meant for another application. {_ADDRESSES}",
    "saml.destination": f"The response names another address as its destination. {_ADDRESSES}",
    "saml.recipient": f"The assertion names another recipient. {_ADDRESSES}",
    "saml.issuer": "The issuer is not the identity provider of this connection. Give its present metadata.",
    "saml.idp-initiated": "The sign-in began at the identity provider, which this connection does not allow.",
    "saml.in-response-to": "The response answers another request.",
    "saml.in-response-to-missing": "The response does not say which request it answers, as it must where one was sent.",
    "saml.in-response-to-unexpected": "The response answers a request, but none was sent; it may be stolen.",
    "saml.replay": "This assertion has signed somebody in before.",
    # SAML: time
    "saml.expired": "The response has expired. See that the clocks of both sides are right.",
    "saml.not-yet-valid": "The response is not valid yet. See that the clocks of both sides are right.",
    "saml.time": "A time is missing its zone or cannot be read.",
    "saml.not-on-or-after-missing": "The confirmation of the subject has no end (NotOnOrAfter).",
    "saml.session-expired": "The session at the identity provider has ended.",
    # SAML: signatures
    "saml.signature-missing": "Neither the response nor the assertion is signed. Have the provider sign either.",
    "saml.invalid-signature": "No certificate of this connection verifies the signature. If the provider has changed its "
    "key, give its present metadata; if not, the response was changed.",
    "saml.certificate-expired": "All certificates of the provider are past their date, which this connection refuses.",
    "saml.signature-algorithm": f"Only RSA and ECDSA with SHA-256 or stronger are taken. {_ALGORITHM}",
    "saml.digest-algorithm": f"Only SHA-256, SHA-384 and SHA-512 are taken as digests. {_ALGORITHM}",
    "saml.canonicalization": f"Only exclusive canonicalization is taken. {_ALGORITHM}",
    "saml.transform-forbidden": f"The signature names transforms other than the two that SAML allows. {_FORGED}",
    "saml.signature-structure": f"The signature is not built as SAML has it. {_FORGED}",
    "saml.signature-empty": f"The signature has no value. {_FORGED}",
    "saml.signature-misplaced": f"A signature stands elsewhere than in the response and the assertion. {_FORGED}",
    "saml.signature-count": f"An element has more than one signature. {_FORGED}",
    "saml.reference-count": f"The signature covers more than one element. {_FORGED}",
    "saml.reference-mismatch": f"The signature covers another element than the one it stands in. {_FORGED}",
    "saml.key-info-forbidden": f"KeyInfo holds more than certificates and key names. {_FORGED}",
    "saml.object-forbidden": f"The signature carries an object. {_FORGED}",
    # SAML: encryption
    "saml.undecryptable": "The assertion is encrypted to another key than this tenant's. Give the provider the metadata of "
    "`dermadetect sso saml show` anew.",
    "saml.encryption-algorithm": f"Only AES-GCM (CBC where the connection allows it) with RSA-OAEP is taken. {_ALGORITHM}",
    "saml.encryption-structure": f"The encrypted assertion has unexpected parts. {_FORGED}",
    "saml.encrypted-part": "Names or attributes are encrypted one by one. Have the provider encrypt the whole assertion.",
    "saml.no-encrypted-assertion": "The assertion is not encrypted, as this connection demands.",
    # SAML: what the response says
    "saml.status": "The identity provider itself did not sign the person in; its own log says why.",
    "saml.subject": f"The assertion does not name exactly one person. {_ATTRIBUTES}",
    "saml.subject-confirmation": "The subject is not confirmed as bearer, exactly once.",
    "saml.conditions": "The assertion has no conditions, or has them twice.",
    "saml.empty-nameid": "The NameID is empty: the person lacks the attribute that the provider makes it of.",
    "saml.assertion-count": f"The response does not hold exactly one assertion. {_FORGED}",
    # SAML: the document
    "saml.root": "What arrived is not a SAML 2.0 response.",
    "saml.base64": "What arrived is not base64.",
    "saml.deflate": "What arrived is not compressed as the binding has it, or grows too large.",
    "saml.parameter-twice": f"A parameter was sent twice. {_FORGED}",
    "saml.malformed": "What arrived is not well-formed XML.",
    "saml.encoding": "What arrived is not UTF-8.",
    "saml.too-large": "What arrived has more than 256 KiB. Have the provider send fewer groups.",
    "saml.too-complex": "What arrived has too many elements or attributes. Have the provider send fewer groups.",
    "saml.dtd-forbidden": f"The document has a DTD or entities. {_FORGED}",
    "saml.comment-forbidden": f"The document has comments, in which names can be hidden. {_FORGED}",
    "saml.processing-instruction": f"The document has processing instructions. {_FORGED}",
    "saml.markup-in-value": f"A name or value holds markup. {_FORGED}",
    "saml.namespace-relative": f"A namespace name is relative. {_FORGED}",
    "saml.duplicate-id": f"An ID is given to more than one element. {_FORGED}",
    "saml.too-slow": "Checking the response took longer than it may.",
    "saml.crashed": "The process that checked the response died.",
    # OpenID Connect: before there is a token
    "oidc.discovery": "The discovery document cannot be read, or is another issuer's.",
    "oidc.keys": "The provider's keys cannot be read, or none of them verifies ID tokens.",
    "oidc.pkce": "The provider does not announce PKCE with S256.",
    "oidc.client-auth": "The provider does not announce the way in which we prove ourselves. Choose another with "
    "`--client-auth`.",
    "oidc.other-connection": "The response came to the address of another connection than the sign-in went to. "
    f"{_REGISTRATION}",
    "oidc.response-issuer": "The response is another provider's (RFC 9207), or does not say whose, though this one always "
    "does: somebody mixes providers up.",
    "oidc.provider-refused": "The provider did not sign the person in; its own log says why.",
    "oidc.code-missing": "The response has no code; it was made up, or cut short.",
    "oidc.client-refused": "The provider does not take us for the client: its secret has changed or ended, or the way of "
    f"proving ourselves is another. {_REGISTRATION}",
    "oidc.code-refused": "The provider does not take the code: it was used, it is older than it lets them be, or the "
    "redirect address is not the registered one.",
    "oidc.token-response": "The token endpoint's answer is none that OAuth 2.0 knows.",
    "oidc.userinfo": "The userinfo endpoint's answer is none that OpenID Connect knows.",
    "oidc.userinfo-subject": "The userinfo endpoint tells of somebody else than the ID token.",
    # OpenID Connect: the token
    "oidc.id-token-missing": "The token response has no ID token. See that the scope `openid` is allowed there.",
    "oidc.algorithm": "The token is signed by an algorithm that the provider has not announced, or that we do not take.",
    "oidc.header": f"The token is of another type than an ID token. {_MALFORMED}",
    "oidc.unknown-key": "No key that the provider publishes fits the token. It may have changed keys within the minute: "
    "sign in again.",
    "oidc.signature": "The signature is not the provider's: the token was changed on its way, or forged.",
    "oidc.malformed": f"What arrived is not a signed JWT. {_MALFORMED}",
    "oidc.too-long": "The token is longer than 64 KiB. Have the provider send fewer groups.",
    "oidc.expired": "The token has expired. See that the clocks of both sides are right.",
    "oidc.claims": f"The claims are not as they must be. {_MALFORMED}",
    **{f"oidc.{name}": text for name, text in _CLAIMS.items()},
    **{f"oidc.{name}-missing": f"The token lacks the claim {name}. {_MALFORMED}" for name in _CLAIMS},
    # OpenID Connect: signing out
    "oidc.logout-of-nobody": f"The logout token names neither person nor session. {_LOGOUT}",
    "oidc.logout-event": f"The token tells of no logout. {_LOGOUT}",
    "oidc.logout-old": f"The logout token is older than ten minutes. {_LOGOUT}",
    "oidc.logout-nonce": f"An ID token was sent for a logout token. {_LOGOUT}",
    "oidc.logout-replay": f"The logout token was used before. {_LOGOUT}",
    # invitations, and local administrators
    "invitation.gone": "The invitation was used or revoked, or has lapsed. Invite the person again.",
    "invitation.known-already": "Who signed in is known here already as another person than the invited one.",
    "invitation.other-address": "The provider does not vouch for the address that was invited. Invite the one that it has, "
    "or anybody who follows the link.",
    "local.password": "The local administrator's password was wrong.",
    "local.code": "The local administrator's one-time code was wrong. See that the clock of their device is right.",
    "local.code-used": "The one-time code was used before. Wait for the next one.",
    "local.unknown-or-locked": "There is no local administrator of this name, or too many attempts have locked it.",
    "local.entered": "A local administrator signed in.",
}

_KINDS = {"saml": "python3-saml refused the response; the id is its own name of what is wrong."}


def explain(check_id: str) -> str:
    """The check in words; one that has none of its own is explained by who refused."""
    return CHECKS.get(check_id) or _KINDS.get(check_id.partition(".")[0], "No such check is known here.")
