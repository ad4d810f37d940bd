"""The hints follow what was done to a photograph, and a good one has none."""

from pathlib import Path

import pytest
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from core.photo_quality import measure_quality, reduce_to_analysed

_PHOTOGRAPHS = Path(__file__).parents[2] / "reference" / "photographs"
_UPRIGHT = {
    name: ImageOps.exif_transpose(Image.open(_PHOTOGRAPHS / name)) for name in ("hand.jpg", "lesion.jpg")
}


def issues(picture: Image.Image) -> dict[str, str]:
    """But for `low_resolution`, which the smaller of the two photographs has from the start."""
    found = dict(measure_quality(reduce_to_analysed(picture), 1200, 1600).issues)
    return {str(code): str(severity) for code, severity in found.items()}


@pytest.fixture(params=_UPRIGHT)
def photograph(request: pytest.FixtureRequest) -> Image.Image:
    return _UPRIGHT[request.param]


def blurred(picture: Image.Image, radius: float) -> Image.Image:
    """`radius` is in pixels at the scale that is analysed."""
    return picture.filter(ImageFilter.GaussianBlur(radius * max(1, max(picture.size) / 1024)))


def test_a_good_photograph_has_no_issues(photograph: Image.Image) -> None:
    assert issues(photograph) == {}
    assert issues(photograph.convert("L")) == {}


def test_blur(photograph: Image.Image) -> None:
    assert issues(blurred(photograph, 0.4)) == {}
    assert issues(blurred(photograph, 0.8)) == {"blur": "warning"}
    assert issues(blurred(photograph, 3)) == {"blur": "error"}


@pytest.mark.parametrize(
    ("light", "expected"),
    [(0.1, {"underexposed": "error"}), (0.3, {}), (0.6, {}), (1.25, {}), (2.0, {"overexposed": "error"})],
)
def test_exposure(photograph: Image.Image, light: float, expected: dict[str, str]) -> None:
    found = issues(ImageEnhance.Brightness(photograph).enhance(light))
    found.pop("blur", None)  # what is burnt out has no edges left
    assert found == expected


def test_glare(photograph: Image.Image) -> None:
    shining = photograph.copy()
    width, height = shining.size
    shining.paste("white", (width // 4, height // 4, width // 2, height // 2))
    assert issues(shining) == {"glare": "warning"}


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((800, 600), None),
        ((600, 800), None),
        ((799, 600), "warning"),
        ((4000, 599), "warning"),
        ((800, 299), "error"),
    ],
)
def test_size(size: tuple[int, int], expected: str | None) -> None:
    quality = measure_quality(_UPRIGHT["lesion.jpg"], *size)
    assert quality.issues.get("low_resolution") == expected


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (9_000, 1)])
def test_any_size_can_be_measured(size: tuple[int, int]) -> None:
    assert measure_quality(reduce_to_analysed(Image.new("L", size)), *size).issues["underexposed"] == "error"
