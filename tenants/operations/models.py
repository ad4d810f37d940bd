"""Long work that was ordered over HTTP."""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, Index
from sqlalchemy.orm import Mapped, mapped_column

from core.models import ControlBase, Row

STATES = ("waiting", "running", "done", "failed")


class Operation(Row, ControlBase):
    """One order: `kind` is a verb, `subject` the slug it is about, of which there is one unfinished order at most.

    Whoever runs it holds it until `leased_until` and renews that; it is somebody else's turn afterwards, as the next of
    `attempts`. `steps` have been finished; `result` or `problem` (RFC 9457) is what came of it. The gateway's login
    cannot read this table.
    """

    __tablename__ = "operations"
    __table_args__ = (
        CheckConstraint(f"state IN {STATES}", name="state"),
        Index(
            "uq_operations_subject",
            "subject",
            unique=True,
            postgresql_where="state IN ('waiting', 'running')",
        ),
    )

    kind: Mapped[str]
    subject: Mapped[str]
    arguments: Mapped[dict[str, Any]]
    actor: Mapped[str]
    state: Mapped[str] = mapped_column(default="waiting")
    attempts: Mapped[int] = mapped_column(default=0)
    leased_until: Mapped[datetime | None]
    steps: Mapped[list[str]] = mapped_column(default=list)
    result: Mapped[dict[str, Any] | None]
    problem: Mapped[dict[str, Any] | None]
    finished_at: Mapped[datetime | None]
