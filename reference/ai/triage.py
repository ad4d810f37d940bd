"""How soon a case should be seen: the gravest danger sign decides."""

from typing import Any, get_args

from core.ai_contract import TriageResponse, Urgency
from reference.ai.facts import Facts
from reference.ai.red_flags import find_flags, raised_but_open

LEVELS: tuple[Urgency, ...] = get_args(Urgency)  # gravest first

# Hours until seen. "At once" and "the same day" are the wording of the guidelines cited in the table of danger
# signs; two weeks is NICE NG12's suspected cancer pathway; 18 weeks the NHS referral-to-treatment standard.
TARGET_HOURS: dict[Urgency, float] = {"emergency": 1, "urgent": 24, "soon": 14 * 24, "routine": 18 * 7 * 24}


def answer_triage(facts: Facts, envelope: dict[str, Any]) -> TriageResponse:
    """`score` is the level's place on the scale, not a probability."""
    if facts.silent:
        return TriageResponse(
            **envelope,
            level=None,
            target_hours=None,
            abstained=True,
            abstain_reason="Nothing was stated that the rules know; a person must triage this case.",
        )
    found = [
        (flag.severity, f"{flag.label}. {flag.evidence}")
        for flag in find_flags(facts)
        if flag.present == "yes"
    ]
    # A raised emergency that nobody has excluded is seen the same day, not in 18 weeks.
    found += [
        ("urgent", f"{rule.label} is not excluded. Rule: {rule.source}.")
        for rule in raised_but_open(facts)
        if rule.severity == "emergency"
    ]
    found.sort(key=lambda reason: LEVELS.index(reason[0]))
    level = found[0][0] if found else "routine"
    return TriageResponse(
        **envelope,
        level=level,
        target_hours=TARGET_HOURS[level],
        score=1 - LEVELS.index(level) / len(LEVELS),
        reasons=[text for _, text in found] or ["No danger sign of the table was stated."],
    )
