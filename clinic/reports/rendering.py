"""A case's report as a PDF to archive (PDF/A-2a, ISO 19005-2) that everybody can read (PDF/UA-1, ISO 14289-1).

Pure and picklable, to run in `core.jail`. The same input gives the same bytes. Whatever people wrote reaches
Typst as JSON data and is never compiled; its root is a private directory that holds only the template and the photographs.
"""

import io
import json
import re
import tempfile
from dataclasses import asdict, dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any, Literal

import segno
import typst
from PIL import Image

from clinic.reports.errors import ReportImageUndescribed, ReportUnrenderable
from clinic.reports.wording import WORDS, Locale, written_date, written_time

Shape = Literal["point", "polyline", "polygon", "circle", "ellipse", "rectangle"]

_TEMPLATE = Path(__file__).with_name("report.typ")
# Characters that draw nothing or reorder what stands beside them (Unicode TR 36, 2.5), and halves of characters.
_UNSEEN = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]"
)
_LINE_BREAK = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
_UNDISPLAYED = re.compile(r'the text `"(.*?)"` could not be displayed', re.DOTALL)
_ESCAPED = re.compile(r"\\u\{([0-9a-f]+)\}")


@dataclass(frozen=True)
class Letterhead:
    """The tenant: `address` is the lines under its name."""

    name: str
    address: tuple[str, ...]


@dataclass(frozen=True)
class ReportPatient:
    """`sex` is `female`, `male`, `other` or `unknown`."""

    name: str
    birth_date: date
    sex: str


@dataclass(frozen=True)
class ReportCase:
    """Times are aware, in the zone they shall be read in."""

    reference: str
    submitted_at: datetime
    answered_at: datetime
    complaint: str
    body_site: str
    history: str


@dataclass(frozen=True)
class Mark:
    """An annotation; coordinates are shares (0–1) of the upright photograph's width and height.

    `points`: one for a point, the centre of a circle or an ellipse, two opposite corners of a rectangle, the
    vertices of a polyline or a polygon. `radii`: shares of width and height, for an ellipse; of a circle only
    the first counts.
    """

    shape: Shape
    points: tuple[tuple[float, float], ...]
    label: str
    text: str = ""
    radii: tuple[float, float] = (0.0, 0.0)
    source: Literal["human", "ai"] = "human"


@dataclass(frozen=True)
class Photograph:
    """`jpeg` is the upright display copy; `alt` says what it shows to who cannot see it."""

    jpeg: bytes
    alt: str
    captured_at: datetime | None = None
    marks: tuple[Mark, ...] = ()


@dataclass(frozen=True)
class Candidate:
    """One entry of a differential; `probability` 0–1."""

    label: str
    code: str
    probability: float


@dataclass(frozen=True)
class Assistance:
    """What the AI Service said, and of which model; `notice` says what that may not be taken for."""

    model: str
    version: str
    notice: str
    triage_level: str | None = None
    red_flags: tuple[str, ...] = ()
    differential: tuple[Candidate, ...] = ()
    calibrated: bool = False
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class SignedAnswer:
    """The physician's words, to which the signature belongs."""

    outcome: str
    text: str
    physician: str
    licence: str
    signed_at: datetime


@dataclass(frozen=True)
class Verification:
    """Where the report can be checked, and the SHA-256 of what the physician signed (a file cannot hold its own)."""

    url: str
    content_sha256: str


@dataclass(frozen=True)
class ReportInput:
    """Everything that a report says. `issued_at` (aware) is also the document's creation date."""

    locale: Locale
    letterhead: Letterhead
    patient: ReportPatient
    case: ReportCase
    photographs: tuple[Photograph, ...]
    findings: str
    assistance: Assistance | None
    answer: SignedAnswer
    verification: Verification
    issued_at: datetime
    supersedes: str | None = None


def render_report(report: ReportInput, *, font_directories: tuple[str, ...] = ()) -> bytes:
    """The report as PDF bytes.

    The built-in fonts write Latin, Greek, Cyrillic and some more. A character that no font can draw is printed
    as its code point, `[U+674E]`, rather than left out; `font_directories` adds fonts for other scripts.
    Raises `ReportImageUndescribed`, `ReportUnrenderable`.
    """
    for number, photograph in enumerate(report.photographs, start=1):
        if not photograph.alt.strip():
            raise ReportImageUndescribed(f"Photograph {number} has no alternative text. Say what it shows.")
    data = json.dumps(_printable(_data(report)), ensure_ascii=False)
    fonts = typst.Fonts(include_system_fonts=False, font_paths=list(font_directories))
    with tempfile.TemporaryDirectory(prefix="report-") as directory:
        root = Path(directory)
        template = root / _TEMPLATE.name
        template.write_bytes(_TEMPLATE.read_bytes())
        for number, photograph in enumerate(report.photographs, start=1):
            (root / f"{number}.jpg").write_bytes(photograph.jpeg)
        while True:
            try:
                return typst.compile(
                    template,
                    root=root,
                    font_paths=fonts,
                    sys_inputs={"report": data},
                    pdf_standards=["a-2a", "ua-1"],
                    timestamp=report.issued_at,
                )
            except typst.TypstError as error:
                readable = _without_undisplayed(data, error.diagnostic)
                if readable == data:
                    # Not `from error`: its text quotes the report, and tracebacks are logged.
                    raise ReportUnrenderable("The report's content cannot be made into a document.") from None
                data = readable


def _data(report: ReportInput) -> dict[str, Any]:
    """`report` as the template reads it: JSON-ready, fixed words and dates written out, files by name."""
    words = WORDS[report.locale]
    case, patient, answer = report.case, report.patient, report.answer
    return {
        "locale": report.locale,
        "words": words,
        "letterhead": asdict(report.letterhead),
        "patient": {
            "name": patient.name,
            "birth_date": written_date(patient.birth_date, report.locale),
            "sex": words.get(f"sex.{patient.sex}", patient.sex),
        },
        "case": asdict(case)
        | {
            "submitted_at": written_time(case.submitted_at, report.locale),
            "answered_at": written_time(case.answered_at, report.locale),
        },
        "photographs": [
            _photograph(photograph, number, report.locale)
            for number, photograph in enumerate(report.photographs, start=1)
        ],
        "findings": report.findings,
        "assistance": asdict(report.assistance) if report.assistance else None,
        "answer": asdict(answer) | {"signed_at": written_time(answer.signed_at, report.locale)},
        "verification": asdict(report.verification) | {"qr": _qr(report.verification.url)},
        "issued_at": written_time(report.issued_at, report.locale),
        "supersedes": report.supersedes,
    }


def _photograph(photograph: Photograph, number: int, locale: Locale) -> dict[str, Any]:
    with Image.open(io.BytesIO(photograph.jpeg), formats=("JPEG",)) as image:
        width, height = image.size
    return {
        "file": f"/{number}.jpg",
        "alt": photograph.alt,
        "aspect": width / height,
        "captured_at": written_time(photograph.captured_at, locale) if photograph.captured_at else None,
        "marks": [asdict(mark) for mark in photograph.marks],
    }


def _qr(url: str) -> str:
    out = io.BytesIO()
    segno.make(url, error="m", micro=False).save(out, kind="svg", border=0, xmldecl=False, dark="#12343b")
    return out.getvalue().decode()


def _code_point(character: str) -> str:
    return f"[U+{ord(character):04X}]"


def _printable(value: Any) -> Any:
    """`value` with every string's line breaks as newlines, tabs as spaces, and nothing unseen in it."""
    match value:
        case str():
            text = _LINE_BREAK.sub("\n", value).replace("\t", " ")
            return _UNSEEN.sub(lambda found: _code_point(found[0]), text)
        case dict():
            return {key: _printable(member) for key, member in value.items()}
        case list() | tuple():
            return [_printable(member) for member in value]
    return value


def _without_undisplayed(data: str, diagnostic: str) -> str:
    """`data` with what Typst says no font can draw written as code points."""
    found = {
        character
        for text in _UNDISPLAYED.findall(diagnostic)
        for character in _ESCAPED.sub(lambda escape: chr(int(escape[1], 16)), text)
        if not character.isascii()
    }
    return "".join(_code_point(character) if character in found else character for character in data)
