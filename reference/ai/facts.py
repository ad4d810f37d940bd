"""The vocabulary the rules know, and a request read in its terms.

One namespace serves `context.symptoms`, `context.history` and the `link_id`s of `answers`. A code listed is
present; a boolean answer says present or absent; whatever nobody mentioned is unknown, which is not absent.
"""

from dataclasses import dataclass

from core.ai_contract import AiRequest, Presence

FINDINGS: dict[str, str] = {
    # the complaint
    "single_spot": "Is it about one spot, mole, lump or sore?",
    "rash": "Is it about a rash or a larger area of skin?",
    "other_problem": "Is it about something else?",
    # the whole person
    "fever": "Is there a temperature of 38 °C or more, or shivering?",
    "very_unwell": "Do you feel faint, breathless, or too ill to stand?",
    "confusion": "Is there confusion or unusual drowsiness?",
    "stiff_neck": "Is the neck stiff?",
    "light_hurts_eyes": "Does bright light hurt the eyes?",
    "breathing_difficulty": "Is it hard to breathe or swallow?",
    "facial_swelling": "Are the lips, tongue, throat or face swollen?",
    "age_under_3_months": "Is the patient younger than three months?",
    "atopic_eczema": "Has there been atopic eczema, now or in the past?",
    "immunosuppressed": "Is the immune system weakened by an illness or a medicine?",
    "new_medication": "Was a new medicine started in the last eight weeks?",
    # rashes
    "non_blanching_rash": "Are there spots that stay when a glass is pressed on them?",
    "blisters": "Are there blisters?",
    "skin_pain": "Is the skin painful or tender?",
    "severe_pain": "Is the pain much worse than the skin looks?",
    "skin_peeling": "Is the skin coming off in sheets?",
    "mucosal_sores": "Are there sores in the mouth, the eyes or the genitals?",
    "widespread_redness": "Is nearly all of the skin red?",
    "widespread_pustules": "Are there many pus-filled spots over large areas?",
    "punched_out_erosions": "Are there small round open sores of the same size?",
    "rapid_spread": "Has it spread within hours or a day?",
    "red_hot_swollen": "Is an area of skin red or darker, hot and swollen?",
    "dusky_skin": "Is any of the skin turning purple, grey or black?",
    "near_eye": "Is it close to an eye or on the nose?",
    "eye_symptoms": "Is the eye red or painful, or is vision changed?",
    "one_sided_band": "Is it in a band on one side of the body only?",
    "golden_crust": "Are there honey-coloured crusts?",
    "weals": "Are there raised itchy weals that come and go within a day?",
    "itch": "Does it itch?",
    "itch_at_night": "Is the itch worse at night?",
    "burrows": "Are there fine wavy lines between the fingers or on the wrists?",
    "contacts_itching": "Does anyone close to you itch as well?",
    "scaly_plaques": "Are there raised, scaly, sharply bordered patches?",
    "silvery_scale": "Is the scale silvery or white?",
    "extensor_sites": "Is it on the elbows, the knees or the scalp?",
    "flexural_sites": "Is it in the bends of the elbows or behind the knees?",
    "dry_skin": "Has the skin been dry all over in the last year?",
    "ring_shape": "Is it a ring with a scaly edge and a clearer middle?",
    "comedones": "Are there blackheads or whiteheads?",
    "facial_flushing": "Is the middle of the face red for long, or flushing often?",
    "greasy_scale": "Are there greasy scales on the scalp, the brows or beside the nose?",
    "new_contact": "Did the skin there touch something new, as a cosmetic, a metal or a plant?",
    # spots
    "pigmented_lesion": "Is the spot brown or black?",
    "change_in_size": "Has its size changed?",
    "irregular_shape": "Is its shape uneven or its border ragged?",
    "irregular_colour": "Does it have several colours?",
    "diameter_7mm": "Is it 7 mm wide or more?",
    "inflammation": "Is it inflamed?",
    "oozing": "Is it oozing or crusting?",
    "change_in_sensation": "Does it feel different, as itching or tingling?",
    "elevated": "Is it raised?",
    "firm": "Is it firm to the touch?",
    "growing": "Has it grown for more than a month?",
    "bleeding": "Does it bleed?",
    "non_healing_sore": "Is it a sore that has not healed in four weeks?",
    "pearly_edge": "Does it have a shiny, rolled edge?",
    "keratotic_lump": "Is it a lump with a hard or crusted top?",
    "rough_sun_patch": "Is it a rough, dry patch on sun-exposed skin?",
    "stuck_on_warty": "Does it look warty, as if stuck on the skin?",
}


COMPLAINTS: dict[str, str] = {
    "single_spot": "A spot, mole, lump or sore",
    "rash": "A rash or an area of skin",
    "other_problem": "Something else",
}


@dataclass(frozen=True)
class Facts:
    present: frozenset[str]
    absent: frozenset[str]
    unknown_codes: tuple[str, ...]

    @property
    def stated(self) -> frozenset[str]:
        return self.present | self.absent

    @property
    def silent(self) -> bool:
        """Whether nothing was said beyond the kind of complaint and the age."""
        return self.stated <= COMPLAINTS.keys() | {"age_under_3_months"}

    def any_of(self, codes: frozenset[str]) -> Presence:
        """Whether at least one of the findings is there."""
        if codes & self.present:
            return "yes"
        return "no" if codes <= self.absent else "unknown"

    def all_groups(self, groups: tuple[frozenset[str], ...]) -> Presence:
        """Whether every group has at least one of its findings."""
        states = {self.any_of(group) for group in groups}
        if "no" in states:
            return "no"
        return "unknown" if "unknown" in states else "yes"


def read_facts(request: AiRequest) -> Facts:
    """The request in the rules' terms. What is stated both ways counts as present: the safer reading."""
    stated = [*request.context.symptoms, *request.context.history]
    present = set(stated) & FINDINGS.keys()
    absent: set[str] = set()
    unknown = [code for code in stated if code not in FINDINGS]
    for answer in request.answers:
        if isinstance(answer.value, str) and answer.value in FINDINGS:
            present.add(answer.value)
        elif isinstance(answer.value, bool) and answer.link_id in FINDINGS:
            (present if answer.value else absent).add(answer.link_id)
        else:
            unknown.append(answer.link_id)
    if request.context.age_years is not None:
        (present if request.context.age_years < 0.25 else absent).add("age_under_3_months")
    return Facts(frozenset(present), frozenset(absent - present), tuple(dict.fromkeys(unknown)))
