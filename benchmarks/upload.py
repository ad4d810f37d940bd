"""What the whole gateway costs an upload: photographs of 3 and 12 megapixels, as base64 in JSON and as the body itself.

Ours is the complete application: a verified token, limits, the encrypted spool, decoding in a jail, metadata removed,
quality measured, a thumbnail, of the larger photograph a display copy of 2,016 pixels, the blobs synced to a disk and
four transactions. The baselines (`benchmarks/bare_upload.py`) store the bytes in a file without syncing it; the second
also has Pillow decode the whole photograph and make a thumbnail, in threads. Each is one uvicorn process; four
keep-alive connections upload twelve different photographs a round, or four of the larger. At the end longer photographs are uploaded over eight connections, and the peak memory of the gateway's
process is read.
"""

import base64
import io
import json
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
from PIL import Image, ImageChops

from benchmarks.load import post_request, send_all
from benchmarks.measure import Result, compare, medians
from benchmarks.request import environment_of
from benchmarks.serve import serving
from benchmarks.stage import CASE, Visitor, open_stage
from core.ai_contract import MAX_IMAGES

SIZE, PHONE_SIZE = (2000, 1500), (4032, 3024)
LONG_SIZES = ((4000, 3000), (7900, 5900))
CONNECTIONS, CONNECTIONS_OF_LONG = 4, 8
_START_S = 30.0
_DENSITY = slice(14, 18)  # in the JFIF header: what makes each photograph another


def _photograph(size: tuple[int, int]) -> bytes:
    """A grainy, skin-coloured surface as a camera would store it: 1.2 MB for 3 megapixels."""
    few = (size[0] // 2, size[1] // 2)
    grain = Image.frombytes("L", few, random.Random(1).randbytes(few[0] * few[1])).resize(size)
    skin = ImageChops.add(Image.new("RGB", size, (205, 155, 125)), Image.merge("RGB", [grain] * 3), 2, -32)
    file = io.BytesIO()
    skin.save(file, "JPEG", quality=88)
    return file.getvalue()


class _Uploads:
    """Requests with photographs that differ, so that none is there already."""

    def __init__(self) -> None:
        self._made = 0

    def raw(self, photograph: bytes, path: str, host: str, **headers: str) -> bytes:
        return post_request(path, host, self._another(photograph), "image/jpeg", **headers)

    def base64(self, photograph: bytes, path: str, host: str, **headers: str) -> bytes:
        data = base64.b64encode(self._another(photograph)).decode()
        body = json.dumps({"data": data, "media_type": "image/jpeg", "view": "close_up"}).encode()
        return post_request(path, host, body, **headers)

    def _another(self, photograph: bytes) -> bytes:
        self._made += 1
        changed = bytearray(photograph)
        changed[_DENSITY] = self._made.to_bytes(4, "big")
        return bytes(changed)


async def _new_case(port: int, visitor: Visitor) -> str:
    """The path of a new case's photographs. Waits for the server to start."""
    async with httpx.AsyncClient(timeout=_START_S, trust_env=False) as http:
        answer = await http.post(
            f"http://127.0.0.1:{port}/v1/cases",
            json=CASE.model_dump(mode="json"),
            headers={"Host": visitor.host, "Authorization": f"Bearer {visitor.token}"},
        )
    answer.raise_for_status()
    return f"/v1/cases/{answer.json()['id']}/images"


def _peak_mib(pid: int) -> float:
    """The most memory that a process has had (Linux: `VmHWM`)."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def _workers_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def run() -> list[Result]:
    photograph, phone, *long = [_photograph(size) for size in (SIZE, PHONE_SIZE, *LONG_SIZES)]
    # By the name of their rows: photograph, its size in pixels, how many are uploaded in a round
    photographs = {"": (photograph, SIZE, MAX_IMAGES), ".phone": (phone, PHONE_SIZE, CONNECTIONS)}
    uploads = _Uploads()
    async with open_stage() as stage:
        visitor = await stage.visitor("tenant")
        bare_directory = stage.directory / "bare"
        bare_directory.mkdir()
        environment = environment_of(stage, visitor) | {"BARE_DIRECTORY": str(bare_directory)}
        token = f"Bearer {visitor.token}"
        with (
            serving("gateway", environment, stage.directory / "gateway.log") as gateway,
            serving("bare-upload", environment, stage.directory / "bare.log") as bare,
        ):

            async def to_gateway(form: str, photograph: bytes, count: int, connections: int) -> float:
                path = await _new_case(gateway.port, visitor)
                make, query = (uploads.raw, "?view=close_up") if form == "raw" else (uploads.base64, "")
                requests = [
                    make(photograph, path + query, visitor.host, authorization=token) for _ in range(count)
                ]
                return await send_all(gateway.port, requests, connections=connections)

            def ours(form: str, photograph: bytes, count: int) -> Callable[[], Awaitable[float]]:
                async def measure() -> float:
                    return count / await to_gateway(form, photograph, count, CONNECTIONS)

                return measure

            def plain(form: str, photograph: bytes, count: int, query: str) -> Callable[[], Awaitable[float]]:
                make = uploads.raw if form == "raw" else uploads.base64

                async def measure() -> float:
                    requests = [make(photograph, f"/{form}{query}", "localhost") for _ in range(count)]
                    return count / await send_all(bare.port, requests, connections=CONNECTIONS)

                return measure

            await _new_case(gateway.port, visitor)  # both have started
            async with httpx.AsyncClient(timeout=_START_S, trust_env=False) as http:
                await http.get(f"http://127.0.0.1:{bare.port}/")
            contenders = {}
            for name, (sent, _, count) in photographs.items():
                for form in ("base64", "raw"):
                    contenders[f"{form}{name}"] = ours(form, sent, count)
                    contenders[f"{form}{name}.stored"] = plain(form, sent, count, "")
                    contenders[f"{form}{name}.thumbnail"] = plain(form, sent, count, "?thumbnail=true")
            seen = await medians(contenders)
            peaks, workers = [], []
            for each in (photograph, *long):
                for form in ("base64", "raw"):
                    await to_gateway(form, each, CONNECTIONS_OF_LONG, CONNECTIONS_OF_LONG)
                peaks.append(_peak_mib(gateway.pid))
                workers.append(max(_peak_mib(worker) for worker in _workers_of(gateway.pid)))
    what = "upload of {:.1f} MB ({} × {}) {}, against a bare endpoint that {}"
    forms = {"base64": "as base64 in JSON", "raw": "as the body itself"}
    does = {
        "stored": "stores the bytes (for scale, without a target)",
        "thumbnail": "stores the bytes, decodes and makes a thumbnail",
    }
    rows = [
        compare(
            f"upload.{form}{name}.{baseline}",
            what.format(len(sent) / 1e6, *size, forms[form], does[baseline]),
            ours=seen[f"{form}{name}"],
            baseline=seen[f"{form}{name}.{baseline}"],
            unit="uploads/s",
            target=0.85 if baseline == "thumbnail" else 0,
        )
        for name, (sent, size, _) in photographs.items()
        for form in forms
        for baseline in does
    ]
    memory = compare(
        "upload.memory",
        f"peak memory of the gateway's process after eight uploads at once of {len(long[1]) / 1e6:.0f} MB, against "
        f"after {len(photograph) / 1e6:.1f} MB (after {len(long[0]) / 1e6:.0f} MB: {peaks[1]:.0f}); of a worker, which "
        f"holds one photograph: {' → '.join(f'{worker:.0f}' for worker in workers)}",
        ours=peaks[2],
        baseline=peaks[0],
        unit="MiB",
        target=1.1,
        better="lower",
    )
    return [*rows, memory]
