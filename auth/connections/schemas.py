"""Where somebody signs in, over the wire."""

from pydantic import BaseModel, Field


class Whose(BaseModel):
    """Somebody who wants to sign in."""

    email: str = Field(min_length=3, max_length=320, examples=["jo@clinic.example"])


class ConnectionOut(BaseModel):
    """A way to sign in."""

    name: str = Field(description="To be sent to `/auth/authorize` as `connection`.")
    audience: str = Field(description="`staff` or `patients`.")


class Discovered(BaseModel):
    """One connection where the address's domain has one of its own, otherwise all that are open to any address."""

    connections: list[ConnectionOut]
