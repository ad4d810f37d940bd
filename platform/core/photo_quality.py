"""Whether a photograph can be judged, as far as arithmetic tells: focus, exposure, glare and resolution.

Focus is the variance of the Laplacian (Pech-Pacheco et al., Diatom autofocusing in brightfield microscopy, ICPR 2000),
at one scale for all. Resolution follows the American Telemedicine Association's quick guide to store-forward
teledermatology (2012): at least 800 × 600. The other limits were set by looking at the sample photographs, blurred,
darkened and brightened step by step; no study stands behind them. Noise can hide blur, and a smooth, even surface can
look blurred, which is why nobody is refused for it.
"""

from dataclasses import dataclass
from functools import reduce
from typing import Literal

from PIL import Image, ImageChops, ImageFilter, ImageStat

ANALYSED_SIDE = 1024  # longest side, in pixels
FOCUS_POOR, FOCUS_LOST = 30.0, 8.0
DARK, BRIGHT, WHITE = 24, 250, 245  # of 255

Code = Literal["blur", "underexposed", "overexposed", "glare", "low_resolution"]
Severity = Literal["warning", "error"]

_LAPLACIAN = ImageFilter.Kernel((3, 3), (0, 1, 0, 1, -4, 1, 0, 1, 0), scale=1, offset=128)


@dataclass(frozen=True)
class PhotoQuality:
    """`focus` is the Laplacian's variance relative to brightness; `dark`, `bright` (by luminance) and `white` (by
    the least of three colours) are shares of the pixels, 0–1; width and height are in pixels."""

    width: int
    height: int
    focus: float
    dark: float
    bright: float
    white: float

    @property
    def issues(self) -> dict[Code, Severity]:
        """What could be better, in the codes of the AI contract, and how grave it is."""
        short, long = sorted((self.width, self.height))
        found: dict[Code, Severity] = {}
        if self.focus < FOCUS_POOR:
            found["blur"] = "error" if self.focus < FOCUS_LOST else "warning"
        if self.dark > 0.5:
            found["underexposed"] = "error" if self.dark > 0.8 else "warning"
        if self.bright > 0.25:
            found["overexposed"] = "error" if self.bright > 0.5 else "warning"
        elif self.white > 0.02:
            found["glare"] = "warning"
        if short < 600 or long < 800:
            found["low_resolution"] = "error" if short < 300 or long < 400 else "warning"
        return found


def least_side(side: int) -> int:
    """How long the longest side may be at least where it should be `side`: a picture that a whole number divides to
    as much is not brought to `side` at several times the cost."""
    return side * 15 // 16


def reduce_to_analysed(picture: Image.Image) -> Image.Image:
    """A larger picture at the scale that is analysed, which has longest sides of 960 to 1,024 pixels."""
    small = picture.reduce(max(1, max(picture.size) // least_side(ANALYSED_SIDE)))
    small.thumbnail((ANALYSED_SIDE, ANALYSED_SIDE), Image.Resampling.BOX)
    return small


def measure_quality(picture: Image.Image, width: int, height: int) -> PhotoQuality:
    """Measure a greyscale or RGB picture that `reduce_to_analysed` made of one with this width and height in pixels."""
    grey = picture.convert("L")
    histogram, pixels = grey.histogram(), grey.width * grey.height
    least_channel = reduce(ImageChops.darker, picture.split())
    return PhotoQuality(
        width=width,
        height=height,
        focus=_focus(grey),
        dark=sum(histogram[:DARK]) / pixels,
        bright=sum(histogram[BRIGHT:]) / pixels,
        white=sum(least_channel.histogram()[WHITE:]) / pixels,
    )


def _focus(grey: Image.Image) -> float:
    """Contrast grows with light: without the division by brightness dark skin would pass for blurred."""
    if min(grey.size) < 3:
        return 0.0
    edges = grey.filter(_LAPLACIAN)
    inner = edges.crop((1, 1, edges.width - 1, edges.height - 1))  # Pillow copies the rim unfiltered
    brightness = max(ImageStat.Stat(grey).mean[0], 1.0)
    return float(ImageStat.Stat(inner).var[0] * (128 / brightness) ** 2)
