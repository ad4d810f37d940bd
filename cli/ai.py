"""`dermadetect ai`: the contract with the AI Service, whether one keeps it, and whether physicians agree with it."""

from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from cli.output import Json, show, tell
from cli.run import FAILED, fail, in_tenant, run
from cli.tenants import Slug

if TYPE_CHECKING:
    from core.database import TenantSession

app = typer.Typer(no_args_is_help=True, help="The contract with the AI Service, and how it does.")

DEADLINE_S = 20.0


@app.command()
def check(
    url: Annotated[str, typer.Argument(help="Base address of the service; the endpoints lie below /v1/.")],
    token: Annotated[
        str | None,
        typer.Option(
            envvar="DERMADETECT_AI_TOKEN",
            help="Bearer token of the service. With one, calls without it must be refused.",
        ),
    ] = None,
    deadline: Annotated[
        float, typer.Option(min=0.1, max=600, help="Seconds each answer may take.")
    ] = DEADLINE_S,
    as_json: Json = False,
) -> None:
    """Ask an AI Service all five questions, and check each answer and each refusal against the contract.

    Sends photographs made for the purpose. Exit code 1 when a check fails; each failure says what was wrong and
    where the contract says so.

      dermadetect ai check http://127.0.0.1:8900
      dermadetect ai check https://ai.example --json | jq '.[] | select(.state != "pass")'
    """
    address = urlsplit(url)
    if address.scheme not in ("http", "https") or not address.hostname or address.query or address.fragment:
        raise typer.BadParameter("must be an http or https address", param_hint="URL")
    from clinic.ai.conformance import check_service

    findings = run(lambda: check_service(url, token, deadline))
    show([asdict(finding) for finding in findings], as_json=as_json, title=f"Contract checks of {url}")
    wrong = [finding for finding in findings if finding.state != "pass"]
    if wrong:
        endpoints = ", ".join(dict.fromkeys(finding.endpoint for finding in wrong))
        fail(
            "The contract is not kept",
            f"{len(wrong)} of {len(findings)} checks did not pass: {endpoints}",
            FAILED,
        )
    tell(f"All {len(findings)} checks passed.")


@app.command()
def contract() -> None:
    """Print the contract that an AI Service has to keep, as an OpenAPI document.

    dermadetect ai contract > ai-service.openapi.json
    """
    from reference.ai.contract import openapi

    show(openapi(), as_json=True)


@app.command()
def concordance(
    slug: Slug,
    since: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Verdicts of this day (UTC) and later.")
    ] = None,
    until: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Verdicts of this day (UTC) and earlier.")
    ] = None,
    as_json: Json = False,
) -> None:
    """How often a tenant's physicians accepted what the AI Service said, by model and Fitzpatrick type.

    dermadetect ai concordance acme --since 2026-01-01
    """

    async def work(session: "TenantSession") -> list[dict[str, Any]]:
        from clinic.ai.concordance import agreement

        groups = await agreement(session, since and since.date(), until and until.date())
        return [group.model_dump(mode="json") for group in groups]

    show(in_tenant(slug, work), as_json=as_json, title=f"Agreement with the AI Service at {slug}")
