"""`dermadetect reference-ai` and `reference-idp`: small real services for development, never for production."""

from typing import Annotated, Any

import typer

from cli.output import tell
from cli.run import run

Port = Annotated[int, typer.Option(min=1, max=65535, help="Port on 127.0.0.1.")]


def reference_ai(
    port: Port = 8900,
    token: Annotated[
        str | None, typer.Option(envvar="DERMADETECT_AI_TOKEN", help="Bearer token that calls must carry.")
    ] = None,
) -> None:
    """Run the reference AI service on loopback. It is not a medical device.

    dermadetect reference-ai --port 8900
    DERMADETECT_AI_URL=http://127.0.0.1:8900 dermadetect serve --dev
    """

    async def work() -> None:
        from reference.ai.app import create_app

        await _serve(create_app(token=token), port, f"Reference AI service at http://127.0.0.1:{port}/docs")

    run(work)


def reference_idp(port: Port = 8901) -> None:
    """Run the reference SAML identity provider on loopback. It signs anyone in as anyone.

    dermadetect reference-idp --port 8901
    curl -o idp.xml http://127.0.0.1:8901/metadata
    dermadetect sso saml set acme --metadata idp.xml --role derma-physicians=physician
    curl -T sp.xml http://127.0.0.1:8901/service-providers
    """

    async def work() -> None:
        from reference.idp.app import create_app
        from reference.idp.config import IdpConfig

        config = IdpConfig(f"http://127.0.0.1:{port}")
        await _serve(create_app(config), port, f"Reference identity provider: {config.entity_id}")

    run(work)


async def _serve(app: Any, port: int, announcement: str) -> None:
    from cli.servers import listen, serving, until_stopped

    with listen("127.0.0.1", port) as listener, until_stopped() as stop:
        async with serving(app, listener):
            tell(announcement)
            await stop.wait()
