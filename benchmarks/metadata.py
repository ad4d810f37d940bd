"""What removing a photograph's metadata costs, against re-encoding it with Pillow.

The photograph is a JPEG of 12 megapixels made here, with EXIF, a GPS position and an ICC profile. Ours is
`clinic.images.metadata.strip_metadata`; the baseline decodes and saves at quality 95, which is how metadata is
commonly dropped. Ours is shown to decode to the same pixels and to hold no position; both run in this process.
"""

import io
import random
import time
from collections.abc import Awaitable, Callable

from PIL import Image, ImageChops, ImageCms

from benchmarks.measure import Result, compare, medians
from clinic.images.metadata import strip_metadata

SIZE = (4000, 3000)
_GPS, _LATITUDE, _ORIENTATION = 0x8825, 2, 0x0112
_REPEATED = 20  # removals in a round, since one is too short to time


def _photograph() -> bytes:
    """A grainy, skin-coloured surface as a camera would store it, turned by EXIF."""
    grain = Image.frombytes("L", (1000, 750), random.Random(1).randbytes(1000 * 750)).resize(SIZE)
    skin = ImageChops.add(Image.new("RGB", SIZE, (205, 155, 125)), Image.merge("RGB", [grain] * 3), 2, -32)
    exif = Image.Exif()
    exif[_ORIENTATION] = 6
    exif.get_ifd(_GPS)[_LATITUDE] = (52.0, 31.0, 12.0)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    file = io.BytesIO()
    skin.save(file, "JPEG", quality=92, exif=exif, icc_profile=profile)
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
    data = _photograph()
    _check(data, strip_metadata(data, "jpeg"))

    def per_second(act: Callable[[], bytes], times: int) -> Callable[[], Awaitable[float]]:
        async def measure() -> float:
            started = time.perf_counter()
            for _ in range(times):
                act()
            return times / (time.perf_counter() - started)

        return measure

    seen = await medians(
        {
            "ours": per_second(lambda: strip_metadata(data, "jpeg"), _REPEATED),
            "pillow": per_second(lambda: _reencode(data), 1),
        }
    )
    return [
        compare(
            "metadata",
            f"metadata removed from a JPEG of 12 megapixels ({len(data) / 1e6:.1f} MB), pixels identical, against "
            "re-encoding with Pillow",
            ours=seen["ours"],
            baseline=seen["pillow"],
            unit="photographs/s",
            target=100,
        )
    ]
