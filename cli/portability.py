"""`dermadetect tenants export`, `verify-export` and `restore`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from cli.output import Json, err, show, tell, warn
from cli.run import PARTLY_FAILED, admin_database, read_file, run, settings
from cli.tenants import Slug, shown

if TYPE_CHECKING:
    from tenants.directory.models import Tenant
    from tenants.portability.bundle import Manifest

Bundle = Annotated[Path, typer.Argument(help="The directory that `tenants export` wrote.")]
PassphraseFile = Annotated[
    Path | None,
    typer.Option(help="A file with the passphrase that wraps the bundle's keys instead of the master key."),
]


def export(
    slug: Slug,
    to: Annotated[Path, typer.Option(help="The directory to make; it must not exist.")],
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Write a tenant into a directory, while it is served: all rows as of one moment, every blob, settings and keys.

    Without a passphrase only an installation with the same master key can use
    the keys, and with them the patients' identities. Keep either apart from the
    bundle.

      dermadetect tenants export acme --to /backup/acme-2027-01
    """
    from gateway.assembly import blob_stores
    from gateway.lifecycle import export_tenant

    configured, passphrase = settings(), _passphrase(passphrase_file)

    async def work() -> "Manifest":
        stores = blob_stores(configured)
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        try:
            async with admin_database(configured) as database:
                with Progress(*columns, console=err, transient=True) as bar:
                    task = bar.add_task(slug, total=None)
                    return await export_tenant(
                        configured,
                        database,
                        stores,
                        slug,
                        to,
                        passphrase=passphrase,
                        progress=lambda what, done: bar.update(task, description=what, completed=done),
                    )
        finally:
            await stores.close()

    manifest = run(work)
    show(_summary(manifest), as_json=as_json, title=manifest.tenant.name)
    if manifest.blobs.missing:
        warn(
            "Not everything was there", f"{manifest.blobs.missing} blobs that rows name are not in the store"
        )
        raise typer.Exit(PARTLY_FAILED)


def verify_export(bundle: Bundle, as_json: Json = False) -> None:
    """Read a bundle and compare every file with its hash. Needs no settings, no database and no key.

    dermadetect tenants verify-export /backup/acme-2027-01
    """
    from tenants.portability.bundle import verify

    async def work() -> "Manifest":
        return verify(bundle)[0]

    show(_summary(run(work)), as_json=as_json)


def restore(
    bundle: Bundle,
    slug: Annotated[
        str | None, typer.Option(help="Another slug. Without it the tenant must have been purged before.")
    ] = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Make a tenant of a bundle: a new one with its own schema, container and host. Everybody signs in anew.

    Running it again finishes what was interrupted.

      dermadetect tenants restore /backup/acme-2027-01 --slug acme-drill
    """
    from gateway.assembly import blob_stores
    from gateway.lifecycle import restore_tenant

    configured, passphrase = settings(), _passphrase(passphrase_file)

    async def work() -> "Tenant":
        stores = blob_stores(configured)
        try:
            async with admin_database(configured) as database:
                with err.status(f"Restoring {bundle}"):
                    return await restore_tenant(
                        configured,
                        database,
                        stores,
                        bundle,
                        slug=slug,
                        passphrase=passphrase,
                        progress=lambda step: tell(f"✓ {step}"),
                    )
        finally:
            await stores.close()

    tenant = run(work)
    show(shown(tenant), as_json=as_json, title=tenant.name)


def _passphrase(file: Path | None) -> str | None:
    return read_file(file, at_most=10_000).decode().strip() if file else None


def _summary(manifest: "Manifest") -> dict[str, Any]:
    return {
        "slug": manifest.tenant.slug,
        "name": manifest.tenant.name,
        "key": manifest.tenant.key,
        "created_at": manifest.created_at,
        "schema_revision": manifest.schema_revision,
        "wrapped_by": manifest.wrapped_by if isinstance(manifest.wrapped_by, str) else "passphrase",
        "rows": {table.name: table.rows for table in manifest.tables},
        "blobs": manifest.blobs.count,
        "blob_bytes": manifest.blobs.bytes,
        "missing_blobs": manifest.blobs.missing,
    }
