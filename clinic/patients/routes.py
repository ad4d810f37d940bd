"""Patients over HTTP."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Response

from auth.keys.service import KeyRing
from clinic.patients import service
from clinic.patients.errors import PatientExists, PatientNotFound
from clinic.patients.schemas import NewPatient, PatientView
from core.access import Principal, requires
from core.database import Database
from core.idempotency import Idempotency, KeyInFlight, KeyReused
from core.parts import part
from core.problems import Forbidden, Invalid, Unauthenticated, responses
from core.versions import set_etag

router = APIRouter(tags=["patients"])


@router.post(
    "/v1/patients",
    status_code=201,
    summary="Record a patient",
    operation_id="patients_create",
    responses=responses(Unauthenticated, Forbidden, PatientExists, KeyInFlight, Invalid, KeyReused),
)
async def create(
    new: NewPatient,
    response: Response,
    principal: Annotated[Principal, requires("cases:create")],
    database: Annotated[Database, part(Database)],
    keys: Annotated[KeyRing, part(KeyRing)],
    idempotency: Annotated[Idempotency, Depends()],
) -> PatientView:
    """A referrer records any number of patients; a patient records themselves, once."""
    key = await keys.data_key(principal.tenant)
    async with database.tenant(principal.tenant) as session:

        async def create_once() -> UUID:
            return (await service.create_patient(session, principal, key, new)).id

        patient_id = await idempotency.once(session, principal, create_once)
    patient = await service.read_patient(database, keys, principal, patient_id)
    set_etag(response, patient.version)
    return patient


@router.get(
    "/v1/patients/{patient_id}",
    summary="Read a patient's record",
    operation_id="patients_read",
    responses=responses(Unauthenticated, Forbidden, PatientNotFound),
)
async def read(
    patient_id: UUID,
    response: Response,
    principal: Annotated[Principal, requires("cases:read")],
    database: Annotated[Database, part(Database)],
    keys: Annotated[KeyRing, part(KeyRing)],
) -> PatientView:
    """Decrypts name, birth date and contact; each reading is audited."""
    patient = await service.read_patient(database, keys, principal, patient_id)
    set_etag(response, patient.version)
    return patient
