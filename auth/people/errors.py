"""What can go wrong with people."""

from core.problems import Conflict, Forbidden, Invalid, NotFound


class UserNotFound(NotFound):
    slug, title = "user-not-found", "No such user"


class LastAdministrator(Conflict):
    slug, title = "last-administrator", "The last administrator stays"


class RoleNotYours(Forbidden):
    """Extra member: `roles`, those that one may not give or take."""

    slug, title = "role-not-yours", "Not a role you may give or take"


class UnknownRole(Invalid):
    slug, title = "unknown-role", "No such role"
