"""What a report says: read from the case's rows, put into the words of its language."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import aliased

from clinic.ai.models import AiResult
from clinic.annotations.models import Annotation
from clinic.cases.models import Case
from clinic.images.models import Image
from clinic.patients.models import Patient
from clinic.patients.schemas import Identity
from clinic.physicians.models import Physician, PhysicianLicence
from clinic.reports.models import Report
from clinic.reports.rendering import (
    Assistance,
    Candidate,
    Letterhead,
    Mark,
    Photograph,
    ReportCase,
    ReportInput,
    ReportPatient,
    SignedAnswer,
    Verification,
)
from clinic.reports.wording import LOCALES, WORDS, Locale
from core.ai_contract import DiagnosisResponse, RedFlagsResponse, TriageResponse
from core.database import TenantSession

CANDIDATES = 5  # of a differential that are printed

_NOTICE: dict[Locale, str] = {
    "en": "Computed suggestions that the physician had before them. They are no diagnosis; the physician’s "
    "assessment alone counts.",
    "de": "Berechnete Vorschläge, die bei der Beurteilung vorlagen. Sie sind keine Diagnose; es gilt allein die "
    "ärztliche Beurteilung.",
    "fr": "Propositions calculées dont disposait le médecin. Elles ne constituent pas un diagnostic ; seule "
    "l’évaluation du médecin fait foi.",
    "es": "Propuestas calculadas de las que disponía el médico. No son un diagnóstico; solo cuenta la valoración "
    "del médico.",
}
_OUTCOMES: dict[str, tuple[str, str, str, str]] = {  # in the order of LOCALES
    "reassurance": ("Reassurance", "Unbedenklich", "Rassurant", "Sin motivo de preocupación"),
    "treatment": ("Treatment", "Behandlung", "Traitement", "Tratamiento"),
    "in_person_visit": (
        "In-person visit",
        "Persönliche Vorstellung",
        "Consultation en personne",
        "Visita presencial",
    ),
    "emergency_care": ("Emergency care", "Notfallversorgung", "Soins d’urgence", "Atención de urgencia"),
    "inconclusive": ("Inconclusive", "Nicht beurteilbar", "Non concluant", "No concluyente"),
}


@dataclass(frozen=True)
class Material:
    """The rows a report is made of."""

    case: Case
    patient: Patient
    images: Sequence[Image]
    annotations: Sequence[Annotation]
    results: dict[str, dict[str, Any]]  # the latest answer of each of the AI Service's endpoints
    physician: Physician
    licence: str


async def gather(session: TenantSession, case: Case) -> Material:
    """Everything that the report of an answered case is made of but the photographs' bytes."""
    assert case.answered_by is not None
    later = aliased(Annotation)
    images = await session.scalars(
        select(Image).where(Image.case_id == case.id, Image.status == "stored").order_by(Image.id)
    )
    annotations = await session.scalars(
        select(Annotation)
        .outerjoin(later, later.supersedes == Annotation.id)
        .where(Annotation.case_id == case.id, later.id.is_(None))
        .order_by(Annotation.id)
    )
    results = await session.execute(
        select(AiResult.endpoint, AiResult.response)
        .where(AiResult.case_id == case.id)
        .ext(distinct_on(AiResult.endpoint))
        .order_by(AiResult.endpoint, AiResult.id.desc())
    )
    return Material(
        case=case,
        patient=await session.get_one(Patient, case.patient_id),
        images=images.all(),
        annotations=annotations.all(),
        results={row.endpoint: row.response for row in results},
        physician=await session.get_one(Physician, case.answered_by),
        licence=await _licence(session, case),
    )


async def _licence(session: TenantSession, case: Case) -> str:
    """Region and number of the licence under which the case was answered; the more local one where two were valid."""
    assert case.answered_at is not None
    answered_on = case.answered_at.date()
    found = (
        await session.execute(
            select(PhysicianLicence.region, PhysicianLicence.number)
            .where(
                PhysicianLicence.physician_id == case.answered_by,
                PhysicianLicence.region.in_({case.region, case.region.split("-")[0]}),
                PhysicianLicence.valid_from <= answered_on,
                PhysicianLicence.valid_to >= answered_on,
            )
            .order_by(PhysicianLicence.region.desc(), PhysicianLicence.number)
            .limit(1)
        )
    ).one_or_none()
    return f"{found.region} {found.number}" if found else ""


def choose_locale(wanted: Locale | None, case_locale: str) -> Locale:
    """The language asked for, else the case's, else English."""
    if wanted is not None:
        return wanted
    language = case_locale.split("-")[0].lower()
    return next((locale for locale in LOCALES if locale == language), "en")


def content_sha256(case: Case) -> str:
    """SHA-256 over what the physician signed, as canonical JSON."""
    assert case.answered_at is not None
    signed = {
        "answer": case.answer,
        "answered_at": case.answered_at.isoformat(),
        "answered_by": str(case.answered_by),
        "findings": case.findings,
        "outcome": case.outcome,
        "reference": case.reference,
    }
    canonical = json.dumps(signed, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def compose(
    material: Material,
    report: Report,
    locale: Locale,
    *,
    organisation: str,
    identity: Identity,
    pictures: dict[UUID, bytes],
    verify_url: str,
) -> ReportInput:
    """The input of `render_report`. `pictures` are the photographs' display copies by the id of their image."""
    case = material.case
    assert case.submitted_at is not None
    assert case.answered_at is not None
    assert case.outcome is not None
    outcome = _OUTCOMES[case.outcome][LOCALES.index(locale)]
    return ReportInput(
        locale=locale,
        letterhead=Letterhead(organisation, ()),
        patient=ReportPatient(identity.name, identity.birth_date, material.patient.sex),
        case=ReportCase(
            reference=case.reference,
            submitted_at=case.submitted_at,
            answered_at=case.answered_at,
            complaint=case.complaint,
            body_site=case.body_site or "–",
            history=case.history,
        ),
        photographs=tuple(
            _photograph(image, number, pictures[image.id], material, locale)
            for number, image in enumerate(material.images, start=1)
        ),
        findings=case.findings or "",
        assistance=_assistance(material.results, locale),
        answer=SignedAnswer(
            outcome=outcome,
            text=case.answer or "",
            physician=material.physician.display_name,
            licence=material.licence,
            signed_at=case.answered_at,
        ),
        verification=Verification(verify_url, content_sha256(case)),
        issued_at=report.created_at.replace(microsecond=0),  # a PDF counts in seconds
        supersedes=str(report.supersedes) if report.supersedes else None,
    )


def _photograph(image: Image, number: int, jpeg: bytes, material: Material, locale: Locale) -> Photograph:
    marks = tuple(_mark(each) for each in material.annotations if each.image_id == image.id)
    site = image.body_site or material.case.body_site
    shown = ", ".join(filter(None, [site, *dict.fromkeys(mark.label for mark in marks)]))
    alt = f"{WORDS[locale]['photograph']} {number}" + (f": {shown}" if shown else "")
    # The camera's clock has no zone, so none is printed.
    captured = image.captured_at.replace(tzinfo=None) if image.captured_at else None
    return Photograph(jpeg, alt, captured, marks)


def _mark(annotation: Annotation) -> Mark:
    geometry = annotation.geometry
    points: list[tuple[float, float]]
    radii = (0.0, 0.0)
    if "points" in geometry:
        points = [(x, y) for x, y in geometry["points"]]
    else:
        points = [(geometry["x"], geometry["y"])]
        if annotation.shape == "rectangle":
            points.append((geometry["x"] + geometry["width"], geometry["y"] + geometry["height"]))
        elif annotation.shape == "circle":
            radii = (geometry["radius"], geometry["radius"])
        elif annotation.shape == "ellipse":
            radii = (geometry["radius_x"], geometry["radius_y"])
    return Mark(
        shape=annotation.shape,  # type: ignore[arg-type]  # as the table's CHECK constraint says
        points=tuple(points),
        label=annotation.label,
        text=annotation.text,
        radii=radii,
        source=annotation.source,  # type: ignore[arg-type]  # likewise
    )


def _assistance(results: dict[str, dict[str, Any]], locale: Locale) -> Assistance | None:
    diagnosis = DiagnosisResponse.model_validate(results["diagnosis"]) if "diagnosis" in results else None
    flags = RedFlagsResponse.model_validate(results["red-flags"]) if "red-flags" in results else None
    triage = TriageResponse.model_validate(results["triage"]) if "triage" in results else None
    answers = [answer for answer in (diagnosis, flags, triage) if answer is not None]
    if not answers:
        return None
    return Assistance(
        model=" / ".join(dict.fromkeys(answer.model.name for answer in answers)),
        version=" / ".join(dict.fromkeys(answer.model.version for answer in answers)),
        notice=_NOTICE[locale],
        triage_level=triage.level if triage else None,
        red_flags=tuple(flag.label for flag in flags.flags if flag.present == "yes") if flags else (),
        differential=tuple(
            Candidate(
                each.label,
                # `http://hl7.org/fhir/sid/icd-10` is printed as `ICD-10`
                f"{each.codes[0].system.rsplit('/', 1)[-1].upper()} {each.codes[0].code}"
                if each.codes
                else "",
                each.probability,
            )
            for each in sorted(diagnosis.differential, key=lambda each: each.rank)[:CANDIDATES]
        )
        if diagnosis
        else (),
        calibrated=diagnosis.calibrated if diagnosis else False,
        warnings=tuple(dict.fromkeys(warning for answer in answers for warning in answer.warnings)),
    )
