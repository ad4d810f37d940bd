"""What can go wrong with physicians and specialties."""

from core.problems import Conflict, Invalid, NotFound


class PhysicianNotFound(NotFound):
    slug, title = "physician-not-found", "No such physician"


class NotAPhysician(Invalid):
    slug, title = "not-a-physician", "This user cannot be registered as a physician"


class PhysicianExists(Conflict):
    """Extra member: `physician_id`, the registration there is."""

    slug, title = "physician-exists", "This user is registered as a physician already"


class UnknownSpecialty(Invalid):
    slug, title = "unknown-specialty", "No such specialty"
