"""`dermadetect tenants domains`: the hosts a tenant answers at."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from cli.output import Json, show, tell
from cli.run import admin_database, in_control, run, settings
from cli.tenants import Slug

if TYPE_CHECKING:
    from tenants.domains.service import Domain

app = typer.Typer(
    no_args_is_help=True, help="The hosts a tenant answers at: its slugs' and domains of its own."
)

DomainName = Annotated[str, typer.Argument(help="A full domain name of the tenant's own.")]


@app.command("list")
def list_all(slug: Slug, as_json: Json = False) -> None:
    """List the hosts of a tenant, and the domains it has yet to prove.

    dermadetect tenants domains list acme
    """
    from tenants.domains.service import list_domains

    domain = settings().base_domain
    show(
        [asdict(each) for each in in_control(lambda session: list_domains(session, slug, domain))],
        as_json=as_json,
    )


@app.command()
def add(slug: Slug, domain: DomainName, as_json: Json = False) -> None:
    """Claim a domain for a tenant, and say which DNS record proves that it is the tenant's.

    dermadetect tenants domains add acme derma.acme.example
    """
    from tenants.domains.service import add_domain

    base = settings().base_domain
    claimed = in_control(lambda session: add_domain(session, slug, domain, base))
    show(asdict(claimed), as_json=as_json)
    if claimed.record:
        tell(
            f'Publish this record, then verify the domain:\n  {claimed.record}. TXT "{claimed.challenge}"\n'
            f"Next: dermadetect tenants domains verify {slug} {claimed.host}"
        )


@app.command()
def verify(slug: Slug, domain: DomainName, as_json: Json = False) -> None:
    """Look for the DNS record, and serve the tenant at the domain if it is there.

    dermadetect tenants domains verify acme derma.acme.example
    """
    from tenants.domains.resolver import text_records
    from tenants.domains.service import verify_domain

    configured = settings()

    async def work() -> "Domain":
        async with admin_database(configured) as database:
            return await verify_domain(
                database.control, slug, domain, configured.base_domain, text_records(configured.dns_resolvers)
            )

    show(asdict(run(work)), as_json=as_json)


@app.command()
def remove(slug: Slug, domain: DomainName) -> None:
    """Stop serving a tenant at a domain, or take a claim back. No other tenant can ever have it.

    dermadetect tenants domains remove acme derma.acme.example
    """
    from tenants.domains.service import remove_domain

    base = settings().base_domain
    in_control(lambda session: remove_domain(session, slug, domain, base))
    tell(f"{domain} is not served any more.")
