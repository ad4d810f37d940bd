"""Sign-ins that begin at the identity provider."""

from collections.abc import AsyncIterator
from urllib.parse import parse_qs, urlsplit

import pytest
from sqlalchemy import func, select

from auth.people.models import SignInSession
from reference.idp.config import IdpConfig, SigningKey
from tests.fixtures.browser import Browser, SignIn
from tests.fixtures.paper_idp import PaperIdp
from tests.fixtures.world import World

START = "https://app.example/start?from=portal"


@pytest.fixture(scope="module")
async def idp(world: World) -> PaperIdp:
    config = IdpConfig("https://idp.portal.example")
    return await PaperIdp.open(world, "portal", config, allow_idp_initiated=True, start_url=START)


@pytest.fixture
async def sign_in(idp: PaperIdp) -> AsyncIterator[SignIn]:
    async with Browser(idp.world.app) as browser:
        yield SignIn(browser, idp.origin)


async def sessions(idp: PaperIdp) -> int:
    async with idp.world.database.tenant(idp.world.tenant(idp.slug).scope) as session:
        return await session.scalar(select(func.count()).select_from(SignInSession)) or 0


@pytest.mark.parametrize("relay_state", ["", "https://evil.example/", "made up"])
async def test_who_comes_from_the_portal_is_sent_to_the_app_which_signs_them_in(
    idp: PaperIdp, sign_in: SignIn, relay_state: str
) -> None:
    before = await sessions(idp)
    form = await idp.answer(sign_in, asked=False)
    form.fields["RelayState"] = relay_state
    answer = await sign_in.answer(form)
    assert answer.status_code == 303
    url = urlsplit(answer.headers["Location"])
    assert f"{url.scheme}://{url.netloc}{url.path}" == "https://app.example/start"
    query = parse_qs(url.query)
    assert query == {"from": ["portal"], "iss": [idp.origin], "connection": ["main"]}
    assert "Set-Cookie" not in answer.headers
    assert await sessions(idp) == before, "an attacker's own response would sign its victim in as him"
    assert (await idp.events("sign-in.from-provider"))[-1] == {"connection": "main"}
    assert (await sign_in.authorize(connection="main")).headers["Location"].startswith(idp.config.sso_url)
    assert (await sign_in.answer(form)).status_code == 403, "once"


async def test_what_is_not_the_providers_is_refused_and_fills_no_log(idp: PaperIdp, sign_in: SignIn) -> None:
    before = len(await idp.events("sign-in.refused"))
    forged = await idp.answer(sign_in, asked=False, key=SigningKey.generate())
    # An answer to a request is no unasked one: it was made for another browser.
    stolen = await idp.answer(sign_in)
    stolen.fields["RelayState"] = ""
    for form in (forged, stolen):
        answer = await sign_in.answer(form)
        assert answer.status_code == 403
        assert "Location" not in answer.headers
    assert len(await idp.events("sign-in.refused")) == before


async def test_an_unasked_response_answers_no_request(idp: PaperIdp, sign_in: SignIn) -> None:
    asked = await idp.answer(sign_in)
    unasked = await idp.answer(sign_in, asked=False)
    unasked.fields["RelayState"] = asked.fields["RelayState"]
    assert await idp.refused(sign_in, unasked) == "saml.in-response-to-missing"


async def test_the_tenant_must_allow_it(idp: PaperIdp, sign_in: SignIn) -> None:
    await idp.set_policy(allow_idp_initiated=False)
    try:
        assert (await sign_in.answer(await idp.answer(sign_in, asked=False))).status_code == 403
    finally:
        await idp.set_policy(allow_idp_initiated=True)
    assert (await sign_in.answer(await idp.answer(sign_in, asked=False))).status_code == 303
