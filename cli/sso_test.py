"""`dermadetect sso saml test`: whether a connection would work, as far as can be said without a person."""

from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from cli.output import Json, show
from cli.run import FAILED, fail, in_control, run, settings
from cli.sso_saml import Named
from cli.tenants import Slug

if TYPE_CHECKING:
    from auth.connections.models import Connection
    from auth.saml.models import SamlConnection
    from core.database import ControlSession


def look_at_connection(slug: Slug, connection: Named = "main", as_json: Json = False) -> None:
    """Look at a SAML connection while nobody signs in: roles, certificates, and what the provider publishes now.

    Exit code 1 when something is wrong. Changes nothing.

      dermadetect sso saml test acme
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
        from auth.saml.rehearsal import rehearse

        findings = await rehearse(*found, Fetcher(settings().sso_fetch_allow))
        return [asdict(finding) for finding in findings]

    findings = run(look)
    show(findings, as_json=as_json, title=f"{slug}: {connection}")
    if any(finding["state"] == "wrong" for finding in findings):
        raise typer.Exit(FAILED)
