"""Sign-in sessions: seen and ended, one's own and as an administrator."""

from datetime import datetime, timedelta

from tests.auth.apps import App
from tests.clinic.journey import ok
from tests.fixtures.world import World


async def test_people_see_and_end_their_own_sessions(world: World) -> None:
    app = await App.open(world)
    first = await app.signed_in(login="lister")
    second = await app.signed_in(login="lister")
    stranger = await app.signed_in()
    http = await world.http(Authorization=f"Bearer {first['access_token']}")
    listed = ok(await http.get("/v1/sessions"))["items"]
    assert [each["client_id"] for each in listed] == [app.client_id] * 2
    mine = ok(await http.get("/v1/me"))["session_id"]
    assert listed[1]["id"] == mine
    assert listed[1]["last_used_at"] >= listed[1]["created_at"]
    theirs = (await app.me(stranger)).json()["session_id"]
    assert (await http.delete(f"/v1/sessions/{theirs}")).status_code == 404
    assert (await http.delete(f"/v1/sessions/{listed[0]['id']}")).status_code == 204
    assert (await app.me(second)).status_code == 401
    assert [each["id"] for each in ok(await http.get("/v1/sessions"))["items"]] == [mine]
    page = await http.get("/v1/sessions", params={"limit": 1})
    assert "next" not in page.headers.get("Link", "")


async def test_an_administrator_ends_anybodys_sessions(world: World) -> None:
    app, admin = await App.open(world), await world.person("tenant_admin")
    tokens = [await app.signed_in(login="watched") for _ in range(3)]
    path = f"/v1/users/{tokens[0]['user_id']}/sessions"
    first, *_ = ok(await admin.http.get(path, params={"limit": 1}))["items"]
    assert (await admin.http.delete(f"{path}/{first['id']}")).status_code == 204
    assert [(await app.me(each)).status_code for each in tokens] == [200, 200, 401]
    assert (await admin.http.delete(f"/v1/users/{admin.user_id}/sessions/{first['id']}")).status_code == 404
    assert (await admin.http.delete(path)).status_code == 204
    assert ok(await admin.http.get(path))["items"] == []
    assert [(await app.me(each)).status_code for each in tokens] == [401, 401, 401]
    assert (await admin.http.get("/v1/me")).status_code == 200


async def test_a_session_that_no_app_took_up_is_over_in_a_minute(world: World) -> None:
    app, admin = await App.open(world), await world.person("tenant_admin")
    _, user_id = await app.code()
    (waiting,) = ok(await admin.http.get(f"/v1/users/{user_id}/sessions"))["items"]
    begun, ends = [datetime.fromisoformat(waiting[each]) for each in ("created_at", "expires_at")]
    assert ends - begun <= timedelta(seconds=61)
