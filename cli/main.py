"""The `dermadetect` command."""

from importlib.metadata import version
from typing import Annotated

import typer

from cli import (
    ai,
    audit,
    break_glass,
    clients,
    demo,
    doctor,
    domains,
    drift,
    keys,
    lifecycle,
    migrate,
    platform_tokens,
    portability,
    quotas,
    reference,
    scim,
    serve,
    sessions,
    sso,
    tenants,
    users,
    worker,
)
from cli.output import out

app = typer.Typer(
    name="dermadetect",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
tenants.app.command("drift")(drift.drift)
for verb in (
    lifecycle.rename,
    lifecycle.move,
    lifecycle.close,
    lifecycle.reopen,
    lifecycle.purge,
    lifecycle.certificate,
):
    tenants.app.command()(verb)
tenants.app.command()(portability.export)
tenants.app.command()(portability.verify_export)
tenants.app.command()(portability.restore)
tenants.app.add_typer(domains.app, name="domains")
app.add_typer(tenants.app, name="tenants")
app.add_typer(platform_tokens.app, name="platform-tokens")
app.add_typer(quotas.app, name="quotas")
app.add_typer(sso.app, name="sso")
app.add_typer(clients.app, name="clients")
app.add_typer(keys.app, name="keys")
app.add_typer(sessions.app, name="sessions")
users.app.command()(break_glass.break_glass)
app.add_typer(users.app, name="users")
app.add_typer(scim.app, name="scim")
app.add_typer(audit.app, name="audit")
app.add_typer(ai.app, name="ai")
app.add_typer(migrate.app, name="migrate")
for command in (serve.serve, worker.worker, doctor.doctor, demo.demo):
    app.command()(command)
app.command("reference-ai")(reference.reference_ai)
app.command("reference-idp")(reference.reference_idp)


def _print_version(wanted: bool) -> None:
    if wanted:
        out.print(f"dermadetect {version('dermadetect')}")
        raise typer.Exit


@app.callback()
def main(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Run the DermaDetect gateway and its tenants.

    First steps, on a machine with nothing prepared:
      dermadetect demo

    With a PostgreSQL of yours (docs/configuration.md names the settings):
      dermadetect migrate
      dermadetect tenants create acme --name "Acme Clinic" --plan standard
      dermadetect doctor
      dermadetect serve

    Exit codes: 0 done · 1 failed, or not healthy · 2 wrong usage · 3 partly failed · 4 not configured ·
    5 stopped before the end.
    Results go to standard output (JSON with --json), everything else to standard error.
    """
