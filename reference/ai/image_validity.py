"""Whether a photograph can be judged: focus, exposure, glare and resolution as `core.photo_quality` has them, and colour.

Skin colour is the chrominance map of Chai & Ngan, IEEE Trans. Circuits Syst. Video Technol. 1999;9(4):551-564. How
much of it there must be, and how the score is made, is this service's own, and no study stands behind it.
"""

import io
from typing import Any

from PIL import Image, ImageChops, ImageStat

from core.ai_contract import ImageIssue, ImageValidity, ImageValidityResponse
from core.photo_quality import PhotoQuality, measure_quality, reduce_to_analysed
from core.problems import Invalid, TooLarge
from reference.ai.photos import Photo

MAX_PIXELS = 25_000_000
FOCUS_GOOD = 42.0
SKIN_LEAST = 0.15

_HINTS = {
    "blur": "Hold still, let the camera focus on the skin, and take it again.",
    "underexposed": "Use more light.",
    "overexposed": "Use less light, or switch the flash off.",
    "glare": "Turn the light or the camera so that the skin does not shine.",
    "low_resolution": "Send the original photograph, at least 800 x 600 pixels.",
    "not_skin": "Fill the picture with the skin in question.",
}


def answer_image_validity(photos: list[Photo], envelope: dict[str, Any]) -> ImageValidityResponse:
    return ImageValidityResponse(
        **envelope,
        images=[judge(photo.image_id, *measure(photo)) for photo in photos],
        abstained=not photos,
        abstain_reason=None if photos else "No image was sent.",
    )


def measure(photo: Photo) -> tuple[PhotoQuality, float]:
    """Its quality, and the share of its pixels with the colour of skin (0-1). Raises `Invalid` if it is not a whole
    JPEG or PNG, `TooLarge` above `MAX_PIXELS`."""
    try:
        with Image.open(io.BytesIO(photo.data), formats=("JPEG", "PNG")) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise TooLarge(f"Image {photo.image_id} has more than {MAX_PIXELS} pixels.")
            if min(width, height) < 16:
                raise Invalid(f"Image {photo.image_id} is smaller than 16 x 16 pixels.")
            colour = image.convert("RGB")
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise TooLarge(f"Image {photo.image_id} has more than {MAX_PIXELS} pixels.") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise Invalid(f"Image {photo.image_id} is not a whole JPEG or PNG.") from error

    colour = reduce_to_analysed(colour)
    return measure_quality(colour, width, height), _skin_share(colour)


def judge(image_id: str, quality: PhotoQuality, skin: float) -> ImageValidity:
    """Issues and a score 0-1, the product of focus, exposure and resolution."""
    found: dict[Any, Any] = dict(quality.issues)
    # Colour says little where the exposure is off, and the map knows very dark or inflamed skin less well, so
    # colour alone never makes a photograph invalid.
    if skin < SKIN_LEAST and not found.keys() & {"underexposed", "overexposed"}:
        found["not_skin"] = "warning"

    short, long = sorted((quality.width, quality.height))
    focus = min(1.0, quality.focus / FOCUS_GOOD)
    exposure = 1 - max(quality.dark, quality.bright)
    resolution = min(1.0, short / 768, long / 1024)
    return ImageValidity(
        image_id=image_id,
        valid="error" not in found.values(),
        score=round(focus * exposure * resolution, 4),
        issues=[
            ImageIssue(code=code, severity=severity, hint=_HINTS[code]) for code, severity in found.items()
        ],
    )


def _skin_share(colour: Image.Image) -> float:
    """Chai & Ngan: Cb 77-127 and Cr 133-173 of the studio range, here in the full range Pillow uses."""
    _, cb, cr = colour.convert("YCbCr").split()
    low_cb, high_cb, low_cr, high_cr = (round(128 + (v - 128) * 255 / 224) for v in (77, 127, 133, 173))
    inside = ImageChops.multiply(
        cb.point([255 if low_cb <= v <= high_cb else 0 for v in range(256)]),
        cr.point([255 if low_cr <= v <= high_cr else 0 for v in range(256)]),
    )
    return float(ImageStat.Stat(inside).mean[0]) / 255
