"""Whether a photograph can be judged, as far as arithmetic tells: focus, exposure, glare and resolution.

Focus is the energy of the second differences across and down (the modified Laplacian of Nayar and Nakagawa, Shape from
focus, IEEE PAMI 16(8), 1994, squared as variances of the Laplacian are), at one scale for all. Resolution follows the American Telemedicine Association's quick guide to store-forward
teledermatology (2012): at least 800 × 600. The other limits were set by looking at the sample photographs, blurred,
darkened and brightened step by step; no study stands behind them. Noise can hide blur, and a smooth, even surface can
look blurred, which is why nobody is refused for it.
"""

from dataclasses import dataclass
from functools import reduce
from typing import Literal

from PIL import Image, ImageChops

ANALYSED_SIDE = 1024  # longest side, in pixels
FOCUS_POOR, FOCUS_LOST = 21.0, 5.6
FOCUS_LINES = 4  # of so many rows, and columns, one is looked along: neighbours tell the same
DARK, BRIGHT, WHITE = 24, 250, 245  # of 255

Code = Literal["blur", "underexposed", "overexposed", "glare", "low_resolution"]
Severity = Literal["warning", "error"]


@dataclass(frozen=True)
class PhotoQuality:
    """`focus` is the energy of second differences relative to brightness; `dark`, `bright` (by luminance) and `white` (by
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
    """A larger picture at the scale that is analysed, which has longest sides of 960 to 1,024 pixels; one that has
    that already, or is smaller, is given back itself."""
    factor = max(picture.size) // least_side(ANALYSED_SIDE)
    small = picture.reduce(factor) if factor > 1 else picture
    if max(small.size) <= ANALYSED_SIDE:
        return small
    reduced = small.copy()
    reduced.thumbnail((ANALYSED_SIDE, ANALYSED_SIDE), Image.Resampling.BOX)
    return reduced


def measure_quality(picture: Image.Image, width: int, height: int) -> PhotoQuality:
    """Measure a greyscale or RGB picture that `reduce_to_analysed` made of one with this width and height in pixels."""
    grey = picture.convert("L")
    histogram, pixels = grey.histogram(), grey.width * grey.height
    return PhotoQuality(
        width=width,
        height=height,
        focus=_focus(grey, sum(value * count for value, count in enumerate(histogram)) / pixels),
        dark=sum(histogram[:DARK]) / pixels,
        bright=sum(histogram[BRIGHT:]) / pixels,
        # Where all colours are that bright, luminance is; looking at each takes as long as all the rest.
        white=_white(picture) / pixels if any(histogram[WHITE:]) else 0.0,
    )


def _white(picture: Image.Image) -> int:
    return sum(reduce(ImageChops.darker, picture.split()).histogram()[WHITE:])


def _focus(grey: Image.Image, brightness: float) -> float:
    """Contrast grows with light: without the division by brightness dark skin would pass for blurred."""
    if min(grey.size) < 3:
        return 0.0
    width, height = grey.size
    rows = grey.resize((width, max(1, height // FOCUS_LINES)), Image.Resampling.NEAREST)
    columns = grey.resize((max(1, width // FOCUS_LINES), height), Image.Resampling.NEAREST)
    return (_second_difference(rows, 1, 0) + _second_difference(columns, 0, 1)) * (
        128 / max(brightness, 1.0)
    ) ** 2


def _second_difference(grey: Image.Image, across: int, down: int) -> float:
    """The mean square of a - 2b + c for three pixels in a row, that is of (a - b) - (b - c), from mean squares of
    differences alone: Pillow takes those at a tenth of a filter's cost, and without clipping them."""
    near, far = _difference(grey, across, down), _difference(grey, 2 * across, 2 * down)
    return max(0.0, 4 * near - far)


def _difference(grey: Image.Image, across: int, down: int) -> float:
    """The mean square of the difference of two pixels that far apart."""
    width, height = grey.width - across, grey.height - down
    apart = ImageChops.difference(
        grey.crop((0, 0, width, height)), grey.crop((across, down, across + width, down + height))
    )
    return sum(count * value**2 for value, count in enumerate(apart.histogram())) / (width * height)
