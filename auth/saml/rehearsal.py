"""What of a SAML connection can be looked at while nobody signs in."""

from dataclasses import dataclass

from auth.connections.checks import explain
from auth.connections.errors import BadConnection, SignInRefused
from auth.connections.fetching import AddressRefused, Fetcher, ProviderUnreachable
from auth.connections.models import Connection
from auth.connections.service import SignIn, mapped_roles
from auth.keys.service import KeyRing
from auth.people.service import allowed_roles
from auth.saml.idp_metadata import MAX_BYTES, read_idp_metadata
from auth.saml.models import SamlConnection
from auth.saml.refresh import CERTIFICATE_WARNING
from auth.saml.service import SignInJail, recall
from auth.saml.validation import certificate_expires, read_claim
from core.clock import utcnow


@dataclass(frozen=True)
class Finding:
    """One thing looked at; `state` is `ok`, `warning` or `wrong`, and `detail` says what was found and what to do."""

    name: str
    state: str
    detail: str


async def rehearse(connection: Connection, row: SamlConnection, fetcher: Fetcher) -> list[Finding]:
    """Look at the connection, its roles, its certificates, and what its provider publishes at this moment."""
    return [_in_use(connection), _roles(connection), *_certificates(row), await _metadata(row, fetcher)]


async def rehearse_response(
    jail: SignInJail, keys: KeyRing, where: SignIn, connection: Connection, row: SamlConnection, response: str
) -> list[Finding]:
    """Check a captured response (base64) as the tenant's sign-in does, as of the moment at which it was made and as if it
    answered a request of ours. Nothing is kept, and nobody is signed in."""
    try:
        request_id, made = await jail.check(read_claim, response)
        said = {"response": response, "request_id": request_id}
        person = await recall(jail, keys, where, connection, row, said, made)
    except SignInRefused as refusal:
        return [Finding("response", "wrong", f"{refusal.check_id}: {explain(refusal.check_id)}")]
    roles = allowed_roles(connection, mapped_roles(connection, person.groups))
    found = [
        Finding("response", "ok", f"It was in order on {made:%Y-%m-%d at %H:%M:%S} UTC."),
        Finding("person", "ok", f"It names {person.external_id}."),
        Finding("groups", "ok", f"It has {', '.join(person.groups)}.")
        if person.groups
        else Finding(
            "groups", "warning", f"It has no attribute {connection.groups_attribute}, or an empty one."
        ),
        Finding("roles", "ok", f"These give {', '.join(roles)}.")
        if roles
        else Finding("roles", "wrong", f"login.no-role: {explain('login.no-role')}"),
    ]
    if not person.email:
        found.append(
            Finding("e-mail address", "warning", f"It has no attribute {connection.email_attribute}.")
        )
    return found


def _in_use(connection: Connection) -> Finding:
    if connection.enabled:
        return Finding("connection", "ok", "It is in use.")
    return Finding("connection", "wrong", "It is switched off, so nobody signs in by it.")


def _roles(connection: Connection) -> Finding:
    roles = sorted({*connection.role_mapping.values(), *connection.default_roles})
    if not roles:
        return Finding(
            "roles", "warning", "No group has a role; only who was granted one can sign in. Use --role."
        )
    if roles == ["patient"] and connection.audience == "staff":
        return Finding("roles", "warning", "It gives staff no role but patient; map a group with --role.")
    return Finding("roles", "ok", f"It gives {', '.join(roles)}.")


def _certificates(row: SamlConnection) -> list[Finding]:
    now = utcnow()
    found = []
    for number, end in enumerate(map(certificate_expires, row.certificates), 1):
        state = "ok"
        if end <= now:
            state = "wrong" if row.refuse_expired_certificates else "warning"
        elif end <= now + CERTIFICATE_WARNING:
            state = "warning"
        found.append(Finding(f"certificate {number}", state, f"It ends on {end:%Y-%m-%d}."))
    return found


async def _metadata(row: SamlConnection, fetcher: Fetcher) -> Finding:
    if row.metadata_url is None:
        return Finding("metadata", "ok", "It was given as a file; new certificates must be given likewise.")
    try:
        xml = await fetcher.fetch(row.metadata_url, at_most=MAX_BYTES)
        published = read_idp_metadata(xml, row.metadata_signers)
    except (AddressRefused, ProviderUnreachable, BadConnection) as problem:
        return Finding("metadata", "wrong", problem.detail)
    if published.entity_id != row.idp_entity_id:
        return Finding("metadata", "wrong", "It describes another identity provider than the connection's.")
    if set(published.certificates) != set(row.certificates):
        return Finding(
            "metadata", "warning", "It has other certificates; the worker takes them over when it is due."
        )
    return Finding("metadata", "ok", "It is what the connection has.")
