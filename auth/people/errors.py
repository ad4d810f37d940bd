"""What can go wrong with people."""

from core.problems import NotFound


class UserNotFound(NotFound):
    slug, title = "user-not-found", "No such user"
