"""The baseline of the request benchmark: FastAPI and the SQLAlchemy ORM as their manuals show them, with nothing
around: no tenancy, no authentication, no limits, no log."""

from collections.abc import AsyncIterator
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, FastAPI, HTTPException
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

import clinic.assignments.models
import clinic.physicians.models  # noqa: F401  # tables that a case refers to
from clinic.cases.models import Case
from clinic.cases.schemas import CaseView
from clinic.patients.models import Patient


def create_app(database_url: str, *, pool_size: int, role: str, search_path: str) -> FastAPI:
    """An application with `GET /v1/cases/{case_id}` on the tables of one schema, named once for all connections."""
    engine = create_async_engine(
        database_url,
        pool_size=pool_size,
        max_overflow=0,
        connect_args={"server_settings": {"role": role, "search_path": search_path}},
    )
    sessions = async_sessionmaker(engine, expire_on_commit=False)
    app = FastAPI()

    async def session() -> AsyncIterator[AsyncSession]:
        async with sessions() as opened:
            yield opened

    @app.get("/v1/cases/{case_id}", response_model=CaseView)
    async def read(case_id: UUID, session: Annotated[AsyncSession, Depends(session)]) -> Any:
        found = await session.execute(
            select(Case, Patient.sex, Patient.birth_year)
            .join(Patient, Patient.id == Case.patient_id)
            .where(Case.id == case_id)
        )
        row = found.one_or_none()
        if row is None:
            raise HTTPException(404)
        case, sex, birth_year = row
        return {
            **vars(case), "patient_sex": sex, "patient_birth_year": birth_year, "allowed_actions": (),
        }  # fmt: skip

    return app
