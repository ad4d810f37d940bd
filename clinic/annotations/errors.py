"""What can go wrong with annotations."""

from core.problems import Conflict, NotFound


class AnnotationNotFound(NotFound):
    slug, title = "annotation-not-found", "No such annotation"


class AlreadySuperseded(Conflict):
    """Extra member: `superseded_by`."""

    slug, title = "annotation-superseded", "The annotation has a successor already"
