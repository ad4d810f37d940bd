"""Passwords and one-time codes: made, hashed and checked."""

import asyncio
import hmac
import os
import secrets
import time
from concurrent.futures import ThreadPoolExecutor

from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.twofactor.totp import TOTP

from auth.local.errors import WeakPassword
from core.problems import Unavailable

SHORTEST = 12
STEP_S = 30
_MOST_WAITING = 16

# Of a password nobody knows: whom we do not know costs as much time as whom we do.
_NOBODYS = "$argon2id$v=19$m=65536,t=3,p=4$PldVI6klPMwdW/f2fPKCUA$Ykbx2bOvHMsq88GAc1WKkiOJrPJVfkVCgcGVMCPeim0"


def new_password() -> str:
    """24 characters of 144 random bits."""
    return secrets.token_urlsafe(18)


def hash_password(password: str) -> str:
    """Argon2id in the PHC string format, with what RFC 9106, 4 recommends where memory is short: 64 MiB, 3 passes,
    4 lanes. Raises `WeakPassword`."""
    if len(password) < SHORTEST or len(set(password)) < SHORTEST // 2:
        raise WeakPassword(f"Take at least {SHORTEST} characters, and not the same few again and again.")
    made = Argon2id(salt=os.urandom(16), length=32, iterations=3, lanes=4, memory_cost=64 * 1024)
    return made.derive_phc_encoded(password.encode())


def _is_password(password: str, hashed: str | None) -> bool:
    try:
        Argon2id.verify_phc_encoded(password.encode(), hashed or _NOBODYS)
    except InvalidKey:
        return False
    return hashed is not None


class PasswordCheck:
    """Checks passwords beside the event loop, one at a time: each takes 64 MiB and a tenth of a second of processor
    time, of which whoever guesses must not get more than one thread's."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "password")
        self._waiting = 0

    async def check(self, password: str, hashed: str | None) -> bool:
        """Whether the password is the one that was hashed; never for None, which takes as long. Raises `Unavailable`
        when too many wait already."""
        if self._waiting >= _MOST_WAITING:
            raise Unavailable("Too many passwords are being checked at the moment; try again.", retry_after=5)
        self._waiting += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._thread, _is_password, password, hashed)
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Let go of the thread; what waits for it is not done any more."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def new_totp_secret() -> bytes:
    """160 random bits (RFC 4226, 4)."""
    return os.urandom(20)


def _totp(secret: bytes) -> TOTP:
    # SHA-1 is what authenticator apps know; nothing here needs its resistance to collisions.
    return TOTP(secret, 6, SHA1(), STEP_S)  # noqa: S303


def totp_uri(secret: bytes, name: str, issuer: str) -> str:
    """The `otpauth://` URI that authenticator apps read."""
    return _totp(secret).get_provisioning_uri(name, issuer)


def step_of(code: str, secret: bytes) -> int | None:
    """The time step whose code this is: the present one, the one before or the one after (RFC 6238, 5.2)."""
    totp, now = _totp(secret), int(time.time()) // STEP_S
    found = None
    for step in (now - 1, now, now + 1):
        if hmac.compare_digest(totp.generate(step * STEP_S), code.encode()):
            found = step
    return found
