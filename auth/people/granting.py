"""Who may give which roles."""

from collections.abc import Iterable

from auth.people.errors import RoleNotYours, UnknownRole
from auth.roles import ROLES
from core.access import Principal


def check(principal: Principal | None, roles: Iterable[str]) -> None:
    """Raise unless `principal` may give and take `roles`. A `tenant_admin` and (None) an operator may give all there
    are; anybody else, such as a machine client with the scope `users:manage`, only those they have themselves, or
    that scope would be worth every other. Raises `UnknownRole`, `RoleNotYours`."""
    unknown = sorted(set(roles) - ROLES.keys())
    if unknown:
        raise UnknownRole(f"No role is called {', '.join(unknown)}; there are {', '.join(ROLES)}.")
    if principal is None or principal.has_any("tenant_admin"):
        return
    if beyond := sorted(set(roles) - principal.roles):
        raise RoleNotYours(f"You do not have {', '.join(beyond)} yourself.", roles=beyond)
