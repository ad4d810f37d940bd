"""Why a photograph is refused."""

from core.problems import Conflict, NotFound, Problem


class ImageEmpty(Problem):
    status, slug, title = 422, "image-empty", "The photograph holds no data"


class ImageTooLarge(Problem):
    status, slug, title = 413, "image-too-large", "The photograph has too many bytes"


class ImageTypeUnsupported(Problem):
    """Neither JPEG nor PNG by its first bytes, whatever it calls itself, or a JPEG that browsers do not show."""

    status, slug, title = 415, "image-type-unsupported", "The photograph must be a JPEG or a PNG"


class ImageTypeMismatch(Problem):
    status, slug, title = 415, "image-type-mismatch", "The photograph is not of the type it was declared as"


class ImageDimensionsRefused(Problem):
    """No pixels at all, or more than may be decoded; read from the header, before decoding."""

    status, slug, title = 422, "image-dimensions", "The photograph's width or height cannot be accepted"


class ImageDamaged(Problem):
    """Cut short, not what its format's standard allows, or in more parts than any encoder makes."""

    status, slug, title = 422, "image-damaged", "The photograph is damaged"


class ImageAnimated(Problem):
    status, slug, title = 422, "image-animated", "The photograph is an animation"


class ImageColourUnsupported(Problem):
    """Printing colours, or more than eight bits a channel: browsers and the AI would show them wrongly."""

    status, slug, title = 422, "image-colour-unsupported", "The photograph's colours cannot be accepted"


class ImageNotBase64(Problem):
    status, slug, title = 422, "image-not-base64", "The photograph's data is not base64"


class ImageUndecodable(Problem):
    """Checking it took too long or too much memory."""

    status, slug, title = 422, "image-undecodable", "The photograph could not be checked"


class ImageNotFound(NotFound):
    slug, title = "image-not-found", "No such photograph"


class ImagesClosed(Conflict):
    """The case is in a status that takes, or gives up, no photographs. Extra member: `case_status`."""

    slug, title = "images-closed", "The case's photographs cannot be changed now"


class TooManyImages(Conflict):
    slug, title = "too-many-images", "The case has as many photographs as it may"


class ImageUploadInterrupted(Conflict):
    """It was cleared away while it was being stored."""

    slug, title = "image-upload-interrupted", "Send the photograph again"
