"""What the background worker of the whole product does."""

from datetime import timedelta

from sqlalchemy import func, select, text

from auth.oauth.models import LoginRequest, OAuthClient
from auth.saml.models import UsedAssertion
from core.clock import utcnow
from core.idempotency import IdempotencyKey
from core.ids import new_id
from gateway.assembly import RECURRING, background_worker
from tests.fixtures.world import World


async def test_rows_that_served_their_purpose_go_and_others_stay(world: World) -> None:
    await world.create_tenant("tidied")
    scope = world.tenant("tidied").scope
    now = utcnow()
    async with world.database.tenant(scope) as session:
        client = (await session.scalars(select(OAuthClient))).one()
        for name, ended in (("old", now - timedelta(days=2)), ("new", now + timedelta(minutes=5))):
            session.add(UsedAssertion(assertion_id=name, expires_at=ended))
            session.add(
                IdempotencyKey(
                    principal=new_id(), key_hash=name, request_hash="", result_id=new_id(), created_at=ended
                )
            )
            session.add(
                LoginRequest(
                    connection_id=new_id(),
                    client_id=client.id,
                    redirect_uri="",
                    code_challenge="",
                    scope="",
                    relay_hash=name,
                    browser_hash="",
                    request_id="",
                    expires_at=ended,
                )
            )
        await session.execute(text("SELECT doorbell.ring('tidy', now())"))
    worker = background_worker(world.parts)
    while await worker.run_one():
        pass
    async with world.database.tenant(scope) as session:
        for table, column in (
            (UsedAssertion, UsedAssertion.assertion_id),
            (IdempotencyKey, IdempotencyKey.key_hash),
            (LoginRequest, LoginRequest.relay_hash),
        ):
            assert (await session.scalars(select(column))).all() == ["new"], table.__name__
            assert await session.scalar(select(func.count()).select_from(table)) == 1


async def test_every_recurring_kind_has_a_handler(world: World) -> None:
    assert set(RECURRING) <= set(background_worker(world.parts)._handlers)
