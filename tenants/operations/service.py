"""Long work that is ordered over HTTP and done in the background, in the name of who ordered it.

Every verb can be run again after a crash at any point, so an order need only be taken up again: by this process, or by
another one that serves the platform's API, when the lease of the one that had it has ended.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import and_, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from core.database import AdminDatabase, ControlSession
from core.ids import new_id
from core.problems import Problem, Unavailable
from tenants.audit.service import actor_of
from tenants.operations.errors import OperationNotFound, OperationUnderWay
from tenants.operations.models import Operation

log = logging.getLogger(__name__)

LEASE = timedelta(seconds=30)
MOST_ATTEMPTS = 5
AT_ONCE = 4
_LOOK_S = 1.0

Progress = Callable[[str], None]
# Does the work with the operator's login, told the order's arguments; returns what came of it.
Verb = Callable[[AdminDatabase, Mapping[str, Any], Progress], Awaitable[dict[str, Any]]]


async def order(session: ControlSession, kind: str, subject: str, arguments: Mapping[str, Any]) -> Operation:
    """Have a verb done, in the session's name. Raises `OperationUnderWay`."""
    made: Operation | None = await session.scalar(
        insert(Operation)
        .values(
            id=new_id(),
            kind=kind,
            subject=subject,
            arguments=dict(arguments),
            actor=actor_of(session),
            steps=[],
        )
        .on_conflict_do_nothing()
        .returning(Operation)
    )
    if made is None:
        raise OperationUnderWay(
            f"Wait until the unfinished operation on {subject!r} has ended.", subject=subject
        )
    return made


async def find_operation(session: ControlSession, operation_id: UUID) -> Operation:
    """Raises `OperationNotFound`."""
    found = await session.get(Operation, operation_id)
    if found is None:
        raise OperationNotFound("There is no operation of this id.")
    return found


async def page_of_operations(session: ControlSession, limit: int, after: UUID | None) -> Sequence[Operation]:
    """Operations, newest first, from the one after the row `after` on."""
    query = select(Operation).order_by(Operation.id.desc()).limit(limit)
    return (await session.scalars(query.where(Operation.id < after) if after else query)).all()


class OperationRunner:
    """Does what was ordered, a few at once."""

    def __init__(self, database: AdminDatabase, verbs: Mapping[str, Verb]) -> None:
        self._database = database
        self._verbs = verbs
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="operations")

    async def stop(self) -> None:
        """What is under way is left where it is; whoever comes next goes on with it."""
        if self._task:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(self._work())

    async def _work(self) -> None:
        while True:
            try:
                worked = await self.run_one()
            except Exception as error:  # the database is away; it is asked again
                log.warning("operations wait", extra={"error": type(error).__name__})
                worked = False
            if not worked:
                await asyncio.sleep(_LOOK_S)

    async def run_one(self) -> bool:
        """Do one order; False where none is due."""
        async with self._database.control() as session:
            due = or_(Operation.leased_until.is_(None), Operation.leased_until < func.now())
            ours = Operation.kind.in_(self._verbs)  # a newer release may know more of them
            unfinished = and_(ours, Operation.state.in_(("waiting", "running")), due)
            oldest = select(Operation.id).where(unfinished).order_by(Operation.id).limit(1)
            taken: Operation | None = await session.scalar(
                update(Operation)
                .where(Operation.id == oldest.with_for_update(skip_locked=True).scalar_subquery())
                .values(
                    state="running",
                    attempts=Operation.attempts + 1,
                    leased_until=func.now() + LEASE,
                    steps=[],
                )
                .returning(Operation)
            )
        if taken is None:
            return False
        steps: list[str] = []
        holding = asyncio.create_task(self._hold(taken, steps))
        try:
            verb = self._verbs[taken.kind]
            result = await verb(self._database.acting_as(taken.actor), taken.arguments, steps.append)
            outcome: dict[str, Any] = {"state": "done", "result": result}
        except Problem as problem:
            outcome = {"state": "failed", "problem": problem.document()}
            if isinstance(problem, Unavailable):
                outcome = _again(taken, outcome)
        except Exception as error:
            log.error("operation failed", extra={"operation": str(taken.id)}, exc_info=error)
            unknown = Problem("It failed for a reason that the log of the platform's process tells.")
            outcome = _again(taken, {"state": "failed", "problem": unknown.document()})
        finally:
            holding.cancel()
        if outcome["state"] != "waiting":
            outcome |= {"finished_at": func.now(), "leased_until": None}
        await self._update(taken, steps, **outcome)
        return True

    async def _hold(self, taken: Operation, steps: list[str]) -> None:
        """Renew the lease, and tell what is finished, while the work goes on."""
        told, waited = 0, 0.0
        while True:
            await asyncio.sleep(_LOOK_S)
            waited += _LOOK_S
            if len(steps) > told or waited > LEASE.total_seconds() / 3:
                told, waited = len(steps), 0.0
                with contextlib.suppress(
                    Exception
                ):  # the next second tries again; until the lease ends it is ours
                    await self._update(taken, steps, leased_until=func.now() + LEASE)

    async def _update(self, taken: Operation, steps: list[str], **values: Any) -> None:
        async with self._database.control() as session:
            ours = and_(Operation.id == taken.id, Operation.attempts == taken.attempts)
            await session.execute(update(Operation).where(ours).values(steps=list(steps), **values))


def _again(taken: Operation, failed: dict[str, Any]) -> dict[str, Any]:
    """What is tried again after a while, unless it was tried often enough."""
    if taken.attempts >= MOST_ATTEMPTS:
        return failed
    return {"state": "waiting", "leased_until": func.now() + timedelta(seconds=2**taken.attempts)}
