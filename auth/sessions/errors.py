"""What can go wrong with sign-in sessions."""

from core.problems import NotFound


class SessionNotFound(NotFound):
    slug, title = "session-not-found", "No such sign-in session"
