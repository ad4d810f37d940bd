"""The main job of the product, as the people of a tenant do it: from sign-in to a signed report."""

import base64
import re
import zlib
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from cli.demo_client import Journal, Person, client
from core.clock import utcnow
from core.ids import new_id

CONSENT = "I agree that a physician looks at my photographs and answers through this service."
CASE = {
    "patient": {"name": "Ada Example", "birth_date": "1984-05-17", "sex": "female"},
    "complaint": "An itching, dry, red patch at the tip of the index finger since I use a new glue at work.",
    "history": "Hay fever. No medicines.",
    "body_site": "index finger",
    "symptoms": ["rash", "itch", "dry_skin", "new_contact"],
    "duration_days": 90,
    "fitzpatrick": 2,
    "region": "DE-BE",
    "locale": "en",
}
MARK = {
    "shape": "ellipse",
    "geometry": {"x": 0.46, "y": 0.21, "radius_x": 0.075, "radius_y": 0.065},
    "label": "erythema",
    "text": "Dry, faintly scaling fingertip.",
}
ANSWER = {
    "outcome": "treatment",
    "findings": "Dry erythema of one fingertip without blisters.",
    "text": "Most likely a contact dermatitis. Avoid the glue or wear gloves, use a plain ointment twice a day, and "
    "come in for patch tests if it has not settled in two weeks.",
}


@dataclass(frozen=True)
class Done:
    """What a tenant's story left: the case, the report's PDF, and the coordinator's authorization header."""

    tenant: str
    origin: str
    case: str
    report: bytes
    authorization: str


@dataclass
class _Case:
    """A case and the version of it that was last seen."""

    id: str
    etag: str

    async def act(self, who: Person, step: str, action: str, body: Any = None) -> None:
        """Move the case along, as somebody who has just looked at it."""
        answer = await who.call(
            step,
            "POST",
            f"/v1/cases/{{case}}/{action}",
            case=self.id,
            json=body,
            headers={"If-Match": self.etag},
        )
        self.etag = answer.headers["ETag"]

    async def look(self, who: Person, step: str) -> None:
        self.etag = (await who.call(step, "GET", "/v1/cases/{case}", case=self.id)).headers["ETag"]


async def main_job(journal: Journal, tenant: str, origin: str, photograph: bytes) -> Done:
    """Do the job at one tenant. Raises `StepFailed`."""
    async with AsyncExitStack() as stack:

        async def person(who: str, login: str) -> Person:
            http = await stack.enter_async_context(client())
            someone = Person(journal, tenant, origin, who, http)
            await someone.sign_in(login)
            return someone

        referrer = await person("referrer", "gp")
        case, image = await _hand_in(referrer, photograph)
        coordinator = await person("coordinator", "coordinator")
        await _queue(coordinator, case)
        physician, admin = await person("physician", "dermatologist"), await person("admin", "admin")
        await _register(physician, admin)
        await _answer(physician, case, image)
        report = await _report(referrer, case)
        return Done(tenant, origin, case.id, report, coordinator.http.headers["Authorization"])


async def compare_tenants(journal: Journal, ours: Done, theirs: Done) -> None:
    """Show that a token opens one tenant only, and that another tenant's case does not exist."""
    async with client(headers={"Authorization": ours.authorization}) as http:
        stranger = Person(journal, ours.tenant, ours.origin, "coordinator", http)
        await stranger.call(
            f"use the token at {theirs.tenant}", "GET", "/v1/me", origin=theirs.origin, expect=(401,)
        )
        await stranger.call(
            f"read {theirs.tenant}'s case", "GET", "/v1/cases/{case}", case=theirs.case, expect=(404,)
        )


async def _hand_in(referrer: Person, photograph: bytes) -> tuple[_Case, str]:
    key = {"Idempotency-Key": str(new_id())}
    opened = await referrer.call("open a case", "POST", "/v1/cases", json=CASE, headers=key, expect=(201,))
    case = _Case(opened.json()["id"], opened.headers["ETag"])
    upload = {
        "data": base64.b64encode(photograph).decode(),
        "media_type": "image/png" if photograph.startswith(b"\x89PNG") else "image/jpeg",
        "view": "close_up",
        "body_site": CASE["body_site"],
    }
    added = await referrer.call(
        "add the photograph", "POST", "/v1/cases/{case}/images", case=case.id, json=upload, expect=(201,)
    )
    await referrer.call(
        "ask AI: can it be judged?", "POST", "/v1/cases/{case}/ai/image-validity", case=case.id, json={}
    )
    await referrer.call(
        "ask AI: what to ask next?", "POST", "/v1/cases/{case}/ai/next-question", case=case.id, json={}
    )
    await case.look(referrer, "look at the case")
    await case.act(referrer, "submit it with consent", "submit", {"consent": {"wording": CONSENT}})
    return case, added.json()["id"]


async def _queue(coordinator: Person, case: _Case) -> None:
    """The AI Service is asked, and the case triaged, in the background, while the coordinator signs in."""
    await coordinator.call(
        "wait until AI has triaged it",
        "GET",
        "/v1/cases/{case}/ai-results",
        case=case.id,
        until=lambda answer: (
            {"red-flags", "triage", "diagnosis"} <= {each["endpoint"] for each in answer.json()["items"]}
        ),
    )
    await coordinator.call("see what happened to it", "GET", "/v1/cases/{case}/events", case=case.id)
    await case.look(coordinator, "look at the case")
    await case.act(coordinator, "queue for dermatology", "enqueue", {"specialty": "dermatology"})


async def _register(physician: Person, admin: Person) -> None:
    """Register the physician, unless an earlier demo has."""
    found = await physician.call("am I registered?", "GET", "/v1/physicians/me", expect=(200, 404))
    if found.status_code == 200:
        return
    user = (await physician.call("who am I?", "GET", "/v1/me")).json()["user"]
    today = utcnow().date()
    licence = {
        "region": "DE",
        "number": "DEMO-12345",
        "valid_from": str(today - timedelta(days=365)),
        "valid_to": str(today + timedelta(days=3650)),
    }
    profile = {
        "user_id": user["id"],
        "display_name": "Dr Dana Derm",
        "specialties": ["dermatology"],
        "licences": [licence],
    }
    await admin.call("register the physician", "POST", "/v1/physicians", json=profile, expect=(201,))


async def _answer(physician: Person, case: _Case, image: str) -> None:
    await physician.call("see the queue", "GET", "/v1/queue")
    await case.act(physician, "claim the case", "claim")
    await case.act(physician, "start the review", "start")
    await physician.call(
        "mark the photograph",
        "POST",
        "/v1/cases/{case}/images/{image}/annotations",
        case=case.id,
        image=image,
        json=MARK,
        expect=(201,),
    )
    await case.look(physician, "look at the case again")
    await case.act(physician, "answer", "answer", ANSWER)


async def _report(referrer: Person, case: _Case) -> bytes:
    made = await referrer.call(
        "have the report made", "POST", "/v1/cases/{case}/reports", case=case.id, json={}, expect=(201,)
    )
    pdf = await referrer.call("download it", "GET", "/v1/reports/{report}/pdf", report=made.json()["id"])
    token = _printed_token(pdf.content)
    if token:
        await referrer.call("verify what is printed on it", "GET", "/verify/{token}", token=token)
    return pdf.content


def _printed_token(pdf: bytes) -> str | None:
    """The token of the verification link in a report, which is in its plain text or in a deflated stream."""
    streams = re.findall(rb"stream\r?\n(.*?)\r?\nendstream", pdf, re.DOTALL)
    for text in (pdf, *map(_inflated, streams)):
        if found := re.search(rb"/verify/([A-Za-z0-9_-]{20,})", text):
            return found[1].decode()
    return None


def _inflated(stream: bytes) -> bytes:
    try:
        return zlib.decompress(stream)
    except zlib.error:
        return b""
