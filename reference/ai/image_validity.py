"""Whether a photograph can be judged: focus, exposure, glare, resolution and colour, by arithmetic.

Sources: focus is the variance of the Laplacian (Pech-Pacheco et al., Diatom autofocusing in brightfield
microscopy, ICPR 2000). Resolution follows the American Telemedicine Association's quick guide to
store-forward teledermatology (2012): at least 800 x 600, better 1024 x 768. Skin colour is the chrominance map
of Chai & Ngan, IEEE Trans. Circuits Syst. Video Technol. 1999;9(4):551-564. All other limits are this service's
own, and no study stands behind them.
"""

import io
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageChops, ImageFilter, ImageStat

from core.ai_contract import ImageIssue, ImageValidity, ImageValidityResponse
from core.problems import Invalid, TooLarge
from reference.ai.photos import Photo

MAX_PIXELS = 25_000_000
ANALYSED = (1024, 1024)  # larger photographs are shrunk into this square first

FOCUS_GOOD, FOCUS_POOR, FOCUS_LOST = 60.0, 30.0, 8.0
DARK, BRIGHT, WHITE = 24, 250, 245  # of 255
SKIN_LEAST = 0.15

_LAPLACIAN = ImageFilter.Kernel((3, 3), (0, 1, 0, 1, -4, 1, 0, 1, 0), scale=1, offset=128)


@dataclass(frozen=True)
class Measures:
    """`focus` is the Laplacian's variance relative to brightness; shares are of the pixels, 0-1."""

    width: int
    height: int
    focus: float
    dark: float
    bright: float
    white: float
    skin: float


def answer_image_validity(photos: list[Photo], envelope: dict[str, Any]) -> ImageValidityResponse:
    return ImageValidityResponse(
        **envelope,
        images=[judge(photo.image_id, measure(photo)) for photo in photos],
        abstained=not photos,
        abstain_reason=None if photos else "No image was sent.",
    )


def measure(photo: Photo) -> Measures:
    """Raises `Invalid` if it is not a whole JPEG or PNG, `TooLarge` above `MAX_PIXELS`."""
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

    colour.thumbnail(ANALYSED, Image.Resampling.BOX)
    grey = colour.convert("L")
    histogram, pixels = grey.histogram(), grey.width * grey.height
    least_channel = ImageChops.darker(ImageChops.darker(*colour.split()[:2]), colour.split()[2])
    return Measures(
        width=width,
        height=height,
        focus=_focus(grey),
        dark=sum(histogram[:DARK]) / pixels,
        bright=sum(histogram[BRIGHT:]) / pixels,
        white=sum(least_channel.histogram()[WHITE:]) / pixels,
        skin=_skin_share(colour),
    )


def judge(image_id: str, measures: Measures) -> ImageValidity:
    """Issues and a score 0-1, the product of focus, exposure and resolution."""
    m = measures
    short, long = sorted((m.width, m.height))
    issues: list[ImageIssue] = []
    if m.focus < FOCUS_POOR:
        severity = "error" if m.focus < FOCUS_LOST else "warning"
        issues.append(
            _issue("blur", severity, "Hold still, let the camera focus on the skin, and take it again.")
        )
    if m.dark > 0.5:
        issues.append(_issue("underexposed", "error" if m.dark > 0.8 else "warning", "Use more light."))
    if m.bright > 0.25:
        severity = "error" if m.bright > 0.5 else "warning"
        issues.append(_issue("overexposed", severity, "Use less light, or switch the flash off."))
    elif m.white > 0.02:
        issues.append(
            _issue("glare", "warning", "Turn the light or the camera so that the skin does not shine.")
        )
    if short < 600 or long < 800:
        severity = "error" if short < 300 or long < 400 else "warning"
        issues.append(
            _issue("low_resolution", severity, "Send the original photograph, at least 800 x 600 pixels.")
        )
    # Colour says little where the exposure is off, and the map knows very dark or inflamed skin less well, so
    # colour alone never makes a photograph invalid.
    if m.skin < SKIN_LEAST and m.dark <= 0.5 and m.bright <= 0.25:
        issues.append(_issue("not_skin", "warning", "Fill the picture with the skin in question."))

    focus = min(1.0, m.focus / FOCUS_GOOD)
    exposure = 1 - max(m.dark, m.bright)
    resolution = min(1.0, short / 768, long / 1024)
    return ImageValidity(
        image_id=image_id,
        valid=all(issue.severity != "error" for issue in issues),
        score=round(focus * exposure * resolution, 4),
        issues=issues,
    )


def _issue(code: Any, severity: Any, hint: str) -> ImageIssue:
    return ImageIssue(code=code, severity=severity, hint=hint)


def _focus(grey: Image.Image) -> float:
    """Contrast grows with light: without the division by brightness dark skin would pass for blurred."""
    edges = grey.filter(_LAPLACIAN)
    inner = edges.crop((1, 1, edges.width - 1, edges.height - 1))  # Pillow copies the rim unfiltered
    brightness = max(ImageStat.Stat(grey).mean[0], 1.0)
    return float(ImageStat.Stat(inner).var[0] * (128 / brightness) ** 2)


def _skin_share(colour: Image.Image) -> float:
    """Chai & Ngan: Cb 77-127 and Cr 133-173 of the studio range, here in the full range Pillow uses."""
    _, cb, cr = colour.convert("YCbCr").split()
    low_cb, high_cb, low_cr, high_cr = (round(128 + (v - 128) * 255 / 224) for v in (77, 127, 133, 173))
    inside = ImageChops.multiply(
        cb.point([255 if low_cb <= v <= high_cb else 0 for v in range(256)]),
        cr.point([255 if low_cr <= v <= high_cr else 0 for v in range(256)]),
    )
    return float(ImageStat.Stat(inside).mean[0]) / 255
