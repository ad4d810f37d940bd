"""From uploaded bytes to a photograph that can be trusted to be one.

Pure and picklable, to run in `core.jail`: the decoders below Pillow are C, and what they read is hostile until
proven otherwise. The order of the checks is the point: the cheap ones come first, and nothing is decoded before
its size is known (a PNG of 12 KB can hold 100 megapixels).
"""

import hashlib
import io
import warnings
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from PIL import Image, ImageFile

from clinic.images.errors import (
    ImageAnimated,
    ImageColourUnsupported,
    ImageDamaged,
    ImageDimensionsRefused,
    ImageEmpty,
    ImageTooLarge,
    ImageTypeMismatch,
    ImageTypeUnsupported,
)
from clinic.images.metadata import (
    PNG_SIGNATURE,
    Kind,
    Piece,
    Structure,
    join,
    read_structure,
    require_all_rows,
)
from core.photo_quality import ANALYSED_SIDE, least_side, measure_quality, reduce_to_analysed
from core.spool import SealedFile

MediaType = Literal["image/jpeg", "image/png"]

THUMBNAIL_SIDE, DISPLAY_SIDE = 256, 2048  # longest side, in pixels
SHOWN_ITSELF_BYTES = 2_000_000  # a longer file would be a burden to whoever looks at it

_MEDIA_TYPES: dict[Kind, MediaType] = {"jpeg": "image/jpeg", "png": "image/png"}
_FOREIGN = (  # offset, magic, name: what people upload by mistake deserves better than "unsupported"
    (0, b"GIF8", "a GIF"),
    (8, b"WEBP", "a WebP"),
    (4, b"ftypavif", "an AVIF"),
    (4, b"ftyp", "an HEIC photograph or a video"),
    (0, b"II*\x00", "a TIFF or a raw photograph"),
    (0, b"MM\x00*", "a TIFF or a raw photograph"),
    (0, b"BM", "a BMP"),
    (128, b"DICM", "a DICOM object"),
    (0, b"%PDF", "a PDF"),
    (0, b"PK\x03\x04", "an archive"),
    (0, b"<", "a text document such as SVG or HTML"),
)
# How a picture is brought down: the resampling, and how much of it is left to be done after a plain reduction by whole
# numbers, which costs a fraction.
_FINE, _QUICK = (Image.Resampling.LANCZOS, 1.5), (Image.Resampling.HAMMING, 1.0)
_UPRIGHT = {  # EXIF orientation → the turn that undoes it
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class InspectedImage:
    """A photograph that was decoded whole, and its copies.

    `width` and `height` are in pixels as stored; `orientation` (EXIF, 1 to 8) says how to turn them upright.
    `original` is the upload without metadata, pixels bit-exact, as pieces of the upload; `size` is its length in
    bytes and `sha256` its hash (lower-case hexadecimal). `display` (longest side at most 2,048) and `thumbnail` (256)
    are upright JPEGs in the photograph's own colour space; `display` is None where the original is such a one itself,
    so that encoding it again would only lose. `captured_at` is the camera's clock, without a time zone. `hints` are
    codes of the AI contract's image issues that need no AI: those of `core.photo_quality`.
    """

    media_type: MediaType
    width: int
    height: int
    orientation: int
    captured_at: datetime | None
    original: tuple[Piece, ...]
    size: int
    sha256: str
    display: bytes | None
    thumbnail: bytes
    hints: tuple[str, ...]

    @property
    def display_sha256(self) -> str:
        """Of `display`, or of the original that stands in for it."""
        return hashlib.sha256(self.display).hexdigest() if self.display else self.sha256


def inspect_upload(
    upload: SealedFile, *, declared_type: str | None, max_bytes: int, max_pixels: int
) -> InspectedImage:
    """`inspect_image` for a file in the spool."""
    return inspect_image(
        upload.read(), declared_type=declared_type, max_bytes=max_bytes, max_pixels=max_pixels
    )


def inspect_image(
    data: bytes, *, declared_type: str | None, max_bytes: int, max_pixels: int
) -> InspectedImage:
    """Check an uploaded photograph and make its stored, displayed and thumbnail forms.

    `declared_type` is the upload's media type, `None` if it had none; `max_pixels` is width times height
    (Pillow itself stops at 178,956,970).
    Raises the problems of `clinic.images.errors`. Data after the picture's end is not refused, since many
    phones append some (motion, depth, gain maps), but never stored; of a multi-picture JPEG the first remains.
    A JPEG cut short and then properly closed decodes as whole: its format does not say how much there should be.
    """
    if not data:
        raise ImageEmpty("The upload is empty. Choose the photograph again.")
    if len(data) > max_bytes:
        raise ImageTooLarge(
            f"The photograph has {len(data):,} bytes; at most {max_bytes:,} are accepted. Export it smaller."
        )
    kind = _kind(data)
    _compare_declared(declared_type, kind)
    structure = read_structure(data, kind)
    _refuse_unfit(structure, max_pixels)
    stripped = join(data, structure.pieces)
    if kind == "png":
        require_all_rows(stripped)
    picture, shows_itself = _decode(stripped, kind, structure)
    if not shows_itself:
        picture = _upright(_fit(picture, DISPLAY_SIDE, _FINE), structure.orientation)
    small = reduce_to_analysed(picture)
    return InspectedImage(
        media_type=_MEDIA_TYPES[kind],
        width=structure.width,
        height=structure.height,
        orientation=structure.orientation,
        captured_at=structure.captured_at,
        original=structure.pieces,
        size=len(stripped),
        sha256=hashlib.sha256(stripped).hexdigest(),
        display=None if shows_itself else _jpeg(picture, quality=88),
        thumbnail=_jpeg(_fit(small, THUMBNAIL_SIDE, _QUICK), quality=82),
        hints=tuple(measure_quality(small, structure.width, structure.height).issues),
    )


def _kind(data: bytes) -> Kind:
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if data.startswith(PNG_SIGNATURE):
        return "png"
    for offset, magic, name in _FOREIGN:
        if data[offset : offset + len(magic)] == magic:
            raise ImageTypeUnsupported(
                f"The file is {name}. Export the photograph as JPEG or PNG and upload that."
            )
    raise ImageTypeUnsupported("The file is neither a JPEG nor a PNG. Export the photograph as one of them.")


def _compare_declared(declared_type: str | None, kind: Kind) -> None:
    if declared_type is None:
        return
    declared = declared_type.partition(";")[0].strip().lower()
    if declared == "image/jpg":  # not registered, yet what many clients send
        declared = "image/jpeg"
    if declared not in _MEDIA_TYPES.values():
        raise ImageTypeUnsupported("The declared media type is not accepted. Send image/jpeg or image/png.")
    if declared != _MEDIA_TYPES[kind]:
        raise ImageTypeMismatch(
            f"The photograph was declared {declared} but is {_MEDIA_TYPES[kind]}. Correct the type."
        )


def _refuse_unfit(structure: Structure, max_pixels: int) -> None:
    pixels = structure.width * structure.height
    if not pixels:
        raise ImageDimensionsRefused("The photograph has no width or no height. Upload the original file.")
    if pixels > max_pixels:
        raise ImageDimensionsRefused(
            f"The photograph has {structure.width} × {structure.height} pixels; at most {max_pixels:,} in all are "
            "accepted. Upload a smaller copy."
        )
    if structure.animated:
        raise ImageAnimated("The PNG is an animation. Upload one still photograph.")
    if structure.printing_colours:
        raise ImageColourUnsupported("The photograph has printing colours (CMYK). Export it as sRGB.")
    if structure.bits > 8:
        raise ImageColourUnsupported(
            f"The photograph has {structure.bits} bits a channel; 8 are accepted. Export it as 8-bit sRGB."
        )


def _decode(data: bytes, kind: Kind, structure: Structure) -> tuple[Image.Image, bool]:
    """The picture as greyscale or RGB on white, ICC profile attached, and whether the file shows it as well as a copy.

    Of a JPEG only an eighth, quarter or half is made where that suffices: the decoder reads all of the compressed
    data even so, and finds what is damaged, since nothing but the end of a block tells where the next begins.
    """
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise RuntimeError("Pillow was told to accept truncated images")
    try:
        with (
            warnings.catch_warnings(action="ignore"),  # of sizes: they have been accepted
            Image.open(io.BytesIO(data), formats=(kind.upper(),)) as picture,
        ):
            shows_itself = _shows_itself(picture, structure, len(data))
            scale = least_side(ANALYSED_SIDE if shows_itself else DISPLAY_SIDE) / max(picture.size)
            if scale < 1:
                picture.draft(None, (max(1, int(picture.width * scale)), max(1, int(picture.height * scale))))
            picture.load()
            return _flatten(picture), shows_itself
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise whatever their parsing stumbles over
        raise ImageDamaged(
            "The photograph cannot be decoded to its end. Upload the original file again."
        ) from error


def _shows_itself(picture: Image.Image, structure: Structure, size: int) -> bool:
    return (
        structure.plain
        and structure.orientation == 1
        and max(picture.size) <= DISPLAY_SIDE
        and size <= SHOWN_ITSELF_BYTES
        and ("icc_profile" not in picture.info or bool(_profile(picture, picture.mode)))
    )


def _profile(picture: Image.Image, mode: str) -> bytes:
    """Its ICC profile, if there is one for pixels of `mode`: that of another colour space would turn them wrong
    (ICC.1:2022, 7.2.6)."""
    profile: bytes = picture.info.get("icc_profile") or b""
    return profile if profile[16:20] == (b"GRAY" if mode == "L" else b"RGB ") else b""


def _flatten(picture: Image.Image) -> Image.Image:
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        flat = Image.new("RGB", layer.size, "white")
        flat.paste(layer, mask=layer)
    elif picture.mode in ("L", "RGB"):
        flat = picture
    else:
        flat = picture.convert("L" if picture.mode == "1" else "RGB")
    profile = _profile(picture, flat.mode)
    flat.info = {"icc_profile": profile} if profile else {}
    return flat


def _fit(picture: Image.Image, side: int, scaling: tuple[Image.Resampling, float]) -> Image.Image:
    """The picture with a longest side of at most `side`."""
    scale = side / max(picture.size)
    if scale >= 1:
        return picture
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    resampling, reducing_gap = scaling
    return picture.resize(size, resampling, reducing_gap=reducing_gap)


def _upright(picture: Image.Image, orientation: int) -> Image.Image:
    turn = _UPRIGHT.get(orientation)
    return picture if turn is None else picture.transpose(turn)


def _jpeg(picture: Image.Image, quality: int) -> bytes:
    out = io.BytesIO()
    profile = picture.info.get("icc_profile")
    # Not optimized: it takes twice as long for a tenth of the bytes, and Pillow fails at it where there is much grain.
    picture.save(out, "JPEG", quality=quality, subsampling="4:4:4", icc_profile=profile)
    return out.getvalue()
