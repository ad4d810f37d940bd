"""Reports as a reader, a screen reader and an archive find them."""

import io
import re
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone
from functools import cache
from pathlib import Path
from typing import Any, get_args

import pytest
from pypdf import PdfReader
from pypdf.generic import DictionaryObject, IndirectObject

from clinic.images.inspection import inspect_image
from clinic.reports.errors import ReportImageUndescribed, ReportUnrenderable
from clinic.reports.rendering import (
    Assistance,
    Candidate,
    Letterhead,
    Mark,
    Photograph,
    ReportCase,
    ReportInput,
    ReportPatient,
    Shape,
    SignedAnswer,
    Verification,
    render_report,
)
from clinic.reports.wording import LOCALES, WORDS, Locale, written_date, written_time
from core.jail import Jail

PHOTOGRAPH = Path(__file__).parents[2] / "reference" / "photographs" / "lesion.jpg"
SUMMER = timezone(timedelta(hours=2))
COMPLAINT = r"Grew since #1 & is <darker> now; itches *at night*, $5 \ _no_ `bleeding` @me [x] ~ // end"
MARKS = (
    Mark(
        "polygon", ((0.33, 0.37), (0.58, 0.39), (0.74, 0.49), (0.39, 0.54)), "Border", "Notched on the right."
    ),
    Mark("ellipse", ((0.53, 0.42),), "Darker area", radii=(0.09, 0.06), source="ai"),
)


@cache
def photograph() -> bytes:
    data = PHOTOGRAPH.read_bytes()
    display = inspect_image(data, declared_type=None, max_bytes=2_000_000, max_pixels=10_000_000).display
    assert display
    return display


def a_report(locale: Locale = "en", marks: tuple[Mark, ...] = MARKS) -> ReportInput:
    return ReportInput(
        locale=locale,
        letterhead=Letterhead("Klinik am See", ("Seestrasse 12", "8002 Zürich")),
        patient=ReportPatient("Zoë Müller-Łukasiewicz", date(1981, 3, 4), "female"),
        case=ReportCase(
            reference="KS-2026-00417",
            submitted_at=datetime(2026, 7, 1, 9, 31, tzinfo=SUMMER),
            answered_at=datetime(2026, 7, 1, 11, 5, tzinfo=SUMMER),
            complaint=COMPLAINT,
            body_site="Upper back",
            history="Two sunburns as a child.\n\nNo medication.",
        ),
        photographs=(Photograph(photograph(), "Brown patch with an irregular border.", None, marks),),
        findings="Asymmetric macule of 11 × 8 mm.",
        assistance=Assistance(
            model="reference-rules",
            version="1.0.0",
            notice="Computed, not a diagnosis.",
            triage_level="urgent",
            red_flags=("Change in size",),
            differential=(
                Candidate("Dysplastic naevus", "2F20.1", 0.463),
                Candidate("Melanoma", "2C30", 0.38),
            ),
            warnings=("One photograph only.",),
        ),
        answer=SignedAnswer(
            outcome="See in person",
            text="Dermoscopy within two weeks.",
            physician="Dr. med. Anna Keller",
            licence="ZH-48213",
            signed_at=datetime(2026, 7, 1, 11, 4, tzinfo=SUMMER),
        ),
        verification=Verification("https://klinik.derma.example/verify/7Hq2n0Xv", "9f86d081" * 8),
        issued_at=datetime(2026, 7, 1, 9, 6, tzinfo=UTC),
    )


def text_of(pdf: bytes) -> str:
    text = " ".join(page.extract_text() for page in PdfReader(io.BytesIO(pdf)).pages)
    return re.sub(r"\s+", " ", text)


def alternative_texts(pdf: bytes) -> list[str]:
    """Every /Alt of the structure tree, as a screen reader finds them."""

    def walk(node: object) -> list[str]:
        if isinstance(node, IndirectObject):
            node = node.get_object()
        if isinstance(node, list):
            return [text for child in node for text in walk(child)]
        if not isinstance(node, DictionaryObject):
            return []
        own = [str(node["/Alt"])] if "/Alt" in node else []
        return own + walk(node.get("/K"))

    return walk(PdfReader(io.BytesIO(pdf)).root_object["/StructTreeRoot"])


def test_everything_that_was_said_can_be_read_back() -> None:
    pdf = render_report(a_report())
    text = text_of(pdf)
    for said in (
        "Klinik am See",
        "8002 Zürich",
        "Zoë Müller-Łukasiewicz",
        "4 March 1981",
        "KS-2026-00417",
        "1 July 2026, 09:31 UTC+02:00",
        COMPLAINT,
        "Two sunburns as a child. No medication.",
        "Border Notched on the right.",
        "Darker area (AI)",
        "Asymmetric macule of 11 × 8 mm.",
        "reference-rules, 1.0.0",
        "Urgency: urgent",
        "Dysplastic naevus 2F20.1 0.46",
        "they are not probabilities",
        "Outcome: See in person",
        "Dr. med. Anna Keller Licence ZH-48213",
        "9f86d081" * 8,
        "Page 1 / 2",
        "Page 2 / 2",
    ):
        assert said in text, said
    links = [
        note["/A"]["/URI"] for page in PdfReader(io.BytesIO(pdf)).pages for note in page.get("/Annots", [])
    ]
    assert links == ["https://klinik.derma.example/verify/7Hq2n0Xv"]


def test_the_document_says_that_it_is_archivable_and_accessible() -> None:
    pdf = PdfReader(io.BytesIO(render_report(a_report("de"))))
    root: Any = pdf.root_object
    xmp = root["/Metadata"].get_data().decode()
    assert ("<pdfaid:part>2<" in xmp, "<pdfaid:conformance>A<" in xmp, "<pdfuaid:part>1<" in xmp) == (
        True,
    ) * 3
    assert (root["/Lang"], root["/MarkInfo"]["/Marked"]) == ("de", True)
    assert root["/ViewerPreferences"]["/DisplayDocTitle"]
    assert pdf.metadata
    assert pdf.metadata.title == "Dermatologischer Befundbericht KS-2026-00417"
    assert pdf.metadata.creation_date == datetime(2026, 7, 1, 9, 6, tzinfo=UTC)
    assert alternative_texts(render_report(a_report())) == [
        "Brown patch with an irregular border.",
        "QR code that leads to https://klinik.derma.example/verify/7Hq2n0Xv",
    ]


async def test_the_same_input_gives_the_same_bytes_in_another_process() -> None:
    jail = Jail(workers=1)
    try:
        elsewhere = await jail.run(30, render_report, a_report())
        with pytest.raises(ReportImageUndescribed):
            await jail.run(30, render_report, a_report_without_alt())
    finally:
        jail.close()
    assert elsewhere == render_report(a_report())
    later = replace(a_report(), issued_at=datetime(2026, 7, 2, tzinfo=UTC))
    assert render_report(later) != elsewhere


def a_report_without_alt() -> ReportInput:
    report = a_report()
    return replace(report, photographs=(replace(report.photographs[0], alt=" \n"),))


def test_what_people_wrote_is_never_compiled() -> None:
    injection = '#read("/etc/passwd") #panic("x") \\u{23} ]#sys.inputs[ "; ${7*7} </svg>'
    report = a_report()
    pdf = render_report(
        replace(
            report,
            letterhead=Letterhead(injection, (injection,)),
            patient=replace(report.patient, name=injection, sex=injection),
            case=replace(
                report.case, complaint=injection, history=injection, body_site=injection, reference=injection
            ),
            findings=injection,
            answer=replace(report.answer, outcome=injection, text=injection, physician=injection),
            photographs=(
                Photograph(photograph(), injection, None, (Mark("point", ((0.5, 0.5),), injection),)),
            ),
        )
    )
    text = text_of(pdf)
    assert text.count('#read("/etc/passwd") #panic("x")') >= 9
    assert "root:" not in text


@pytest.mark.parametrize("locale", LOCALES)
def test_fixed_words_and_dates_are_of_the_locale(locale: Locale) -> None:
    text = text_of(render_report(a_report(locale)))
    words = WORDS[locale]
    for word in (
        "title",
        "birth_date",
        "complaint",
        "findings",
        "answer",
        "assistance",
        "verification",
        "sex.female",
    ):
        assert words[word] in text
    assert written_date(date(1981, 3, 4), locale) in text
    assert all(words.values()), "every word is translated"


def test_dates_follow_each_language() -> None:
    first = date(2026, 3, 1)
    assert [written_date(first, locale) for locale in LOCALES] == [
        "1 March 2026",
        "1. März 2026",
        "1er mars 2026",
        "1 de marzo de 2026",
    ]
    naive = datetime(2026, 3, 1, 7, 5, tzinfo=UTC).replace(tzinfo=None)
    assert written_time(naive, "en") == "1 March 2026, 07:05"


def drawn(marks: tuple[Mark, ...]) -> tuple[list[tuple[float, float]], tuple[float, float]]:
    """The points of the first page's paths in shares of the photograph, and its size in points."""
    paths: list[tuple[float, float]] = []
    boxes: list[list[float]] = []

    def see(operator: bytes, operands: list[float], matrix: list[float], _: list[float]) -> None:
        a, b, c, d, e, f = matrix
        if operator == b"Do":
            boxes.append(matrix)
        if operator in (b"m", b"l", b"c", b"re"):
            numbers = [float(number) for number in operands]
            if operator == b"re":
                x, y, wide, high = numbers
                numbers = [x, y, x + wide, y, x, y + high, x + wide, y + high]
            paths.extend(
                (a * x + c * y + e, b * x + d * y + f) for x, y in zip(*[iter(numbers)] * 2, strict=True)
            )

    PdfReader(io.BytesIO(render_report(a_report(marks=marks)))).pages[0].extract_text(
        visitor_operand_before=see
    )
    width, _, _, height, left, bottom = boxes[0]
    return [((x - left) / width, 1 - (y - bottom) / height) for x, y in paths], (width, height)


@pytest.mark.parametrize("shape", get_args(Shape))
def test_every_shape_is_drawn_where_it_was_marked(shape: Shape) -> None:
    x, y, across, down = 0.3, 0.6, 0.1, 0.05
    corners = ((x, y), (x + 0.2, y + 0.1), (x + 0.05, y + 0.25))
    mark = Mark(
        shape,
        corners[: {"rectangle": 2, "polyline": 3, "polygon": 3}.get(shape, 1)],
        "Mark",
        "",
        (across, down),
    )
    points, (width, height) = drawn((mark,))
    if shape == "point":
        across, down = (1.5 * 72 / 25.4 / side for side in (width, height))
    if shape == "circle":
        down = across * width / height  # as wide as high, whatever the photograph's proportions
    extremes = ((x - across, y), (x + across, y), (x, y - down), (x, y + down))
    for at in mark.points if len(mark.points) > 1 else extremes:
        found = [point for point in points if max(abs(point[0] - at[0]), abs(point[1] - at[1])) < 0.002]
        assert len(found) >= 2, f"outline and halo at {at}"


def test_photographs_are_embedded_as_they_are() -> None:
    pages: Any = PdfReader(io.BytesIO(render_report(a_report()))).pages
    drawings = [
        drawing.get_object() for page in pages for drawing in page["/Resources"].get("/XObject", {}).values()
    ]
    assert [drawing.get_data() for drawing in drawings if "/Width" in drawing] == [photograph()]


def test_a_photograph_without_alternative_text_is_refused() -> None:
    with pytest.raises(ReportImageUndescribed, match="Photograph 1"):
        render_report(a_report_without_alt())


def test_characters_without_a_glyph_are_named_not_lost() -> None:
    report = a_report()
    pdf = render_report(
        replace(
            report,
            patient=replace(report.patient, name="李明 Ольга Ελένη"),
            findings="itch 😀\u202edesrever\x07\ud800 tab\tend\r\nnext line",
        )
    )
    text = text_of(pdf)
    assert "[U+674E][U+660E] Ольга Ελένη" in text
    assert "itch [U+1F600][U+202E]desrever[U+0007][U+D800] tab end next line" in text


def test_impossible_marks_are_refused() -> None:
    with pytest.raises(ReportUnrenderable):
        render_report(a_report(marks=(Mark("rectangle", ((0.1, 0.1),), "one corner only"),)))


def test_a_report_needs_neither_photographs_nor_ai() -> None:
    bare = replace(a_report(), photographs=(), assistance=None, findings="", supersedes="0198-first")
    text = text_of(render_report(bare))
    assert "AI assistance" not in text
    assert "Supersedes report 0198-first" in text


def test_long_texts_flow_over_pages() -> None:
    report = a_report(
        marks=tuple(Mark("point", (((i % 9 + 1) / 10, 0.5),), f"Mark {i}", "word " * 30) for i in range(40))
    )
    pdf = render_report(replace(report, findings="Sentence of a long finding. " * 900))
    assert len(PdfReader(io.BytesIO(pdf)).pages) > 5
    assert text_of(pdf).count("Sentence of a long finding.") == 900
    assert "Mark 39" in text_of(pdf)
