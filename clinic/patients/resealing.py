"""What is sealed for patients, sealed anew: for a tenant that was restored under a new key, because it names the tenant that
it belongs to; and when the tenant's data key is another."""

from collections.abc import Mapping
from uuid import UUID

from sqlalchemy import select, update

from clinic.patients.models import Patient
from clinic.patients.service import seal_context
from core.crypto import CannotOpen, seal, unseal
from core.database import Database, TenantScope

PATIENTS_A_TIME = 500


async def reseal_patients(
    database: Database, tenant: TenantScope, former: TenantScope, data_keys: Mapping[UUID, bytes]
) -> None:
    """Seal every patient's key and identity anew for `tenant`, where they are still sealed for `former`. May run again
    after a crash. Raises `CannotOpen`, and KeyError for a patient whose data key is not among `data_keys`."""
    after = UUID(int=0)
    while True:
        async with database.tenant(tenant) as session:
            patients = (
                await session.scalars(
                    select(Patient).where(Patient.id > after).order_by(Patient.id).limit(PATIENTS_A_TIME)
                )
            ).all()
            for patient in patients:
                sealed = _moved(patient, tenant, former, data_keys[patient.key_id])
                await session.execute(
                    update(Patient)
                    .where(Patient.id == patient.id)
                    .values(**sealed, updated_at=Patient.updated_at)
                    .execution_options(synchronize_session=False)
                )
        if not patients:
            return
        after = patients[-1].id


async def rewrap_patients(
    database: Database, tenant: TenantScope, data_keys: Mapping[UUID, bytes], new: UUID
) -> None:
    """Wrap every patient's key by the data key `new`, one of `data_keys`. May run again after a crash. A patient recorded
    meanwhile by a process that does not know the new key yet keeps the one before it, which goes on opening.

    Raises `CannotOpen`, and KeyError for a patient whose data key is not among `data_keys`.
    """
    after = UUID(int=0)
    while True:
        async with database.tenant(tenant) as session:
            patients = (
                await session.scalars(
                    select(Patient)
                    .where(Patient.id > after, Patient.key_id != new)
                    .order_by(Patient.id)
                    .limit(PATIENTS_A_TIME)
                )
            ).all()
            for patient in patients:
                context = seal_context(tenant, patient.id, "key")
                own_key = unseal(data_keys[patient.key_id], patient.wrapped_key, context)
                await session.execute(
                    update(Patient)
                    # Unless it was erased, or wrapped by somebody else, in this moment.
                    .where(Patient.id == patient.id, Patient.wrapped_key == patient.wrapped_key)
                    .values(
                        key_id=new,
                        wrapped_key=seal(data_keys[new], own_key, context),
                        updated_at=Patient.updated_at,
                    )
                    .execution_options(synchronize_session=False)
                )
        if not patients:
            return
        after = patients[-1].id


def _moved(patient: Patient, tenant: TenantScope, former: TenantScope, data_key: bytes) -> dict[str, bytes]:
    def context(of: TenantScope, what: str) -> str:
        return seal_context(of, patient.id, what)

    try:
        own_key = unseal(data_key, patient.wrapped_key, context(former, "key"))
    except CannotOpen:
        unseal(data_key, patient.wrapped_key, context(tenant, "key"))  # moved before, or nobody's
        return {"wrapped_key": patient.wrapped_key, "sealed": patient.sealed}
    identity = unseal(own_key, patient.sealed, context(former, "identity"))
    return {
        "wrapped_key": seal(data_key, own_key, context(tenant, "key")),
        "sealed": seal(own_key, identity, context(tenant, "identity")),
    }
