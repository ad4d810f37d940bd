"""Machine clients: programs of a tenant that sign in by themselves (RFC 6749, 4.4), or on behalf of its patients.

One that looks after patients of its own, such as an insurer's portal, calls each by a name of its choosing. The patient
is a user here from the first time on, for whom no other client can act; what is done so is recorded with both, as the
delegation that RFC 8693, 1.1 describes.
"""

import hmac
from datetime import timedelta

from sqlalchemy import or_, select, update

from auth.oauth.errors import InvalidClient, OAuthError
from auth.oauth.grants import Grant
from auth.oauth.models import ClientSecret, OAuthClient
from auth.oauth.service import hash_secret
from auth.people.models import SignInSession
from auth.people.service import vouched_patient
from auth.roles import ROLES
from auth.tokens.service import Machine
from core.clock import utcnow
from core.database import TenantSession
from tenants.audit.service import audit

USE_KNOWN_TO = timedelta(minutes=1)


async def authenticate(
    session: TenantSession, client_id: str, secret: str
) -> tuple[OAuthClient, ClientSecret]:
    """The machine client with this secret. Raises `InvalidClient`, in the same time whatever was wrong."""
    query = (
        select(OAuthClient, ClientSecret)
        .join(ClientSecret, ClientSecret.client_id == OAuthClient.id)
        .where(OAuthClient.client_id == client_id, OAuthClient.disabled_at.is_(None))
    )
    sent = hash_secret(secret)
    found = [
        (client, kept)
        for client, kept in (await session.execute(query)).all()
        if hmac.compare_digest(kept.secret_hash, sent)
    ]
    if not found:
        raise InvalidClient
    return found[0]


async def grant_to_machine(
    session: TenantSession, client_id: str, secret: str, *, scope: str, on_behalf_of: str, life: timedelta
) -> Grant:
    """Let a machine client in, for itself or for the patient whom it calls `on_behalf_of`; `life` is that of the token
    to come. Raises `InvalidClient`, `OAuthError`."""
    client, kept = await authenticate(session, client_id, secret)
    if on_behalf_of and not client.for_patients:
        raise OAuthError("unauthorized_client", "This client may not act on behalf of patients.")
    allowed = set(client.scopes) & ROLES["patient"] if on_behalf_of else set(client.scopes)
    if unknown := set(scope.split()) - allowed:
        raise OAuthError(
            "invalid_scope", f"This client may not ask for {' '.join(sorted(unknown))[:200]} here."
        )
    now = utcnow()
    used = ClientSecret.last_used_at
    await session.execute(
        update(ClientSecret)
        .where(ClientSecret.id == kept.id, or_(used.is_(None), used < now - USE_KNOWN_TO))
        .values(last_used_at=now)
    )
    started = None
    if on_behalf_of:
        user = await vouched_patient(session, client.id, on_behalf_of)
        if not user.active:
            raise OAuthError("invalid_grant", "This patient was deactivated here.")
        started = SignInSession(
            user_id=user.id, client_id=client.id, roles=["patient"], expires_at=now + life
        )
        session.add(started)
        await session.flush()
        audit(session, client.id, "client.on-behalf", started.id, patient=str(user.id))
    else:
        audit(session, client.id, "client.token", kept.id)
    granted = " ".join(sorted(set(scope.split()) or allowed))
    return Grant(granted, started, Machine(client.id, kept.id))
