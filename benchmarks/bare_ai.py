"""The baseline of the AI proxy benchmark: FastAPI that forwards with httpx and keeps the answer, with nothing around."""

from typing import Any
from uuid import UUID

import httpx
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

import clinic.assignments.models
import clinic.cases.models
import clinic.patients.models
import clinic.physicians.models  # noqa: F401  # tables that a row refers to
from clinic.ai.models import AiResult
from clinic.ai.schemas import Question
from core.ai_contract import AiRequest, TriageResponse
from core.ids import new_id


def create_app(database_url: str, ai_url: str, *, pool_size: int, role: str, search_path: str) -> FastAPI:
    """An application with `POST /v1/ai/triage` on the tables of one schema."""
    engine = create_async_engine(
        database_url,
        pool_size=pool_size,
        max_overflow=0,
        connect_args={"server_settings": {"role": role, "search_path": search_path}},
    )
    sessions = async_sessionmaker(engine, expire_on_commit=False)
    http = httpx.AsyncClient(base_url=ai_url, trust_env=False)
    app = FastAPI()

    @app.post("/v1/ai/triage", response_model=TriageResponse)
    async def triage(question: Question) -> Any:
        request = AiRequest(
            request_id=str(new_id()),
            case_ref="bare",
            locale=question.locale,
            context=question.context,
            answers=question.answers,
        )
        forwarded = await http.post("/v1/triage", json=request.model_dump(mode="json", exclude_none=True))
        forwarded.raise_for_status()
        answer: dict[str, Any] = forwarded.json()
        async with sessions.begin() as session:
            session.add(
                AiResult(
                    case_id=None,
                    endpoint="triage",
                    requested_by=UUID(int=0),
                    input_hash=answer["input_hash"],
                    image_hashes=[],
                    model_name=answer["model"]["name"],
                    model_version=answer["model"]["version"],
                    latency_ms=round(answer["latency_ms"]),
                    response=answer,
                )
            )
        return answer

    return app
