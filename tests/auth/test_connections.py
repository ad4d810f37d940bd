"""Which connection somebody signs in by, and who they are then: invited, known, or nobody."""

import html
import re
from collections.abc import AsyncIterator
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import httpx
import pytest

from auth.connections.errors import BadConnection, NoConnection, SignInRefused
from auth.connections.models import Connection
from auth.connections.service import choose, mapped_roles
from auth.connections.settings import find_connection, new_connection, put_connection
from auth.oauth.service import register_client
from auth.people.models import SignInSession, User
from auth.people.service import sign_in
from auth.saml.request import new_sp_key
from auth.saml.settings import set_connection
from core.ids import new_id
from tenants.directory.models import Tenant
from tenants.directory.service import find_tenant
from tests.fixtures.browser import Browser, SignIn, form_of
from tests.fixtures.world import CLIENT_ID, REDIRECT_URI, World


def connection_of(name: str = "main", **changes: object) -> Connection:
    tenant = Tenant(id=new_id())
    made = new_connection(tenant, name, "oidc", groups="groups", email="email", full_name="name")
    for each, value in changes.items():
        setattr(made, each, value)
    return made


def name_of() -> str:
    return f"{new_id()}@Clinic.example"


async def invite(world: World, email: str, *granted: str, active: bool = True) -> UUID:
    async with world.database.tenant(world.tenant().scope) as session:
        user = User(email=email, display_name="Invited", granted_roles=list(granted), active=active)
        session.add(user)
        await session.flush()
        return user.id


async def enter(
    world: World, connection: Connection, external_id: str, email: str | None, *roles: str
) -> SignInSession:
    async with world.database.tenant(world.tenant().scope) as session:
        client = await register_client(session, CLIENT_ID, "Test app", [REDIRECT_URI])
        return await sign_in(
            session,
            connection=connection,
            external_id=external_id,
            email=email,
            display_name=None,
            roles=list(roles),
            seat_limit=5000,
            client_id=client.id,
        )


async def refused(world: World, connection: Connection, email: str | None, *roles: str) -> str:
    with pytest.raises(SignInRefused) as refusal:
        await enter(world, connection, name_of(), email, *roles)
    return refusal.value.check_id


async def test_whom_an_invitation_names_is_bound_at_the_first_sign_in(world: World) -> None:
    email, connection = name_of(), connection_of(provision="invited")
    user_id = await invite(world, email, "tenant_admin")
    first = await enter(world, connection, "subject-1", email.lower(), "physician")
    assert first.user_id == user_id
    assert first.roles == ["physician", "tenant_admin"]
    assert first.connection_id == connection.id
    # From now on the address says nothing: the provider's name does.
    again = await enter(world, connection, "subject-1", "other@clinic.example")
    assert (again.user_id, again.roles) == (user_id, ["tenant_admin"])
    assert await refused(world, connection, email, "physician") == "login.not-invited"


async def test_one_name_at_two_connections_is_two_people(world: World) -> None:
    users = {(await enter(world, connection_of(), "jane", None, "referrer")).user_id for _ in range(2)}
    assert len(users) == 2


async def test_nobody_is_bound_by_an_address_that_the_provider_does_not_speak_for(world: World) -> None:
    email = name_of()
    await invite(world, email, "tenant_admin")
    elsewhere = connection_of(email_domains=["other.example"], provision="invited")
    assert await refused(world, elsewhere, email) == "login.not-invited"
    assert await refused(world, connection_of(provision="invited"), None) == "login.not-invited"
    patients = connection_of(audience="patients", default_roles=["patient"])
    assert (await enter(world, patients, name_of(), email, "patient")).roles == ["patient"]
    ours = connection_of(email_domains=["clinic.example"], provision="invited")
    assert (await enter(world, ours, name_of(), email)).roles == ["tenant_admin"]


async def test_an_address_of_two_invitations_binds_neither(world: World) -> None:
    email = name_of()
    await invite(world, email, "physician")
    await invite(world, email.upper(), "tenant_admin")
    assert await refused(world, connection_of(), email, "referrer") == "login.ambiguous-email"


async def test_whoever_was_deactivated_before_the_first_sign_in_stays_out(world: World) -> None:
    email = name_of()
    await invite(world, email, "physician", active=False)
    assert await refused(world, connection_of(), email) == "login.deactivated"


async def test_a_patients_connection_never_gives_more_than_patient(world: World) -> None:
    connection = connection_of(audience="patients")
    started = await enter(world, connection, "pat", None, "patient")
    async with world.database.tenant(world.tenant().scope) as session:
        (await session.get_one(User, started.user_id)).granted_roles = ["tenant_admin"]
    assert (await enter(world, connection, "pat", None, "patient")).roles == ["patient"]
    assert await refused(world, connection, None, "physician") == "login.no-role"


def test_groups_and_the_default_make_the_roles() -> None:
    connection = connection_of(role_mapping={"a": "physician", "b": "physician"}, default_roles=["referrer"])
    assert mapped_roles(connection, ["b", "a", "unknown"]) == ["physician", "referrer"]
    assert mapped_roles(connection, []) == ["referrer"]


def test_a_name_or_an_address_chooses_among_connections() -> None:
    clinic = connection_of("clinic", email_domains=["clinic.example", "xn--bcher-kva.example"])
    labs, open_to_all = connection_of("labs", email_domains=["labs.example"]), connection_of("open")
    several = [clinic, labs, open_to_all]
    assert choose([labs], "", "who@clinic.example") is labs
    assert choose(several, "open", "who@labs.example") is open_to_all
    assert choose(several, "", "Who@LABS.example") is labs
    assert choose(several, "", "wer@bücher.example") is clinic
    for hint in ("", "nobody@nowhere.example", "labs.example", "@", "who@" + "x" * 300):
        assert choose(several, "", hint) is None
    for connections, name in ((several, "other"), ([], "")):
        with pytest.raises(NoConnection):
            choose(connections, name, "")


async def test_another_provider_under_the_same_name_knows_nobody(world: World) -> None:
    ids = []
    for entity in ("https://one.example", "https://one.example", "https://two.example"):
        async with world.admin.control() as session:
            connection = await set_connection(
                session,
                "globex",
                name="changing",
                idp_entity_id=entity,
                sso_url=f"{entity}/sso",
                certificates=["MII"],
                role_mapping={"doctors": "physician"},
            )
            ids.append(connection.id)
    assert ids[0] == ids[1] != ids[2]
    async with world.admin.control() as session:
        tenant = await find_tenant(session, "globex")
        connection_now = await find_connection(session, tenant, "changing")
        assert connection_now is not None
        assert connection_now.role_mapping == {"doctors": "physician"}
        await session.delete(connection_now)


@pytest.mark.parametrize(
    ("name", "changes", "says"),
    [
        ("Main", {}, "lowercase"),
        ("main", {"role_mapping": {"a": "emperor"}}, "No role is called emperor"),
        ("main", {"default_roles": ["emperor"]}, "No role is called emperor"),
        ("main", {"audience": "patients", "default_roles": ["physician"]}, "no other role"),
        ("main", {"email_domains": ["not a domain"]}, "not an e-mail domain"),
        ("main", {"email_domains": ["TAKEN.example"]}, "has the domain taken.example"),
    ],
)
async def test_what_makes_no_sense_is_refused_by_name(
    world: World, name: str, changes: dict[str, object], says: str
) -> None:
    async def put() -> None:
        async with world.admin.control() as session:
            tenant = await find_tenant(session, "globex", lock=True)
            for each, values in (("taken", {"email_domains": ["taken.example"]}), (name, changes)):
                connection = new_connection(tenant, each, "oidc", groups="g", email="e", full_name="n")
                await put_connection(session, tenant, connection, **values)

    with pytest.raises(BadConnection, match=says):
        await put()


@pytest.fixture(scope="module")
async def several(world: World) -> World:
    """The tenant `several`: two connections with a domain each, and one for patients."""
    await world.create_tenant("several", "Several & Sons")
    async with world.admin.control() as session:
        tenant = await find_tenant(session, "several", lock=True)
        for name, terms in (
            ("labs", {"email_domains": ["labs.example"]}),
            ("clinic", {"email_domains": ["clinic.example"]}),
            ("patients", {"audience": "patients", "default_roles": ["patient"]}),
        ):
            connection = await set_connection(
                session,
                "several",
                name=name,
                idp_entity_id=f"https://{name}.example",
                sso_url=f"https://{name}.example/sso",
                certificates=[new_sp_key("https://idp.example")[1]],
            )
            await put_connection(session, tenant, connection, **terms)
    return world


@pytest.fixture
async def visit(several: World) -> AsyncIterator[SignIn]:
    async with Browser(several.app) as browser:
        yield SignIn(browser, "http://several.localhost:8000")


async def test_an_app_is_sent_to_the_connection_that_it_or_the_person_names(visit: SignIn) -> None:
    for changed, target in (
        ({"connection": "labs"}, "https://labs.example/sso?SAMLRequest="),
        ({"login_hint": "jo@clinic.example"}, "https://clinic.example/sso?SAMLRequest="),
        ({}, "/auth/sign-in?response_type=code&"),
        ({"login_hint": "jo@nowhere.example"}, "/auth/sign-in?response_type=code&"),
    ):
        answer = await visit.authorize(**changed)
        assert answer.status_code == 303
        assert answer.headers["Location"].startswith(target)
    assert (await visit.authorize(connection="other")).status_code == 404


def links_of(page: httpx.Response) -> list[str]:
    return [html.unescape(link) for link in re.findall(r'href="([^"]*)"', page.text)]


async def test_the_page_asks_for_an_address_or_a_choice_and_goes_on_without_scripts(visit: SignIn) -> None:
    redirect = await visit.authorize(state='<&">')
    page = await visit.browser.get(visit.origin + redirect.headers["Location"])
    assert page.status_code == 200
    assert "Sign in to Several &amp; Sons" in page.text
    assert "<script" not in page.text
    assert '<label for="login_hint">' in page.text
    form = form_of(page)
    assert form.action == "/auth/sign-in"
    assert form.fields["state"] == '<&">'

    choices = {parse_qs(urlsplit(link).query)["connection"][0]: link for link in links_of(page)}
    assert set(choices) == {"clinic", "labs", "patients"}
    for name, link in choices.items():
        answer = await visit.browser.get(visit.origin + link)
        assert answer.headers["Location"].startswith(f"https://{name}.example/sso?")

    form.fields["login_hint"] = "jo@LABS.example"
    onward = await visit.browser.get(visit.origin + form.action, params=form.fields)
    assert onward.status_code == 200  # not a redirect, which the policy for forms would hold up in browsers
    (link,) = links_of(onward)
    refresh = re.search(r'http-equiv="refresh" content="0; url=([^"]*)"', onward.text)
    assert refresh is not None
    assert html.unescape(refresh[1]) == link
    answer = await visit.browser.get(visit.origin + link)
    assert answer.headers["Location"].startswith("https://labs.example/sso?")

    form.fields["login_hint"] = "jo@nowhere.example"
    again = await visit.browser.get(visit.origin + form.action, params=form.fields)
    assert 'role="alert"' in again.text
    assert len(links_of(again)) == 3


async def test_the_page_carries_nothing_that_was_sent_into_its_own_markup(visit: SignIn) -> None:
    hostile = '"><script>alert(1)</script>'
    for name in ("client_id", "login_hint", hostile):
        page = await visit.browser.get(
            f"{visit.origin}/auth/sign-in", params={"client_id": "x", name: hostile}
        )
        assert page.status_code == 200
        assert "<script" not in page.text
    assert (await visit.browser.get(f"{visit.origin}/auth/sign-in")).status_code == 422


async def test_discovery_says_as_much_of_unknown_domains_as_of_known_ones(several: World) -> None:
    http = await several.http("several.localhost")

    async def discover(email: str) -> list[dict[str, str]]:
        answer = await http.post("/auth/discover", json={"email": email})
        assert answer.status_code == 200
        assert set(answer.json()) == {"connections"}
        return answer.json()["connections"]

    assert await discover("jo@labs.example") == [{"name": "labs", "audience": "staff"}]
    assert await discover("nobody-here@labs.example") == [{"name": "labs", "audience": "staff"}]
    for unknown in ("jo@nowhere.example", "no address", "@@@"):
        assert await discover(unknown) == [{"name": "patients", "audience": "patients"}]
    assert (await http.post("/auth/discover", json={"email": "x" * 400})).status_code == 422
    other = await several.http("globex.localhost")
    assert "labs" not in (await other.post("/auth/discover", json={"email": "jo@labs.example"})).text
