"""`dermadetect sso refusals`: why people could not sign in."""

from typing import Annotated, Any

import typer

from cli.output import Json, show, tell
from cli.run import FAILED, in_tenant
from cli.tenants import Slug


def refusals(
    slug: Slug,
    reference: Annotated[
        str, typer.Option(help="The reference that the person's page showed, or its last characters.")
    ] = "",
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, the newest first.")] = 20,
    as_json: Json = False,
) -> None:
    """List refused sign-ins with the check that refused each, what it means and what to do about it.

    A response that nobody waited for is not here: anybody can send one, so it
    stands in the gateway's log alone. Exit code 1 where a reference is unknown.

      dermadetect sso refusals acme
      dermadetect sso refusals acme --reference 0198c2f4-5d1e-7a30-9c1f-2b6f0e4d7a11
    """
    show(find_refusals(slug, reference, limit), as_json=as_json)


def find_refusals(slug: str, reference: str, limit: int) -> list[dict[str, Any]]:
    """Refused sign-ins in words, the newest first. Ends the command where a reference is unknown."""
    from auth.connections.checks import explain
    from auth.connections.refusals import list_refusals

    rows = in_tenant(slug, lambda session: list_refusals(session, reference, limit))
    if reference and not rows:
        tell(
            "No refused sign-in has this reference. If nobody waited for the response, only the gateway's log has it, "
            "as request_id."
        )
        raise typer.Exit(FAILED)
    return [
        {
            "time": row.created_at,
            "reference": row.request_id,
            "check": row.detail["check"],
            "meaning": explain(row.detail["check"]),
        }
        for row in rows
    ]
