"""The parts an application was put together from, found by type.

`gateway.assembly` makes one `Parts`; a route asks for what it needs with `Annotated[Jail, part(Jail)]`. A
room declares the type, the assembly hands in the object, and no room imports the room that made it.
"""

from typing import Any, TypeVar, cast

from fastapi import Depends, Request

T = TypeVar("T")


class Parts:
    """A set of objects, at most one of each type."""

    def __init__(self, *parts: object) -> None:
        self._parts: dict[type, object] = {}
        for each in parts:
            self.add(each)

    def add(self, each: object) -> None:
        """Hold `each` under its own type."""
        self._parts[type(each)] = each

    def __getitem__(self, wanted: type[T]) -> T:
        try:
            return cast(T, self._parts[wanted])
        except KeyError:
            raise LookupError(f"this application was assembled without a {wanted.__name__}") from None


def part(wanted: type[Any]) -> Any:
    """A FastAPI dependency that finds the application's part of this type."""

    async def find(request: Request) -> Any:
        parts: Parts = request.app.state.parts
        return parts[wanted]

    return Depends(find)
