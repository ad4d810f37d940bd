"""`dermadetect sso saml test`: whether a connection would work, as far as can be said without a person."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.output import Json, show
from cli.refusals import find_refusals
from cli.run import FAILED, fail, in_control, read_file, run, settings
from cli.sign_in import encoded, sign_in_parts
from cli.sso_saml import Named
from cli.tenants import Slug

if TYPE_CHECKING:
    from auth.connections.models import Connection
    from auth.saml.models import SamlConnection
    from core.database import ControlSession


_MOST = 1024 * 1024


def look_at_connection(
    slug: Slug,
    reference: Annotated[
        str, typer.Option(help="Explain the refused sign-in whose page showed this, or how it ends.")
    ] = "",
    from_response: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="Check a captured response of the provider (the form field SAMLResponse, or XML), too.",
        ),
    ] = None,
    connection: Named = "main",
    as_json: Json = False,
) -> None:
    """Look at a SAML connection while nobody signs in: roles, certificates, and what the provider publishes now.

    A captured response is checked as a sign-in would, as of the moment at which
    it was made; it holds a person's name, so keep it accordingly.

    Exit code 1 when something is wrong. Changes nothing.

      dermadetect sso saml test acme
      dermadetect sso saml test acme --reference 6f0e4d7a11
      dermadetect sso saml test acme --from-response captured.b64
    """

    async def find(session: "ControlSession") -> "tuple[Connection, SamlConnection] | None":
        from auth.saml.settings import find_saml
        from tenants.directory.service import find_tenant

        return await find_saml(session, await find_tenant(session, slug), connection)

    found = in_control(find)
    if found is None:
        fail("There is no such connection", f"dermadetect sso saml set {slug} --metadata IDP.xml")

    async def look() -> list[dict[str, str]]:
        from auth.connections.fetching import Fetcher
        from auth.saml.rehearsal import rehearse, rehearse_response

        findings = await rehearse(*found, Fetcher(settings().sso_fetch_allow))
        if from_response:
            response = encoded(read_file(from_response, at_most=_MOST))
            async with sign_in_parts(slug) as parts:
                findings += await rehearse_response(parts.jail, parts.keys, parts.where, *found, response)
        return [asdict(finding) for finding in findings]

    findings = run(look)
    if reference:
        findings += [
            {
                "name": "refusal",
                "state": "wrong",
                "detail": f"{row['time']:%Y-%m-%d %H:%M} {row['check']}: {row['meaning']}",
            }
            for row in find_refusals(slug, reference, 1)
        ]
    show(findings, as_json=as_json, title=f"{slug}: {connection}")
    if any(finding["state"] == "wrong" for finding in findings):
        raise typer.Exit(FAILED)
