"""`dermadetect worker`: the background work of all tenants."""

from cli.output import tell
from cli.run import run, settings


def worker() -> None:
    """Do the tenants' background work until SIGTERM or Ctrl-C.

    Any number of workers may run; a gateway serves without one, but what is due waits. The present job is
    finished before the command ends.

      dermadetect worker
    """
    run(_work)


async def _work() -> None:
    from cli.servers import until_stopped
    from core.telemetry import configure_logging
    from gateway.assembly import assemble, background_worker, disassemble
    from tenants.background.bells import Bells

    configured = settings()
    configure_logging(configured.log_level)
    parts = assemble(configured)
    try:
        with until_stopped() as stop:
            parts[Bells].start()
            tell("Working until Ctrl-C.")
            await background_worker(parts).run(stop)
    finally:
        await disassemble(parts)
