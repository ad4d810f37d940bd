"""The life cycle of a case as a table: what holds on every path through it."""

from typing import get_args

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from auth.roles import SCOPES
from clinic.cases.errors import WrongStatus
from clinic.cases.models import LEVELS, STATUSES, Case
from clinic.cases.schemas import Level, Status
from clinic.cases.transitions import DONE_BY, ROUTED, TRANSITIONS, Party, allowed_actions, apply

ACTIONS = sorted(DONE_BY)
EVERYBODY = frozenset(get_args(Party))
HELD = {"assigned", "in_review", "needs_info", "pending_approval"}


class Life(RuleBasedStateMachine):
    """One case to which anybody does anything, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.case = Case(status="draft")
        self.done: list[str] = []

    @rule(action=st.sampled_from(ACTIONS))
    def act(self, action: str) -> None:
        before = self.case.status
        try:
            left, reached = apply(self.case, action)
        except WrongStatus:
            assert self.case.status == before, "a refusal changes nothing"
        else:
            assert (left, reached) == (before, self.case.status)
            self.done.append(action)

    @precondition(lambda self: bool(allowed_actions(self.case.status, EVERYBODY, frozenset(SCOPES))))
    @rule(data=st.data())
    def do_what_is_allowed(self, data: st.DataObject) -> None:
        allowed = allowed_actions(self.case.status, EVERYBODY, frozenset(SCOPES))
        action = data.draw(st.sampled_from(allowed))
        apply(self.case, action)
        self.done.append(action)

    @invariant()
    def is_a_status(self) -> None:
        assert self.case.status in STATUSES

    @invariant()
    def is_submitted_once_and_before_all_else(self) -> None:
        if self.case.status not in {"draft", "cancelled"}:
            assert self.done[0] == "submit"
        assert self.done.count("submit") <= 1

    @invariant()
    def waits_only_after_triage(self) -> None:
        if self.case.status in {"queued", *HELD}:
            assert self.done[:3] == ["submit", "triage", "enqueue"]

    @invariant()
    def waits_again_when_it_was_given_back(self) -> None:
        if self.done and self.done[-1] in {"decline", "expire", "release", "reopen"}:
            assert self.case.status == "queued"

    @invariant()
    def is_held_by_somebody_who_took_it(self) -> None:
        took = [action for action in self.done if action in {"claim", "assign"}]
        gave_back = [action for action in self.done if action in {"decline", "expire", "release", "reopen"}]
        if self.case.status in HELD:
            assert len(took) == len(gave_back) + 1

    @invariant()
    def is_answered_only_by_whom_it_was_started(self) -> None:
        answers = sum(action in {"answer", "approve"} for action in self.done)
        assert self.done.count("start") >= answers
        if self.case.status in {"answered", "closed"}:
            assert answers == self.done.count("reopen") + 1

    @invariant()
    def ends_when_cancelled(self) -> None:
        assert "cancel" not in self.done[:-1]
        assert ("cancel" in self.done) == (self.case.status == "cancelled")


TestLife = Life.TestCase


def reachable(start: str) -> set[str]:
    found, frontier = {start}, [start]
    while frontier:
        here = frontier.pop()
        for (source, _), target in TRANSITIONS.items():
            if source == here and target not in found:
                found.add(target)
                frontier.append(target)
    return found


def test_every_status_can_be_reached_and_none_is_a_dead_end() -> None:
    assert reachable("draft") == set(STATUSES)
    for status in STATUSES:
        assert reachable(status) & {"closed", "cancelled"}, status


def test_the_tables_speak_of_the_same_actions() -> None:
    assert {action for _, action in TRANSITIONS} == set(DONE_BY)
    assert set(ROUTED) <= set(DONE_BY)
    assert set(ROUTED.values()) <= set(SCOPES)
    assert get_args(Status) == STATUSES
    assert get_args(Level) == LEVELS


@pytest.mark.parametrize(
    ("status", "party", "scopes", "allowed"),
    [
        ("draft", "owner", {"cases:submit"}, ("submit", "cancel")),
        ("draft", "owner", {"cases:read"}, ()),
        ("draft", "coordinator", set(SCOPES), ()),
        ("queued", "physician", {"cases:answer"}, ("claim",)),
        ("in_review", "assignee", {"cases:answer"}, ("answer",)),
        ("in_review", "physician", {"cases:answer"}, ()),
        ("in_review", "tenant_admin", {"cases:submit"}, ("cancel",)),
        ("answered", "owner", {"cases:submit"}, ("close",)),
        ("answered", "tenant_admin", {"cases:submit"}, ()),
        ("cancelled", "owner", set(SCOPES), ()),
    ],
)
def test_allowed_actions_depend_on_status_party_and_scopes(
    status: str, party: Party, scopes: set[str], allowed: tuple[str, ...]
) -> None:
    assert allowed_actions(status, frozenset({party}), frozenset(scopes)) == allowed
