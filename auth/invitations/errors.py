"""What can go wrong with invitations."""

from core.problems import Conflict, NotFound


class AlreadyKnown(Conflict):
    """Extra member: `user_id`."""

    slug, title = "already-known", "Somebody with this e-mail address is known already"


class InvitationNotFound(NotFound):
    slug, title = "invitation-not-found", "No such invitation"


class InvitationInvalid(NotFound):
    """Unknown, used, revoked and lapsed are not told apart."""

    slug, title = "invitation-invalid", "This invitation does not hold any more"
