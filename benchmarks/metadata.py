"""What removing a photograph's metadata costs, against re-encoding it with Pillow.

The photographs are JPEGs of 12 megapixels made here, with EXIF, a GPS position and an ICC profile, as encoders of
several kinds would write them. Ours is what the product does with each upload: `clinic.images.metadata.read_structure`
walks the file and tells what of it is kept, as ranges and a few bytes, which go from the upload to the store without
a new file being made; `metadata.file` makes one in memory too. The baseline decodes and saves at quality 95, which is
how metadata is commonly dropped. Ours is shown to decode to the same pixels and to hold no position; both run in this
process.
"""

import io
import random
import time
from collections.abc import Awaitable, Callable
from typing import Literal

from PIL import Image, ImageChops, ImageCms

from benchmarks.measure import Result, compare, medians
from clinic.images.metadata import read_structure, strip_metadata

SIZE = (4000, 3000)
_GPS, _LATITUDE, _ORIENTATION = 0x8825, 2, 0x0112
_ENCODERS: dict[str, tuple[str, dict[str, object]]] = {
    "metadata": ("baseline, 4:2:0", {"quality": 92}),
    "metadata.fine": ("baseline, 4:4:4", {"quality": 95, "subsampling": "4:4:4"}),
    "metadata.progressive": ("progressive", {"quality": 92, "progressive": True}),
    "metadata.restarts": ("with restart markers", {"quality": 92, "restart_marker_rows": 1}),
}
_REPEATED = 20  # removals in a round, since one is too short to time


def _photograph(options: dict[str, object]) -> bytes:
    """A grainy, skin-coloured surface as a camera would store it, turned by EXIF."""
    grain = Image.frombytes("L", (1000, 750), random.Random(1).randbytes(1000 * 750)).resize(SIZE)
    skin = ImageChops.add(Image.new("RGB", SIZE, (205, 155, 125)), Image.merge("RGB", [grain] * 3), 2, -32)
    exif = Image.Exif()
    exif[_ORIENTATION] = 6
    exif.get_ifd(_GPS)[_LATITUDE] = (52.0, 31.0, 12.0)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    file = io.BytesIO()
    skin.save(file, "JPEG", exif=exif, icc_profile=profile, **options)
    return file.getvalue()


def _reencode(data: bytes) -> bytes:
    file = io.BytesIO()
    with Image.open(io.BytesIO(data)) as image:
        image.save(file, "JPEG", quality=95)
    return file.getvalue()


def _check(original: bytes, stripped: bytes) -> None:
    with Image.open(io.BytesIO(original)) as before, Image.open(io.BytesIO(stripped)) as after:
        assert before.getexif().get_ifd(_GPS), "there was nothing to remove"
        assert not after.getexif().get_ifd(_GPS)
        assert after.getexif()[_ORIENTATION] == before.getexif()[_ORIENTATION]
        assert after.info["icc_profile"] == before.info["icc_profile"]
        assert before.tobytes() == after.tobytes(), "a pixel has changed"


async def run() -> list[Result]:
    results = []
    for name, (encoder, options) in _ENCODERS.items():
        data = _photograph(options)
        _check(data, strip_metadata(data, "jpeg"))
        results.append(await _measure(name, encoder, data, read_structure))
        if name == "metadata":
            results.append(await _measure("metadata.file", f"{encoder}, as a new file", data, strip_metadata))
    return results


async def _measure(
    name: str, encoder: str, data: bytes, remove: Callable[[bytes, Literal["jpeg"]], object]
) -> Result:

    def per_second(act: Callable[[], object], times: int) -> Callable[[], Awaitable[float]]:
        async def measure() -> float:
            started = time.perf_counter()
            for _ in range(times):
                act()
            return times / (time.perf_counter() - started)

        return measure

    seen = await medians(
        {
            "ours": per_second(lambda: remove(data, "jpeg"), _REPEATED),
            "pillow": per_second(lambda: _reencode(data), 1),
        }
    )
    return compare(
        name,
        f"metadata removed from a JPEG ({encoder}) of 12 megapixels ({len(data) / 1e6:.1f} MB), pixels identical, "
        "against re-encoding with Pillow",
        ours=seen["ours"],
        baseline=seen["pillow"],
        unit="photographs/s",
        target=100,
    )
