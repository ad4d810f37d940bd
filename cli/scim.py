"""`dermadetect scim`: tokens for a tenant's directory."""

from datetime import timedelta
from typing import Annotated

import typer

from cli.output import Json, show, tell
from cli.run import in_tenant
from cli.tenants import Slug

app = typer.Typer(no_args_is_help=True, help="Let a tenant's directory bring its people (SCIM 2.0).")
tokens = typer.Typer(no_args_is_help=True, help="What a directory proves itself with at `/scim/v2`.")
app.add_typer(tokens, name="token")

Name = Annotated[str, typer.Argument(help="What the token is for; it is never given again.")]


@tokens.command()
def create(
    slug: Slug,
    name: Annotated[str, typer.Option(help="What the token is for: 2 to 63 letters, digits, hyphens.")],
    days: Annotated[int, typer.Option(help="How long it holds, 730 days at most.")] = 365,
    as_json: Json = False,
) -> None:
    """Make a token for the tenant's directory. It is shown this once.

    dermadetect scim token create acme --name entra --days 180
    """
    from auth.scim.service import create_token

    row, secret = in_tenant(slug, lambda session: create_token(session, name, timedelta(days=days)))
    show({"name": name, "expires_at": row.expires_at, "token": secret}, as_json=as_json)
    tell("Keep it now: only its hash is stored. The directory's address is /scim/v2 on the tenant's host.")


@tokens.command("list")
def list_all(slug: Slug, as_json: Json = False) -> None:
    """List a tenant's tokens: when they end, when they were last used, and whether they are revoked.

    dermadetect scim token list acme
    """
    from auth.scim.service import list_tokens

    columns = ("name", "created_at", "expires_at", "last_used_at", "revoked_at")
    rows = in_tenant(slug, list_tokens)
    show([{column: getattr(row, column) for column in columns} for row in rows], as_json=as_json)


@tokens.command()
def revoke(slug: Slug, name: Name) -> None:
    """Refuse a token from now on.

    dermadetect scim token revoke acme entra
    """
    from auth.scim.service import revoke_token

    in_tenant(slug, lambda session: revoke_token(session, name))
    tell(f"{name} is refused from now on.")
