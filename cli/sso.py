"""`dermadetect sso`: how a tenant's people sign in."""

import typer

from cli.sso_saml import saml

app = typer.Typer(no_args_is_help=True, help="Connect a tenant to its identity provider.")
app.add_typer(saml, name="saml")
