"""The way of a case up to the queue, over HTTP, as the people of a tenant walk it."""

import base64
import io
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx
from PIL import Image

from core.clock import utcnow
from tests.fixtures.world import Person, World

CONSENT = {"consent": {"wording": "I agree that a physician looks at my photographs."}}
NEW_CASE = {
    "patient": {
        "name": "Ada Example",
        "birth_date": "1984-05-17",
        "sex": "female",
        "contact": {"email": "ada@patients.example"},
    },
    "complaint": "A mole that has changed its colour.",
    "body_site": "left shoulder",
    "symptoms": ["itching"],
    "duration_days": 60,
    "fitzpatrick": 2,
    "region": "DE-BE",
    "locale": "de",
}
ANSWER = {"outcome": "treatment", "findings": "Symmetric, 4 mm.", "text": "Use the ointment for two weeks."}


def photograph(shade: int = 120) -> dict[str, Any]:
    """The body that uploads a JPEG of one colour."""
    file = io.BytesIO()
    Image.new("RGB", (640, 480), (shade, 90, 80)).save(file, "JPEG")
    data = base64.b64encode(file.getvalue()).decode()
    return {"data": data, "media_type": "image/jpeg", "view": "close_up"}


def ok(response: httpx.Response, status: int = 200) -> Any:
    assert response.status_code == status, response.text
    return response.json()


async def act(who: Person, case: dict[str, Any], action: str, body: Any = None) -> httpx.Response:
    """Do `action` at the version of the case that `case` shows."""
    return await who.http.post(
        f"/v1/cases/{case['id']}/{action}", json=body, headers={"If-Match": f'"{case["version"]}"'}
    )


@dataclass
class Clinic:
    """A tenant's staff, and shortcuts to what they do first."""

    world: World
    tenant: str
    admin: Person
    coordinator: Person
    referrer: Person

    @classmethod
    async def open(cls, world: World, tenant: str = "acme") -> "Clinic":
        people = [
            await world.person(role, tenant=tenant) for role in ("tenant_admin", "coordinator", "referrer")
        ]
        return cls(world, tenant, *people)

    async def draft(self, **changes: Any) -> dict[str, Any]:
        """A draft with a photograph."""
        case: dict[str, Any] = ok(await self.referrer.http.post("/v1/cases", json=NEW_CASE | changes), 201)
        ok(await self.referrer.http.post(f"/v1/cases/{case['id']}/images", json=photograph()), 201)
        return case

    async def submitted(self, **changes: Any) -> dict[str, Any]:
        case: dict[str, Any] = ok(await act(self.referrer, await self.draft(**changes), "submit", CONSENT))
        return case

    async def queued(
        self, level: str = "routine", specialty: str = "dermatology", pool: str = "shared", **changes: Any
    ) -> dict[str, Any]:
        case = await self.submitted(**changes)
        case = ok(await act(self.coordinator, case, "triage", {"level": level, "reasons": ["Looks so."]}))
        placed: dict[str, Any] = ok(
            await act(self.coordinator, case, "enqueue", {"specialty": specialty, "pool": pool})
        )
        return placed

    async def physician(
        self,
        *,
        specialties: tuple[str, ...] = ("dermatology",),
        region: str = "DE",
        valid_days: int = 100,
        **others: Any,
    ) -> tuple[Person, dict[str, Any]]:
        """A registered physician with one licence, and the registration."""
        person = await self.world.person("physician", tenant=self.tenant, name="Dr Grace Example")
        today = utcnow().date()
        licence = {
            "region": region,
            "number": "L-1",
            "valid_from": str(today - timedelta(days=1000)),
            "valid_to": str(today + timedelta(days=valid_days)),
        }
        body = {
            "user_id": str(person.user_id),
            "display_name": "Dr Grace Example",
            "specialties": specialties,
            "licences": [licence],
        }
        registered = ok(await self.admin.http.post("/v1/physicians", json=body | others), 201)
        return person, registered
