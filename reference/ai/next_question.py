"""What to ask next: first what would settle a raised danger sign, then the list for the kind of complaint."""

from typing import Any

from core.ai_contract import NextQuestionResponse, Question, QuestionOption
from reference.ai.facts import COMPLAINTS, FINDINGS, Facts
from reference.ai.red_flags import SEVEN_POINTS, raised_but_open

QUESTIONS_AT_ONCE = 3

ASKED: dict[str, tuple[str, ...]] = {
    "single_spot": (
        *SEVEN_POINTS,
        "pigmented_lesion", "elevated", "firm", "growing", "bleeding", "non_healing_sore", "pearly_edge",
        "keratotic_lump", "rough_sun_patch", "stuck_on_warty",
    ),
    "rash": (
        "fever", "very_unwell", "non_blanching_rash", "blisters", "skin_pain", "mucosal_sores", "new_medication",
        "red_hot_swollen", "one_sided_band", "itch", "scaly_plaques", "weals", "ring_shape", "flexural_sites",
        "extensor_sites", "golden_crust", "new_contact",
    ),
    "other_problem": ("fever", "very_unwell", "skin_pain", "itch"),
}  # fmt: skip


def answer_next_question(facts: Facts, envelope: dict[str, Any]) -> NextQuestionResponse:
    """Up to three questions; `progress` is the share of those in view that are answered."""
    complaints = [code for code in COMPLAINTS if code in facts.present]
    listed = dict.fromkeys(code for complaint in complaints for code in ASKED[complaint])
    reasons = _open_danger_signs(facts)
    open_codes = [*reasons, *(code for code in listed if code not in facts.stated | reasons.keys())]

    questions = [
        Question(
            link_id=code,
            text=FINDINGS[code],
            type="boolean",
            required=code in reasons,
            reason=reasons.get(code, "To narrow down what it may be."),
        )
        for code in open_codes
    ]
    if not complaints:
        questions.insert(
            0,
            Question(
                link_id="complaint",
                text="What is it about?",
                type="choice",
                options=[QuestionOption(value=code, label=label) for code, label in COMPLAINTS.items()],
                required=True,
                reason="What is asked next depends on it.",
            ),
        )
    answered = len(facts.stated)
    return NextQuestionResponse(
        **envelope,
        status="in-progress" if questions else "completed",
        questions=questions[:QUESTIONS_AT_ONCE],
        progress=answered / (answered + len(questions)) if questions else 1.0,
    )


def _open_danger_signs(facts: Facts) -> dict[str, str]:
    """The findings that would settle a raised danger sign, gravest first, each with why it is asked."""
    reasons: dict[str, str] = {}
    for rule in raised_but_open(facts):
        for group in rule.groups:
            if facts.any_of(group) == "unknown":
                for code in sorted(group - facts.stated):
                    reasons.setdefault(code, f"To confirm or exclude: {rule.label}.")
    return reasons
