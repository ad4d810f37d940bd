"""What can go wrong with patients."""

from core.problems import Conflict, NotFound


class PatientNotFound(NotFound):
    slug, title = "patient-not-found", "No such patient"


class PatientExists(Conflict):
    """Extra member: `patient_id`, the record there is."""

    slug, title = "patient-exists", "You have a patient record already"
