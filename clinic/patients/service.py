"""Verbs on patients.

What identifies a patient is sealed with a key of their own, and that key is wrapped by the tenant's data key.
The data key is read from the control tables, so callers get it before their tenant transaction begins.
"""

from uuid import UUID

from sqlalchemy import ColumnElement, exists, false, or_, select, true

from auth.keys.service import DataKey, KeyRing
from auth.people.models import User
from auth.roles import SERVICE
from clinic.cases.models import Case
from clinic.patients.errors import PatientExists, PatientNotFound
from clinic.patients.models import Patient
from clinic.patients.schemas import Identity, NewPatient, PatientView
from clinic.physicians.models import Physician
from core import crypto
from core.access import Principal
from core.database import Database, TenantScope, TenantSession
from core.ids import new_id
from tenants.audit.service import audit


def seal_context(tenant: TenantScope, patient_id: UUID, what: str) -> str:
    """What a sealed value belongs to: it opens nowhere else."""
    return f"{tenant.key}|patient:{patient_id}|{what}"


def seal_identity(
    tenant: TenantScope, patient_id: UUID, key: DataKey, identity: Identity
) -> tuple[bytes, bytes]:
    """Seal with a new key of the patient's. Returns that key, wrapped, and the sealed identity."""
    own_key = crypto.new_key()
    return (
        crypto.seal(key.secret, own_key, seal_context(tenant, patient_id, "key")),
        crypto.seal(
            own_key, identity.model_dump_json().encode(), seal_context(tenant, patient_id, "identity")
        ),
    )


def open_identity(tenant: TenantScope, patient: Patient, data_key: bytes) -> Identity:
    """Who the patient is. `data_key` is the one named by `patient.key_id`. Raises `core.crypto.CannotOpen`."""
    own_key = crypto.unseal(data_key, patient.wrapped_key, seal_context(tenant, patient.id, "key"))
    identity = crypto.unseal(own_key, patient.sealed, seal_context(tenant, patient.id, "identity"))
    return Identity.model_validate_json(identity)


def _may_see(principal: Principal) -> ColumnElement[bool]:
    """The row rule: their own record, those they created, those whose cases they answer, or all."""
    if principal.has_any("coordinator", "tenant_admin"):
        return true()
    rules: list[ColumnElement[bool]] = [false()]
    if principal.has_any("patient"):
        rules.append(Patient.user_id == principal.subject)
    if principal.has_any("referrer", SERVICE):
        rules.append(Patient.created_by == principal.subject)
    if principal.has_any("physician"):
        me = select(Physician.id).where(Physician.user_id == principal.subject).scalar_subquery()
        rules.append(
            exists().where(
                Case.patient_id == Patient.id, or_(Case.physician_id == me, Case.answered_by == me)
            )
        )
    return or_(*rules)


async def find_patient(session: TenantSession, principal: Principal, patient_id: UUID) -> Patient:
    """Raises `PatientNotFound`, also for a patient who is none of the principal's concern."""
    patient = await session.scalar(select(Patient).where(Patient.id == patient_id, _may_see(principal)))
    if patient is None:
        raise PatientNotFound("No such patient, or not one you are concerned with.")
    return patient


async def create_patient(
    session: TenantSession, principal: Principal, key: DataKey, new: NewPatient
) -> Patient:
    """Record a patient. Referrers and machine clients record others; a patient records themselves, once. Raises
    `PatientExists`."""
    user_id = None if principal.has_any("referrer", SERVICE) else principal.subject
    if user_id is not None:
        # Two first requests of one person wait for each other here, so that the second finds the record.
        await session.execute(select(User.id).where(User.id == user_id).with_for_update(key_share=True))
        present = await session.scalar(select(Patient.id).where(Patient.user_id == user_id))
        if present is not None:
            raise PatientExists("Use it: send its `patient_id` with the case.", patient_id=str(present))
    patient_id = new_id()
    identity = Identity(name=new.name, birth_date=new.birth_date, contact=new.contact)
    wrapped_key, sealed = seal_identity(principal.tenant, patient_id, key, identity)
    patient = Patient(
        id=patient_id,
        user_id=user_id,
        created_by=principal.subject,
        sex=new.sex,
        birth_year=new.birth_date.year,
        key_id=key.id,
        wrapped_key=wrapped_key,
        sealed=sealed,
    )
    session.add(patient)
    await session.flush()
    audit(session, principal, "patient.create", patient_id)
    return patient


async def read_patient(
    database: Database, keys: KeyRing, principal: Principal, patient_id: UUID
) -> PatientView:
    """The patient with their identity; that it was read is audited. Raises `PatientNotFound`.

    The row is read in a transaction of its own, because its key is found through the control tables.
    """
    async with database.tenant(principal.tenant) as session:
        patient = await find_patient(session, principal, patient_id)
        audit(session, principal, "patient.read", patient_id)
    data_key = await keys.data_key_by_id(principal.tenant, patient.key_id)
    identity = open_identity(principal.tenant, patient, data_key)
    return PatientView(
        id=patient.id,
        sex=patient.sex,
        user_id=patient.user_id,
        created_at=patient.created_at,
        version=patient.version,
        name=identity.name,
        birth_date=identity.birth_date,
        contact=identity.contact,
    )
