"""A differential from stated findings alone: no photograph is looked at, and nothing is calibrated.

Each row is a condition with the findings its source describes, weighted 1-3 by how characteristic they are
(negative: they speak against it). The weights are this service's own; no study stands behind them.
"""

from dataclasses import dataclass
from typing import Any

from core.ai_contract import Candidate, Coding, DiagnosisResponse
from reference.ai.facts import Facts
from reference.ai.red_flags import RULES

ICD10, ICD10_VERSION = "http://hl7.org/fhir/sid/icd-10", "2019"
SOMETHING_ELSE = 3  # weight kept for whatever is not in the table
LONGEST = 5


@dataclass(frozen=True)
class Condition:
    label: str
    icd10: str
    needs: tuple[frozenset[str], ...]  # every group needs at least one finding present
    weights: dict[str, int]
    source: str


def _needs(*groups: str) -> tuple[frozenset[str], ...]:
    return tuple(frozenset(group.split()) for group in groups)


_SJS_TEN = next(rule for rule in RULES if rule.code == "sjs_ten")

CONDITIONS: tuple[Condition, ...] = (
    Condition(
        "Melanoma",
        "C43.9",
        _needs("change_in_size irregular_shape irregular_colour"),
        {
            "change_in_size": 2,
            "irregular_shape": 2,
            "irregular_colour": 2,
            "diameter_7mm": 1,
            "inflammation": 1,
        }
        | {"oozing": 1, "change_in_sensation": 1, "pigmented_lesion": 1},
        "NICE NG12, weighted 7-point checklist",
    ),
    Condition(
        "Melanocytic naevus",
        "D22.9",
        _needs("pigmented_lesion"),
        {
            "pigmented_lesion": 3,
            "change_in_size": -1,
            "irregular_shape": -1,
            "irregular_colour": -1,
            "bleeding": -1,
        },
        "DermNet, Melanocytic naevi",
    ),
    Condition(
        "Basal cell carcinoma",
        "C44.9",
        _needs("pearly_edge non_healing_sore"),
        {"pearly_edge": 3, "non_healing_sore": 2, "bleeding": 1},
        "NICE NG12, basal cell carcinoma; DermNet, Basal cell carcinoma",
    ),
    Condition(
        "Cutaneous squamous cell carcinoma",
        "C44.9",
        _needs("keratotic_lump"),
        {"keratotic_lump": 3, "growing": 2, "skin_pain": 1, "bleeding": 1, "immunosuppressed": 1},
        "NICE NG12, squamous cell carcinoma; DermNet, Cutaneous squamous cell carcinoma",
    ),
    Condition(
        "Actinic keratosis",
        "L57.0",
        _needs("rough_sun_patch"),
        {"rough_sun_patch": 3, "keratotic_lump": -1, "growing": -1},
        "DermNet, Actinic keratosis",
    ),
    Condition(
        "Seborrhoeic keratosis",
        "L82",
        _needs("stuck_on_warty"),
        {"stuck_on_warty": 3, "pigmented_lesion": 1, "irregular_colour": -1},
        "DermNet, Seborrhoeic keratosis",
    ),
    Condition(
        "Plaque psoriasis",
        "L40.0",
        _needs("scaly_plaques"),
        {"scaly_plaques": 2, "silvery_scale": 2, "extensor_sites": 2},
        "NICE CG153; DermNet, Chronic plaque psoriasis",
    ),
    Condition(
        "Atopic dermatitis",
        "L20.9",
        _needs("itch", "flexural_sites atopic_eczema dry_skin"),
        {"itch": 1, "flexural_sites": 2, "atopic_eczema": 2, "dry_skin": 1},
        "Williams et al., UK Working Party criteria, Br J Dermatol 1994;131:383-396",
    ),
    Condition(
        "Contact dermatitis",
        "L25.9",
        _needs("itch blisters", "new_contact"),
        {"new_contact": 3, "itch": 1, "blisters": 1},
        "DermNet, Contact dermatitis",
    ),
    Condition(
        "Urticaria",
        "L50.9",
        _needs("weals"),
        {"weals": 3, "itch": 1, "facial_swelling": 1},
        "DermNet, Urticaria",
    ),
    Condition(
        "Tinea corporis",
        "B35.4",
        _needs("ring_shape"),
        {"ring_shape": 3, "itch": 1},
        "DermNet, Tinea corporis",
    ),
    Condition(
        "Scabies",
        "B86",
        _needs("burrows itch_at_night", "burrows contacts_itching"),
        {"burrows": 3, "itch_at_night": 2, "contacts_itching": 2},
        "Engelman et al., IACS criteria for scabies, Br J Dermatol 2020;183:808-820",
    ),
    Condition(
        "Impetigo",
        "L01.0",
        _needs("golden_crust"),
        {"golden_crust": 3, "blisters": 1},
        "NICE NG153; DermNet, Impetigo",
    ),
    Condition(
        "Cellulitis",
        "L03.9",
        _needs("red_hot_swollen"),
        {"red_hot_swollen": 3, "skin_pain": 1, "fever": 1, "rapid_spread": 1, "itch": -1},
        "NICE NG141; DermNet, Cellulitis",
    ),
    Condition(
        "Herpes zoster",
        "B02.9",
        _needs("one_sided_band", "blisters skin_pain"),
        {"one_sided_band": 3, "blisters": 2, "skin_pain": 1},
        "NICE CKS Shingles; DermNet, Herpes zoster",
    ),
    Condition(
        "Acne vulgaris",
        "L70.0",
        _needs("comedones"),
        {"comedones": 3},
        "NICE NG198; DermNet, Acne vulgaris",
    ),
    Condition(
        "Rosacea",
        "L71.9",
        _needs("facial_flushing"),
        {"facial_flushing": 3, "comedones": -1},
        "DermNet, Rosacea",
    ),
    Condition(
        "Seborrhoeic dermatitis",
        "L21.9",
        _needs("greasy_scale"),
        {"greasy_scale": 3},
        "DermNet, Seborrhoeic dermatitis",
    ),
    Condition(
        "Stevens-Johnson syndrome",
        "L51.1",
        _SJS_TEN.groups,
        {
            "mucosal_sores": 3,
            "skin_peeling": 2,
            "blisters": 2,
            "skin_pain": 1,
            "new_medication": 2,
            "fever": 1,
        },
        _SJS_TEN.source,
    ),
    Condition(
        "Drug eruption",
        "L27.0",
        _needs("rash", "new_medication"),
        {"new_medication": 2, "itch": 1},
        "DermNet, Morbilliform drug eruption",
    ),
)


def answer_diagnosis(facts: Facts, envelope: dict[str, Any]) -> DiagnosisResponse:
    """The conditions whose needs are met, heaviest first; what is missing to 1 belongs to anything else."""
    weighed = [
        (weight, condition)
        for condition in CONDITIONS
        if facts.all_groups(condition.needs) == "yes"
        and (weight := sum(points for code, points in condition.weights.items() if code in facts.present)) > 0
    ]
    weighed.sort(key=lambda pair: (-pair[0], pair[1].label))
    total = sum(weight for weight, _ in weighed) + SOMETHING_ELSE
    return DiagnosisResponse(
        **envelope,
        differential=[
            Candidate(
                rank=rank,
                label=condition.label,
                codes=[Coding(system=ICD10, version=ICD10_VERSION, code=condition.icd10)],
                probability=round(weight / total, 4),
            )
            for rank, (weight, condition) in enumerate(weighed[:LONGEST], start=1)
        ],
        calibrated=False,
        abstained=not weighed,
        abstain_reason=None if weighed else "No condition of the table fits what was stated.",
    )
