"""`dermadetect platform-tokens`: who may use the platform's API."""

from typing import Annotated

import typer

from cli.output import Json, show, tell
from cli.run import in_control

app = typer.Typer(no_args_is_help=True, help="Tokens of the platform's own API.")

Name = Annotated[str, typer.Argument(help="What the token is for; it stands in the audit log.")]


@app.command()
def create(
    name: Name,
    scope: Annotated[str, typer.Option(help="`read`, or `write`, which includes it.")] = "read",
    as_json: Json = False,
) -> None:
    """Make a token for /platform/v1. It is shown this once.

    dermadetect platform-tokens create billing --scope read
    """
    from tenants.platform.service import create_token

    token = in_control(lambda session: create_token(session, name, scope))
    show({"name": name, "scope": scope, "token": token}, as_json=as_json)
    tell("Keep it now: only its hash is stored.")


@app.command("list")
def list_all(as_json: Json = False) -> None:
    """List tokens: what they may do, when they were last used, and whether they are revoked.

    dermadetect platform-tokens list
    """
    from tenants.platform.service import list_tokens

    columns = ("name", "scopes", "created_at", "last_used_at", "revoked_at")
    rows = in_control(list_tokens)
    show([{column: getattr(row, column) for column in columns} for row in rows], as_json=as_json)


@app.command()
def revoke(name: Name) -> None:
    """Refuse a token from now on.

    dermadetect platform-tokens revoke billing
    """
    from tenants.platform.service import revoke_token

    in_control(lambda session: revoke_token(session, name))
    tell(f"{name} is refused from now on.")
