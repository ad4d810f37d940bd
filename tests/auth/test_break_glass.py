"""Local administrators: who gets in with a password and a one-time code, and who does not."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from urllib.parse import urlsplit

import httpx
import pytest
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.twofactor.totp import TOTP
from sqlalchemy import select, update

from auth.keys.service import KeyRing
from auth.local import administration
from auth.local.credentials import STEP_S, PasswordCheck, hash_password, new_password, step_of, totp_uri
from auth.local.errors import LocalAdministratorExists, LocalAdministratorNotFound, WeakPassword
from auth.local.models import LocalAdministrator
from auth.local.service import delay_after
from auth.people.models import User
from core.clock import utcnow
from core.ids import new_id
from core.problems import Unavailable
from gateway.keys import rotate_key
from tenants.audit.models import AuditEvent
from tenants.directory.cache import Directory
from tests.fixtures.browser import Browser, Form, SignIn, form_of
from tests.fixtures.world import CLIENT_ID, REDIRECT_URI, World

SLUG = "glass"
ADDRESSES = (f"192.0.2.{n}" for n in range(1, 77))  # each may try ten times a minute


@pytest.fixture(scope="module")
async def glass(world: World) -> World:
    """A tenant without any identity provider."""
    await world.create_tenant(SLUG)
    return world


@dataclass
class Administrator:
    """A local administrator, with what was printed for them."""

    world: World
    name: str
    password: str
    secret: bytes
    # Each code works once: tests take the three that are valid at a time. The oldest is last, for it may be so no more
    # a moment later.
    _steps: list[int] = field(default_factory=lambda: [0, 1, -1])

    def code(self, step: int | None = None) -> str:
        moment = int(time.time()) + STEP_S * (self._steps.pop(0) if step is None else step)
        return TOTP(self.secret, 6, SHA1(), STEP_S).generate(moment).decode()

    async def change(self, **values: object) -> None:
        async with self.world.database.tenant(self.world.tenant(SLUG).scope) as session:
            named = LocalAdministrator.name == self.name
            await session.execute(update(LocalAdministrator).where(named).values(**values))


async def make(world: World) -> Administrator:
    scope = world.tenant(SLUG).scope
    name, password = f"admin-{new_id()}", new_password()
    key = await world.parts[KeyRing].data_key(scope)
    async with world.database.tenant(scope) as session:
        secret = await administration.create_administrator(session, key, name, password)
    return Administrator(world, name, password, secret)


@pytest.fixture
async def administrator(glass: World) -> Administrator:
    return await make(glass)


@pytest.fixture
async def sign_in(glass: World) -> AsyncIterator[SignIn]:
    async with Browser(glass.app, next(ADDRESSES)) as browser:
        yield SignIn(browser, f"http://{SLUG}.localhost:8000")


def asked(sign_in: SignIn, **changed: str) -> dict[str, str]:
    return {
        "client_id": CLIENT_ID,
        "redirect_uri": REDIRECT_URI,
        "code_challenge": sign_in.challenge,
        "code_challenge_method": "S256",
        "state": sign_in.state,
    } | changed


async def open_form(sign_in: SignIn, **changed: str) -> Form:
    return form_of(
        await sign_in.browser.get(f"{sign_in.origin}/auth/local", params=asked(sign_in, **changed))
    )


async def send(sign_in: SignIn, form: Form, who: Administrator, **changed: str) -> httpx.Response:
    typed = {"name": who.name, "password": who.password, "code": changed.get("code") or who.code()} | changed
    return await sign_in.browser.post(f"{sign_in.origin}{form.action}", data=form.fields | typed)


async def attempt(sign_in: SignIn, who: Administrator, **changed: str) -> httpx.Response:
    return await send(sign_in, await open_form(sign_in), who, **changed)


async def events(world: World, action: str, name: str) -> list[AuditEvent]:
    async with world.database.tenant(world.tenant(SLUG).scope) as session:
        mine = select(LocalAdministrator.user_id).where(LocalAdministrator.name == name).scalar_subquery()
        query = select(AuditEvent).where(
            AuditEvent.action == action, (AuditEvent.actor == mine) | (AuditEvent.subject == mine)
        )
        return list(await session.scalars(query.order_by(AuditEvent.id)))


async def test_a_local_administrator_signs_in_and_ends_in_a_code_like_all_others(
    glass: World, sign_in: SignIn, administrator: Administrator
) -> None:
    page = await sign_in.browser.get(f"{sign_in.origin}/auth/local", params=asked(sign_in))
    assert "<script" not in page.text
    # Without this a browser would not follow the form's redirect to the app.
    assert "form-action 'self' https://app.example;" in page.headers["Content-Security-Policy"]
    answer = await send(sign_in, form_of(page), administrator)
    token = (await sign_in.redeem(sign_in.code_of(answer))).json()
    bearer = {"Authorization": f"Bearer {token['access_token']}"}
    me = (await sign_in.browser.get(f"{sign_in.origin}/v1/me", headers=bearer)).json()
    assert me["roles"] == ["tenant_admin"]
    assert me["user"]["display_name"] == f"Local administrator {administrator.name}"
    [event] = await events(glass, "sign-in.local", administrator.name)
    assert str(event.subject) == me["session_id"]


async def test_the_form_goes_on_with_what_an_app_asked_of_this_browser(
    glass: World, sign_in: SignIn, administrator: Administrator
) -> None:
    """The identity provider shows an error; the address is typed by hand into the same browser."""
    nothing = await sign_in.browser.get(f"{sign_in.origin}/auth/local")
    assert nothing.status_code == 422
    assert "Start the sign-in in your app" in nothing.text
    await open_form(sign_in)  # what an app asked for earlier
    form = form_of(await sign_in.browser.get(f"{sign_in.origin}/auth/local"))
    sign_in.code_of(await send(sign_in, form, administrator))


@pytest.mark.parametrize(
    ("changed", "check"),
    [({"password": "not the password"}, "local.password"), ({"code": "000000"}, "local.code")],
    ids=["password", "code"],
)
async def test_whatever_is_wrong_the_answer_is_the_same(
    glass: World, sign_in: SignIn, administrator: Administrator, changed: dict[str, str], check: str
) -> None:
    def said(response: httpx.Response) -> tuple[object, ...]:
        form = form_of(httpx.Response(200, html=response.text))
        text = response.text.replace(form.fields["relay"], "RELAY")
        headers = {name for name in response.headers if name != "x-request-id"}
        return response.status_code, text, headers

    unknown = await attempt(sign_in, administrator, name="nobody", code="000000")
    assert unknown.status_code == 403
    assert administrator.name not in unknown.text
    refused = await attempt(sign_in, administrator, **changed)
    assert said(refused) == said(unknown)
    [event] = await events(glass, "sign-in.local.refused", administrator.name)
    assert (event.detail["check"], event.detail["failures"]) == (check, 1)
    await administrator.change(locked_until=utcnow() + timedelta(minutes=5))
    assert said(await attempt(sign_in, administrator)) == said(unknown), "locked, with the right password"
    async with glass.database.tenant(glass.tenant(SLUG).scope) as session:
        user_id = select(LocalAdministrator.user_id).where(LocalAdministrator.name == administrator.name)
        await session.execute(update(User).where(User.id == user_id.scalar_subquery()).values(active=False))
    await administrator.change(locked_until=None)
    assert said(await attempt(sign_in, administrator)) == said(unknown), "deactivated"


async def test_the_refused_form_can_be_sent_again(sign_in: SignIn, administrator: Administrator) -> None:
    refused = await attempt(sign_in, administrator, code="000000")
    form = form_of(httpx.Response(200, html=refused.text))
    sign_in.code_of(await send(sign_in, form, administrator))


async def test_a_code_works_once_also_twice_at_once(
    glass: World, sign_in: SignIn, administrator: Administrator
) -> None:
    code = administrator.code(1)  # it and the one before are valid for half a minute yet
    forms = [await open_form(sign_in) for _ in range(3)]
    answers = await asyncio.gather(*(send(sign_in, form, administrator, code=code) for form in forms))
    assert sorted(answer.status_code for answer in answers) == [303, 403, 403]
    again = await attempt(sign_in, administrator, code=code)
    assert again.status_code == 403
    earlier = await attempt(sign_in, administrator, code=administrator.code(0))
    assert earlier.status_code == 403, "nor one from before it"
    checks = {
        event.detail["check"] for event in await events(glass, "sign-in.local.refused", administrator.name)
    }
    assert checks == {"local.code-used"}


async def test_many_guesses_at_once_are_not_more_than_one_after_the_other(
    glass: World, sign_in: SignIn, administrator: Administrator
) -> None:
    forms = [await open_form(sign_in) for _ in range(8)]
    answers = await asyncio.gather(
        *(send(sign_in, form, administrator, password="a guess of mine", code="000000") for form in forms)
    )
    assert {answer.status_code for answer in answers} == {403}
    refused = await events(glass, "sign-in.local.refused", administrator.name)
    assert len(refused) == 3, "the others met a lock"
    async with glass.database.tenant(glass.tenant(SLUG).scope) as session:
        row = await session.scalar(
            select(LocalAdministrator).where(LocalAdministrator.name == administrator.name)
        )
    assert row is not None
    assert row.failures == 3
    assert row.locked_until is not None
    assert row.locked_until > utcnow()
    assert (await attempt(sign_in, administrator)).status_code == 403, "the right password is locked out too"
    await administrator.change(locked_until=utcnow())
    assert (await attempt(sign_in, administrator)).status_code == 303, "and no longer than the lock"


def test_the_lock_grows_and_never_is_for_good() -> None:
    delays = [delay_after(failures).total_seconds() for failures in range(1, 12)]
    assert delays[:5] == [0, 0, 10, 20, 40]
    assert delays == sorted(delays)
    assert delay_after(10**6) == timedelta(minutes=15)


async def test_one_address_cannot_try_often(glass: World, administrator: Administrator) -> None:
    transport = httpx.ASGITransport(app=glass.app, client=("192.0.2.77", 1))
    async with httpx.AsyncClient(transport=transport, base_url=f"http://{SLUG}.localhost:8000") as client:
        answers = [await client.post("/auth/local", data={"name": administrator.name}) for _ in range(11)]
    assert [answer.status_code for answer in answers] == [403] * 10 + [429]


async def test_another_browser_cannot_send_the_form(
    glass: World, sign_in: SignIn, administrator: Administrator
) -> None:
    """Login CSRF: an attacker's form in the victim's browser; session fixation: the victim's password in a sign-in
    that the attacker began."""
    form = await open_form(sign_in)
    async with Browser(glass.app) as other:
        elsewhere = SignIn(other, sign_in.origin)
        for own_cookie in (False, True):
            if own_cookie:
                await open_form(elsewhere)
            answer = await send(elsewhere, form, administrator, code="000000")
            assert answer.status_code == 403
            assert answer.headers["Content-Type"].startswith("text/html")
            assert "<form" not in answer.text
    sign_in.code_of(await send(sign_in, form, administrator))
    again = await send(sign_in, form, administrator)
    assert again.status_code == 403
    assert "<form" not in again.text, "a form is good for one attempt"


async def test_a_form_is_not_a_way_around_an_identity_provider(
    glass: World, sign_in: SignIn, administrator: Administrator
) -> None:
    form = await open_form(sign_in)
    answer = await sign_in.browser.post(
        f"{sign_in.origin}/auth/saml/acs",
        data={"SAMLResponse": "PHg+", "RelayState": form.fields["relay"]},
    )
    assert answer.status_code == 403
    elsewhere = await sign_in.browser.post("http://acme.localhost:8000/auth/local", data=form.fields)
    assert elsewhere.status_code == 403


@pytest.mark.parametrize(
    "changed",
    [
        {"redirect_uri": "https://evil.example/callback"},
        {"client_id": "unknown"},
        {"code_challenge": ""},
        {"code_challenge_method": "plain"},
    ],
)
async def test_a_form_is_for_a_registered_app_with_pkce(
    sign_in: SignIn, administrator: Administrator, changed: dict[str, str]
) -> None:
    answer = await sign_in.browser.get(f"{sign_in.origin}/auth/local", params=asked(sign_in, **changed))
    assert answer.status_code == 400
    assert "Location" not in answer.headers


async def test_a_tenant_without_one_has_no_such_page(world: World) -> None:
    async with Browser(world.app) as browser:
        sign_in = SignIn(browser, "http://acme.localhost:8000")
        page = await browser.get(f"{sign_in.origin}/auth/local", params=asked(sign_in))
        assert page.status_code == 404


async def test_who_is_reset_or_removed_signs_in_no_more(
    glass: World, sign_in: SignIn, administrator: Administrator
) -> None:
    scope = glass.tenant(SLUG).scope
    key = await glass.parts[KeyRing].data_key(scope)
    async with glass.database.tenant(scope) as session:
        with pytest.raises(LocalAdministratorExists):
            await administration.create_administrator(session, key, administrator.name, new_password())
    await administrator.change(failures=9, locked_until=utcnow() + timedelta(minutes=15))
    renewed = new_password()
    async with glass.database.tenant(scope) as session:
        _, secret = await administration.reset_administrator(session, key, administrator.name, renewed)
    assert (await attempt(sign_in, administrator)).status_code == 403
    fresh = Administrator(glass, administrator.name, renewed, secret)
    sign_in.code_of(await attempt(sign_in, fresh))
    async with glass.database.tenant(scope) as session:
        await administration.remove_administrator(session, administrator.name)
    assert (await attempt(sign_in, fresh)).status_code in (403, 404)
    async with glass.database.tenant(scope) as session:
        with pytest.raises(LocalAdministratorNotFound):
            await administration.remove_administrator(session, administrator.name)


async def test_the_secret_is_sealed_at_rest(
    glass: World, sign_in: SignIn, administrator: Administrator
) -> None:
    async with glass.database.tenant(glass.tenant(SLUG).scope) as session:
        row = await session.scalar(
            select(LocalAdministrator).where(LocalAdministrator.name == administrator.name)
        )
    assert row is not None
    assert administrator.secret not in row.totp_sealed
    assert row.password_hash.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    other = await make(glass)
    await other.change(totp_sealed=row.totp_sealed)  # moved to another row it does not open
    assert (await attempt(sign_in, other)).status_code == 500
    async with glass.database.tenant(glass.tenant(SLUG).scope) as session:
        await administration.remove_administrator(session, other.name)


async def test_a_new_data_key_seals_the_secret_at_once(
    glass: World, sign_in: SignIn, administrator: Administrator
) -> None:
    made = await rotate_key(
        glass.settings,
        glass.admin,
        SLUG,
        "data",
        use_after=timedelta(0),
        retire_after=timedelta(0),
        revoke_now=True,
    )
    await glass.parts[Directory].refresh()
    async with glass.database.tenant(glass.tenant(SLUG).scope) as session:
        keys = select(LocalAdministrator.data_key_id)
        assert set(await session.scalars(keys.where(LocalAdministrator.name == administrator.name))) == {
            made.id
        }
    sign_in.code_of(await attempt(sign_in, administrator))


def test_codes_are_those_of_rfc_6238() -> None:
    secret = b"12345678901234567890"  # appendix B, cut to six digits
    for moment, code in ((59, "287082"), (1111111109, "081804"), (20000000000, "353130")):
        assert TOTP(secret, 6, SHA1(), STEP_S).generate(moment).decode() == code
    now = int(time.time()) // STEP_S
    codes = {
        step: TOTP(secret, 6, SHA1(), STEP_S).generate(step * STEP_S).decode()
        for step in range(now - 3, now + 4)
    }
    assert step_of(codes[now], secret) in (now, now + 1)
    assert step_of(codes[now + 3], secret) is None
    assert step_of(codes[now - 3], secret) is None
    assert step_of("", secret) is None
    assert step_of("٣٣٣٣٣٣", secret) is None
    assert urlsplit(totp_uri(secret, "administrator", "Acme")).path == "/Acme:administrator"


@pytest.mark.parametrize("password", ["", "short", "aaaaaaaaaaaaaaaaaaaa", "abababababababab"])
def test_weak_passwords_are_refused(password: str) -> None:
    with pytest.raises(WeakPassword):
        hash_password(password)


async def test_guessing_gets_one_thread_and_a_bounded_queue() -> None:
    cheap = Argon2id(salt=b"of this test 16b", length=32, iterations=1, lanes=1, memory_cost=8)
    passwords, hashed = PasswordCheck(), cheap.derive_phc_encoded(b"correct horse battery")
    try:
        checks = [passwords.check("correct horse battery", hashed if n else None) for n in range(20)]
        answers = await asyncio.gather(*checks, return_exceptions=True)
    finally:
        passwords.close()
    assert answers[:16] == [False] + [True] * 15
    assert all(isinstance(answer, Unavailable) for answer in answers[16:])
