"""The life cycle of a case: a plain table of what leads where, and who may do it.

Actions whose routes are not there yet stand in the tables too; `ROUTED` names those one can call today.
"""

from functools import lru_cache
from typing import Literal

from clinic.cases.errors import WrongStatus
from clinic.cases.models import STATUSES, Case

Party = Literal["owner", "physician", "assignee", "supervisor", "coordinator", "tenant_admin", "system"]
"""How somebody stands to a case. `owner`: its patient, or the referrer who opened it. `physician`: registered as
one. `assignee`: the physician who holds it."""

TRANSITIONS: dict[tuple[str, str], str] = {
    # from, action: to
    ("draft", "submit"): "submitted",
    ("submitted", "triage"): "triaged",
    ("triaged", "enqueue"): "queued",
    ("queued", "claim"): "assigned",
    ("queued", "assign"): "assigned",
    ("assigned", "start"): "in_review",
    ("assigned", "decline"): "queued",
    ("assigned", "expire"): "queued",
    ("assigned", "release"): "queued",
    ("in_review", "release"): "queued",
    ("needs_info", "release"): "queued",
    ("in_review", "request_info"): "needs_info",
    ("needs_info", "supply_info"): "in_review",
    ("in_review", "answer"): "answered",
    ("in_review", "answer_for_approval"): "pending_approval",
    ("pending_approval", "approve"): "answered",
    ("pending_approval", "return"): "in_review",
    ("answered", "close"): "closed",
    ("answered", "reopen"): "queued",
    ("closed", "reopen"): "queued",
    ("draft", "cancel"): "cancelled",
    ("submitted", "cancel"): "cancelled",
    ("triaged", "cancel"): "cancelled",
    ("queued", "cancel"): "cancelled",
    ("assigned", "cancel"): "cancelled",
    ("in_review", "cancel"): "cancelled",
    ("needs_info", "cancel"): "cancelled",
    ("pending_approval", "cancel"): "cancelled",
}

RELEASABLE = frozenset(before for before, action in TRANSITIONS if action == "release")
"""Where a case still needs its physician, and goes back to the queue when there is none any more."""

OVER = frozenset({"answered", "closed", "cancelled"})
"""Where nothing that the AI Service says matters any more."""

DONE_BY: dict[str, frozenset[Party]] = {
    "submit": frozenset({"owner"}),
    "triage": frozenset({"coordinator", "system"}),
    "enqueue": frozenset({"coordinator", "system"}),
    "claim": frozenset({"physician"}),
    "assign": frozenset({"coordinator", "system"}),
    "start": frozenset({"assignee"}),
    "decline": frozenset({"assignee"}),
    "expire": frozenset({"system"}),
    "release": frozenset({"system"}),
    "request_info": frozenset({"assignee"}),
    "supply_info": frozenset({"owner"}),
    "answer": frozenset({"assignee"}),
    "answer_for_approval": frozenset({"assignee"}),
    "approve": frozenset({"supervisor"}),
    "return": frozenset({"supervisor"}),
    "close": frozenset({"owner", "system"}),
    "reopen": frozenset({"owner", "coordinator"}),
    "cancel": frozenset({"owner", "tenant_admin"}),
}

ROUTED: dict[str, str] = {
    # action: the scope its route demands
    "submit": "cases:submit",
    "triage": "cases:triage",
    "enqueue": "cases:triage",
    "claim": "cases:answer",
    "start": "cases:answer",
    "decline": "cases:answer",
    "answer": "cases:answer",
    "close": "cases:submit",
    "cancel": "cases:submit",
}

_FROM = {
    status: [action for source, action in TRANSITIONS if source == status and action in ROUTED]
    for status in STATUSES
}


@lru_cache(maxsize=4096)
def allowed_actions(status: str, parties: frozenset[Party], scopes: frozenset[str]) -> tuple[str, ...]:
    """The actions with a route that lead on from `status` and that these parties, with these scopes, may do."""
    return tuple(
        action
        for action in _FROM[status]
        if ROUTED[action] in scopes and not DONE_BY[action].isdisjoint(parties)
    )


def apply(case: Case, action: str) -> tuple[str, str]:
    """Do `action` to the case's status. Returns the status before and after. Raises `WrongStatus`."""
    before = case.status
    after = TRANSITIONS.get((before, action))
    if after is None:
        raise WrongStatus(f"A case that is {before} takes no {action}.", case_status=before, action=action)
    case.status = after
    return before, after
