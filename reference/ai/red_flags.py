"""Danger signs, as a table: each row with the guideline it was taken from.

A row holds when every one of its groups has at least one finding present. The first group is its lead: what
makes one think of it at all.
"""

from dataclasses import dataclass
from typing import Any

from core.ai_contract import Presence, RedFlag, RedFlagsResponse, Urgency
from reference.ai.facts import Facts


@dataclass(frozen=True)
class FlagRule:
    code: str
    label: str
    severity: Urgency
    groups: tuple[frozenset[str], ...]
    action: str
    source: str


def _groups(*groups: str) -> tuple[frozenset[str], ...]:
    return tuple(frozenset(group.split()) for group in groups)


_CALL = "Call the emergency services now."
_TODAY = "Arrange an assessment by a specialist today."
_CANCER = "Refer on the suspected cancer pathway, to be seen within two weeks."

RULES: tuple[FlagRule, ...] = (
    FlagRule(
        "meningococcal_disease",
        "Possible meningococcal disease",
        "emergency",
        _groups("non_blanching_rash", "fever very_unwell confusion stiff_neck light_hurts_eyes"),
        _CALL,
        "NICE NG240 (2024), recognising meningococcal disease",
    ),
    FlagRule(
        "sjs_ten",
        "Possible Stevens-Johnson syndrome or toxic epidermal necrolysis",
        "emergency",
        _groups("blisters skin_peeling", "mucosal_sores skin_pain", "mucosal_sores new_medication fever"),
        _CALL + " Do not take another dose of a newly started medicine before a doctor has advised.",
        "Creamer et al., UK guidelines for SJS/TEN in adults, Br J Dermatol 2016;174:1194-1227",
    ),
    FlagRule(
        "necrotising_infection",
        "Possible necrotising soft tissue infection",
        "emergency",
        _groups("severe_pain", "dusky_skin rapid_spread"),
        _CALL,
        "NICE NG141 (2019), referral to hospital: necrotising fasciitis",
    ),
    FlagRule(
        "skin_sepsis",
        "Possible sepsis from a skin infection",
        "emergency",
        _groups("red_hot_swollen dusky_skin", "very_unwell confusion"),
        _CALL,
        "NICE NG141 (2019), referral to hospital: sepsis",
    ),
    FlagRule(
        "orbital_cellulitis",
        "Possible orbital cellulitis",
        "emergency",
        _groups("red_hot_swollen", "near_eye", "eye_symptoms"),
        _CALL,
        "NICE NG141 (2019), referral to hospital: orbital cellulitis",
    ),
    FlagRule(
        "anaphylaxis",
        "Possible anaphylaxis",
        "emergency",
        _groups("weals facial_swelling", "breathing_difficulty very_unwell"),
        _CALL,
        "Resuscitation Council UK, Emergency treatment of anaphylaxis (2021)",
    ),
    FlagRule(
        "young_infant_fever",
        "Fever in an infant younger than three months",
        "emergency",
        _groups("fever", "age_under_3_months"),
        _CALL,
        "NICE NG143 (2019), traffic light system: red",
    ),
    FlagRule(
        "cellulitis_at_risk",
        "Possible cellulitis with fever, at the eye or nose, or with weakened immunity",
        "urgent",
        _groups("red_hot_swollen", "fever near_eye immunosuppressed rapid_spread"),
        _TODAY,
        "NICE NG141 (2019), referral and specialist advice",
    ),
    FlagRule(
        "shingles_at_risk",
        "Possible shingles at the eye, or with weakened immunity",
        "urgent",
        _groups("one_sided_band", "near_eye eye_symptoms immunosuppressed"),
        _TODAY,
        "NICE CKS Shingles, admission or specialist advice",
    ),
    FlagRule(
        "eczema_herpeticum",
        "Possible eczema herpeticum",
        "urgent",
        _groups("punched_out_erosions blisters", "atopic_eczema", "fever skin_pain rapid_spread"),
        _TODAY,
        "NICE CG57 (2007), suspected eczema herpeticum: same-day referral",
    ),
    FlagRule(
        "erythroderma",
        "Possible erythroderma",
        "urgent",
        _groups("widespread_redness"),
        _TODAY,
        "NICE CG153 (2012), erythroderma: same-day specialist assessment",
    ),
    FlagRule(
        "generalised_pustular_psoriasis",
        "Possible generalised pustular psoriasis",
        "urgent",
        _groups("widespread_pustules", "fever very_unwell skin_pain"),
        _TODAY,
        "NICE CG153 (2012), generalised pustular psoriasis: same-day specialist assessment",
    ),
    FlagRule(
        "nodular_melanoma",
        "Possible nodular melanoma: elevated, firm and growing",
        "soon",
        _groups("elevated", "firm", "growing"),
        _CANCER,
        "NICE NG12, melanoma; Kelly et al., Med J Aust 2003 (EFG criteria)",
    ),
    FlagRule(
        "squamous_cell_carcinoma",
        "Possible squamous cell carcinoma",
        "soon",
        _groups("keratotic_lump", "growing bleeding skin_pain"),
        _CANCER,
        "NICE NG12, squamous cell carcinoma",
    ),
)

SEVEN_POINTS: dict[str, int] = {
    "change_in_size": 2,
    "irregular_shape": 2,
    "irregular_colour": 2,
    "diameter_7mm": 1,
    "inflammation": 1,
    "oozing": 1,
    "change_in_sensation": 1,
}
REFERRAL_SCORE = 3


def seven_point_score(facts: Facts) -> tuple[int, Presence]:
    """The weighted 7-point checklist of NICE NG12: the score so far, and whether it reaches referral."""
    score = sum(points for code, points in SEVEN_POINTS.items() if code in facts.present)
    reachable = sum(points for code, points in SEVEN_POINTS.items() if code not in facts.absent)
    if score >= REFERRAL_SCORE:
        return score, "yes"
    return score, "no" if reachable < REFERRAL_SCORE else "unknown"


def find_flags(facts: Facts) -> list[RedFlag]:
    """Every row of the table with what the facts say of it."""
    flags = [
        RedFlag(
            code=rule.code,
            label=rule.label,
            present=facts.all_groups(rule.groups),
            severity=rule.severity,
            evidence=_evidence(facts, frozenset().union(*rule.groups), rule.source),
            action=rule.action,
        )
        for rule in RULES
    ]
    score, present = seven_point_score(facts)
    flags.append(
        RedFlag(
            code="melanoma_checklist",
            label="Weighted 7-point checklist for melanoma at 3 or more",
            present=present,
            severity="soon",
            evidence=_evidence(facts, frozenset(SEVEN_POINTS), f"score {score}; NICE NG12, melanoma"),
            action=_CANCER,
        )
    )
    return flags


def raised_but_open(facts: Facts) -> list[FlagRule]:
    """Rows whose lead is present and whose rest is neither confirmed nor excluded."""
    return [
        rule
        for rule in RULES
        if facts.any_of(rule.groups[0]) == "yes" and facts.all_groups(rule.groups) == "unknown"
    ]


def answer_red_flags(facts: Facts, envelope: dict[str, Any]) -> RedFlagsResponse:
    flags = find_flags(facts)
    return RedFlagsResponse(
        **envelope,
        flags=flags,
        emergency=any(flag.present == "yes" and flag.severity == "emergency" for flag in flags),
        abstained=facts.silent,
        abstain_reason="Nothing was stated that the rules know." if facts.silent else None,
    )


def _evidence(facts: Facts, codes: frozenset[str], source: str) -> str:
    stated = ", ".join(sorted(codes & facts.present)) or "nothing"
    return f"Stated: {stated}. Rule: {source}."
