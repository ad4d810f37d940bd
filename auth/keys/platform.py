"""The platform's own signature, on what must be believed after a tenant and its keys are gone."""

import json
from typing import Any

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey
from sqlalchemy import select, text

from auth.keys.errors import SignatureRefused
from auth.keys.masters import MasterKeys
from auth.keys.models import PlatformKey
from core.database import ControlSession
from core.ids import new_id

PLATFORM = "platform"
"""Whose the platform's own keys are, where a tenant's key would stand."""


async def sign(session: ControlSession, masters: MasterKeys, payload: bytes, typ: str) -> str:
    """A compact JWS (RFC 7515, ES256) by the platform's newest key, which is made when there is none. The `masters` are
    open already."""
    # Two at once must not make two keys.
    await session.execute(text("SELECT pg_advisory_xact_lock(hashtext('dermadetect platform key'))"))
    row = await session.scalar(select(PlatformKey).order_by(PlatformKey.id.desc()).limit(1))
    if row is None:
        key_id, master = new_id(), await masters.current()
        made = ECKey.generate_key("P-256", {"kid": str(key_id), "use": "sig", "alg": "ES256"})
        row = PlatformKey(
            id=key_id,
            kek_id=master.kek_id,
            private_wrapped=master.wrap(PLATFORM, f"sign:{key_id}", made.as_pem(private=True)),
            public=made.as_dict(private=False),
        )
        session.add(row)
    master = await masters.named(row.kek_id)
    key = ECKey.import_key(master.unwrap(PLATFORM, f"sign:{row.id}", row.private_wrapped))
    return jws.serialize_compact(
        {"alg": "ES256", "kid": str(row.id), "typ": typ}, payload, key, algorithms=["ES256"]
    )


async def verify(session: ControlSession, signed: str, typ: str) -> dict[str, Any]:
    """The content of what `sign` made with this `typ`. Raises `SignatureRefused`."""
    keys = {str(row.id): row.public for row in await session.scalars(select(PlatformKey))}
    try:
        header = jws.extract_compact(signed.encode()).headers()
        if header.get("typ") != typ or header.get("kid") not in keys:
            raise SignatureRefused(f"It is no {typ} by a key of this platform.")
        opened = jws.deserialize_compact(signed, ECKey.import_key(keys[header["kid"]]), algorithms=["ES256"])
    except (JoseError, ValueError):
        raise SignatureRefused("It was changed, or is none.") from None
    content: dict[str, Any] = json.loads(opened.payload)
    return content
