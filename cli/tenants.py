"""`dermadetect tenants`: create tenants and look after them."""

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.output import Json, err, show, tell
from cli.provisioning import create_tenant, provisioner, roll_back_tenant, warm
from cli.run import admin_database, in_control, run, settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from tenants.directory.models import Tenant
    from tenants.provisioning.service import Step

app = typer.Typer(no_args_is_help=True, help="Create tenants, look after them, and let them go.")

Slug = Annotated[str, typer.Argument(help="The tenant's slug (the first label of its host) or its key.")]


@app.command()
def create(
    slug: Annotated[str, typer.Argument(help="First label of the tenant's host; never reused.")],
    name: Annotated[str, typer.Option(help="The organisation's name, as people read it.")],
    plan: Annotated[str, typer.Option(help="What it may use; `dermadetect quotas show` lists the limits.")],
    rollback: Annotated[
        bool, typer.Option("--rollback", help="Undo what an interrupted creation has left.")
    ] = False,
    cell: Annotated[
        str, typer.Option(help="Where its data lives: a name in DERMADETECT_CELLS, or `default`.")
    ] = "default",
    admin_email: Annotated[
        str | None, typer.Option(help="Invite this person as its administrator; the URL is printed.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the steps and do nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Create a tenant: its schema, role, blob container and keys; or name a prepared one (`tenants warm`).

    Running it again with the same slug, name and plan finishes what was interrupted,
    and changes nothing when all is done. With --rollback what is unfinished is undone
    instead, and the slug is free again; a tenant that was finished is never touched.
    With --admin-email each run prints a new URL, until the person has followed one.

      dermadetect tenants create acme --name "Acme Clinic" --plan standard
      dermadetect tenants create acme --name "Acme Clinic" --plan standard --admin-email ada@acme.example
    """
    urls: list[str | None] = []
    last = _administrator(admin_email, urls.append) if admin_email and not rollback else None
    doing, act = (
        ("undo", roll_back_tenant) if rollback else ("create", partial(create_tenant, cell=cell, last=last))
    )
    if dry_run:
        steps = run(lambda: _steps(slug)) + ([last.name] if last else [])
        steps = (
            ["rolling-back", *reversed(steps), "rolled-back"] if rollback else ["reserved", *steps, "active"]
        )
        tell(f"Would {doing} {slug!r} on plan {plan!r} by these steps; each is skipped once it is finished:")
        show([{"step": step} for step in steps], as_json=as_json)
        return

    async def work() -> "Tenant":
        with err.status(f"{doing.capitalize()} {slug}"):
            return await act(settings(), slug, name, plan, lambda step: tell(f"✓ {step}"))

    tenant = run(work)
    invitation = {"administrator": admin_email, "invitation": urls[0]} if urls else {}
    show(shown(tenant) | invitation, as_json=as_json, title=tenant.name)
    if rollback:
        return
    if urls:
        tell(
            "Hand the invitation over now: only its hash is stored."
            if urls[0]
            else f"{admin_email} is known already; nobody was invited."
        )
    tell(
        f"Next: dermadetect sso saml set {slug} --metadata IDP.xml --role GROUP=ROLE\n"
        f"      dermadetect clients add {slug} CLIENT-ID --name NAME --redirect-uri URI"
    )


def _administrator(email: str, tell_url: "Callable[[str | None], None]") -> "Step":
    from cli.users import wish_of
    from gateway.assembly import administrator_step

    return administrator_step(settings(), wish_of(email, ["tenant_admin"]), tell_url)


async def _steps(slug: str) -> list[str]:
    from tenants.directory.service import check_slug

    check_slug(slug)
    async with provisioner(settings()) as (_, steps):
        return [step.name for step in steps]


app.command()(warm)


@app.command("list")
def list_all(
    state: Annotated[
        str | None,
        typer.Option(help="Only those in this state, such as active, suspended, provisioning or warm."),
    ] = None,
    as_json: Json = False,
) -> None:
    """List tenants by slug; with the node of each whose cell is a Citus cluster.

    dermadetect tenants list --state suspended
    dermadetect tenants list --json | jq -r '.[].host'
    """
    from tenants.directory.models import STATES
    from tenants.directory.service import list_tenants
    from tenants.moving.nodes import nodes_of_schemas

    if state is not None and state not in STATES:
        raise typer.BadParameter(f"{state!r} is none of {', '.join(STATES)}", param_hint="--state")

    async def work() -> list[dict[str, Any]]:
        async with admin_database(settings()) as database:
            nodes = await nodes_of_schemas(database)
            async with database.control() as session:
                found = await list_tenants(session, state)
        if not nodes:
            return [shown(each) for each in found]
        return [shown(each) | {"node": nodes.get((each.cell, each.scope.schema))} for each in found]

    show(run(work), as_json=as_json)


@app.command("show")
def show_one(slug: Slug, as_json: Json = False) -> None:
    """Show one tenant: its state, plan, host, schema, role and container.

    dermadetect tenants show acme
    """
    from tenants.directory.service import find_tenant

    tenant = in_control(lambda session: find_tenant(session, slug))
    further = {"login_group": tenant.login_group} if tenant.login_group else {}
    show(shown(tenant) | further, as_json=as_json, title=tenant.name)


@app.command()
def update(
    slug: Slug,
    name: Annotated[str | None, typer.Option(help="The organisation's name, as people read it.")] = None,
    ai_model: Annotated[
        str | None,
        typer.Option(help="The only model version that the AI Service may answer with; '' for the current."),
    ] = None,
    image_links: Annotated[
        str | None,
        typer.Option(
            help="How photographs are read: `streamed` by the gateway, or `signed`: by a link to the store that "
            "works for a minute, whatever is revoked meanwhile."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Change what can be changed of a tenant at any time. What is not named stays.

    dermadetect tenants update acme --ai-model 2.4.1
    """
    from tenants.directory.models import IMAGE_LINKS
    from tenants.directory.service import update_tenant

    if image_links is not None and image_links not in IMAGE_LINKS:
        raise typer.BadParameter(
            f"{image_links!r} is none of {', '.join(IMAGE_LINKS)}", param_hint="--image-links"
        )
    changes = {"name": name, "ai_model": ai_model, "image_links": image_links}
    given = {key: value for key, value in changes.items() if value is not None}
    if not given:
        raise typer.BadParameter("name what to change: --name, --ai-model or --image-links")
    if name is not None and not name.strip():
        raise typer.BadParameter("a tenant needs a name", param_hint="--name")
    if ai_model is not None and len(ai_model) > 128:
        raise typer.BadParameter("at most 128 characters, as the contract has it", param_hint="--ai-model")
    wanted = given | ({"ai_model": ai_model or None} if ai_model is not None else {})
    tenant = in_control(lambda session: update_tenant(session, slug, wanted))
    show(shown(tenant), as_json=as_json, title=tenant.name)


@app.command()
def suspend(
    slug: Slug,
    reason: Annotated[str, typer.Option(help="Why; kept in the audit log, not told to the tenant's users.")],
    as_json: Json = False,
) -> None:
    """Stop serving a tenant, in every running gateway within a second. Its data stays.

    dermadetect tenants suspend acme --reason "unpaid since March"
    """
    from tenants.directory import service

    tenant = in_control(lambda session: service.suspend(session, slug, reason))
    show(shown(tenant), as_json=as_json, title=tenant.name)


@app.command()
def resume(slug: Slug, as_json: Json = False) -> None:
    """Serve a suspended tenant again.

    dermadetect tenants resume acme
    """
    from tenants.directory import service

    tenant = in_control(lambda session: service.resume(session, slug))
    show(shown(tenant), as_json=as_json, title=tenant.name)


def shown(tenant: "Tenant") -> dict[str, Any]:
    """A tenant as every command prints it."""
    row = {
        "slug": tenant.slug,
        "name": tenant.name,
        "state": tenant.state,
        "plan": tenant.plan,
        "ai_model": tenant.ai_model,
        "image_links": tenant.image_links,
        "host": tenant.home_host,
        "key": tenant.key,
        "cell": tenant.cell,
        "schema": tenant.scope.schema,
        "container": tenant.scope.container,
        "schema_revision": tenant.schema_revision,
        "created_at": tenant.created_at,
    }
    if tenant.state == "suspended":
        return row | {"suspended_reason": tenant.state_reason}
    if tenant.state == "closing":
        return row | {"closing_reason": tenant.state_reason, "purge_after": tenant.purge_after}
    return row
