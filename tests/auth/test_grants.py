"""Refresh tokens and codes: each works once, and whoever uses one twice ends the sign-in."""

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import select, update

from auth.oauth.models import RefreshToken
from auth.people.models import SignInSession, User
from auth.people.service import end_sessions_of
from core.clock import utcnow
from gateway.app import create_app
from gateway.assembly import assemble
from tenants.audit.models import AuditEvent
from tests.auth.apps import App, Tokens, refused
from tests.fixtures.world import World


@pytest.fixture(scope="module")
async def app(world: World) -> App:
    return await App.open(world)


async def ended_for(app: App, tokens: Tokens) -> list[str]:
    """Why the audit log says that sessions of this person have ended."""
    async with app.world.database.tenant(app.world.tenant(app.slug).scope) as session:
        sessions = select(SignInSession.id).where(SignInSession.user_id == tokens["user_id"])
        query = select(AuditEvent.detail).where(
            AuditEvent.action == "session.ended", AuditEvent.subject.in_(sessions)
        )
        return [detail["reason"] for detail in await session.scalars(query)]


async def test_a_refresh_gives_new_tokens_for_the_same_session(app: App) -> None:
    first = await app.signed_in("coordinator", scope="cases:read users:read")
    answer = await app.refresh(first)
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    second = answer.json()
    assert second["refresh_token"] != first["refresh_token"]
    assert second["scope"] == first["scope"] == "cases:read users:read"
    before, after = [(await app.me(tokens)).json() for tokens in (first, second)]
    assert before == after


async def test_only_apps_registered_for_it_get_refresh_tokens(world: World) -> None:
    app = await App.open(world, refresh=False)
    code, _ = await app.code()
    assert "refresh_token" not in (await app.redeem(code)).json()


async def test_a_refresh_token_used_again_ends_the_session(app: App) -> None:
    first = await app.signed_in()
    second = (await app.refresh(first)).json()
    refused(await app.refresh(first))
    refused(await app.refresh(second))
    assert (await app.me(second)).status_code == 401
    assert await ended_for(app, first) == ["refresh-token-reused"]


async def test_the_oldest_of_many_refresh_tokens_is_still_known(app: App) -> None:
    tokens = first = await app.signed_in()
    for _ in range(5):
        tokens = (await app.refresh(tokens)).json()
    refused(await app.refresh(first))
    refused(await app.refresh(tokens))


async def test_refreshes_in_parallel_end_the_session(app: App) -> None:
    first = await app.signed_in()
    answers = await asyncio.gather(*(app.refresh(first) for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [200, 400, 400, 400, 400]
    newest = next(answer.json() for answer in answers if answer.status_code == 200)
    refused(await app.refresh(newest))
    assert (await app.me(newest)).status_code == 401
    assert await ended_for(app, first) == ["refresh-token-reused"]


async def test_another_clients_refresh_token_is_refused_and_not_spoilt(app: App, world: World) -> None:
    tokens, other = await app.signed_in(), await App.open(world)
    refused(await other.refresh(tokens))
    refused(await app.refresh(tokens, client_id=""))
    assert (await app.refresh(tokens)).status_code == 200


async def test_a_refresh_token_of_one_tenant_is_nothing_at_another(app: App, world: World) -> None:
    tokens, elsewhere = await app.signed_in(), await App.open(world, "globex")
    refused(await elsewhere.refresh(tokens, client_id=app.client_id))
    assert (await app.refresh(tokens)).status_code == 200


@pytest.mark.parametrize("token", ["", ".", "ddr_", "ddr_a.b", "x" * 200])
async def test_made_up_refresh_tokens_are_refused(app: App, token: str) -> None:
    refused(await app.refresh({"refresh_token": token}))


async def test_a_guess_at_the_newest_of_a_known_line_counts_as_reuse(app: App) -> None:
    tokens = await app.signed_in()
    line = tokens["refresh_token"].partition(".")[0]
    refused(await app.refresh({"refresh_token": f"{line}.guess"}))
    refused(await app.refresh(tokens))


@pytest.mark.parametrize("table", [RefreshToken, SignInSession])
async def test_a_session_ends_when_unused_and_at_its_longest(
    app: App, table: type[RefreshToken | SignInSession]
) -> None:
    tokens = await app.signed_in()
    mine = SignInSession.user_id == tokens["user_id"]
    if table is RefreshToken:
        mine = RefreshToken.session_id.in_(select(SignInSession.id).where(mine))
    async with app.world.database.tenant(app.world.tenant().scope) as session:
        await session.execute(update(table).where(mine).values(expires_at=utcnow() - timedelta(seconds=1)))
    refused(await app.refresh(tokens))


async def test_a_token_ends_with_its_session(app: App) -> None:
    tokens = await app.signed_in()
    async with app.world.database.tenant(app.world.tenant().scope) as session:
        mine = SignInSession.user_id == tokens["user_id"]
        soon = utcnow() + timedelta(seconds=30)
        await session.execute(update(SignInSession).where(mine).values(expires_at=soon))
    assert (await app.refresh(tokens)).json()["expires_in"] <= 30


async def test_roles_that_were_taken_are_gone_at_the_next_refresh(app: App) -> None:
    tokens = await app.signed_in("coordinator", "auditor")
    await app.signed_in("auditor", "physician", login=await login_of(app, tokens))
    demoted = (await app.refresh(tokens)).json()
    assert (await app.me(demoted)).json()["roles"] == ["auditor"], "and none that this sign-in did not have"
    assert "cases:triage" not in demoted["scope"]
    await app.signed_in("physician", login=await login_of(app, tokens))
    refused(await app.refresh(demoted))


async def login_of(app: App, tokens: Tokens) -> str:
    async with app.world.database.tenant(app.world.tenant().scope) as session:
        return str((await session.get_one(User, tokens["user_id"])).external_id)


async def test_a_deactivated_person_refreshes_no_more(app: App) -> None:
    tokens = await app.signed_in()
    async with app.world.database.tenant(app.world.tenant().scope) as session:
        (await session.get_one(User, tokens["user_id"])).active = False
    refused(await app.refresh(tokens))


async def test_an_ended_session_refreshes_no_more(app: App) -> None:
    tokens = await app.signed_in()
    await end_sessions_of(app.world.database, app.world.tenant().scope, tokens["user_id"], None, "test")
    refused(await app.refresh(tokens))
    assert (await app.me(tokens)).status_code == 401


async def test_a_refresh_may_ask_for_less_and_not_for_more(app: App) -> None:
    tokens = await app.signed_in("coordinator", scope="cases:read users:read")
    refused(await app.refresh(tokens, scope="cases:read cases:triage"), "invalid_scope")
    less = (await app.refresh(tokens, scope="cases:read")).json()
    assert less["scope"] == "cases:read"
    assert (await app.refresh(less)).json()["scope"] == "cases:read users:read", "RFC 6749, 6"


async def test_another_process_knows_of_the_reuse(app: App) -> None:
    tokens = await app.signed_in()
    other = create_app(assemble(app.world.settings))
    async with other.router.lifespan_context(other):
        elsewhere = await app.world.http(app=other)
        bearer = {"Authorization": f"Bearer {tokens['access_token']}"}
        assert (await elsewhere.get("/v1/me", headers=bearer)).status_code == 200
        await app.refresh(tokens)
        refused(await app.refresh(tokens))
        async with asyncio.timeout(10):
            while (await elsewhere.get("/v1/me", headers=bearer)).status_code == 200:
                await asyncio.sleep(0.05)


async def test_a_code_used_again_ends_what_it_began(app: App) -> None:
    code, user_id = await app.code()
    tokens = (await app.redeem(code)).json() | {"user_id": user_id}
    assert (await app.me(tokens)).status_code == 200
    refused(await app.redeem(code))
    assert (await app.me(tokens)).status_code == 401
    refused(await app.refresh(tokens))
    assert await ended_for(app, tokens) == ["code-reused"]


async def test_a_code_in_parallel_leaves_no_session(app: App) -> None:
    code, user_id = await app.code()
    answers = await asyncio.gather(*(app.redeem(code) for _ in range(5)))
    good = [answer.json() for answer in answers if answer.status_code == 200]
    assert len(good) <= 1
    for tokens in good:
        assert (await app.me(tokens)).status_code == 401
    assert await ended_for(app, {"user_id": user_id}) == ["code-reused"]


# How requests may look.


@pytest.mark.parametrize(
    ("form", "error"),
    [
        ("", "unsupported_grant_type"),
        ("grant_type=password&username=a&password=b", "unsupported_grant_type"),
        ("grant_type=refresh_token&grant_type=refresh_token", "invalid_request"),
        ("grant_type=refresh_token&client_id=a&client_id=b", "invalid_request"),
        ("grant_type=" + "x" * 200, "invalid_request"),
        ("grant_type=refresh_token&client_id=%00", "invalid_request"),
        ("grant_type=authorization_code&code=%ff", "invalid_grant"),
        ("grant_type=client_credentials", "invalid_client"),
    ],
)
async def test_every_mistake_is_told_as_rfc_6749_has_it(app: App, form: str, error: str) -> None:
    answer = await app.http.post(
        "/auth/token", content=form, headers={"Content-Type": "application/x-www-form-urlencoded"}
    )
    refused(answer, error)


async def test_json_is_no_token_request(app: App) -> None:
    refused(
        await app.http.post("/auth/token", json={"grant_type": "refresh_token"}), "unsupported_grant_type"
    )
