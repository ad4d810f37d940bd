"""Work on hostile input, in processes that can be stopped.

A thread that decodes a crafted document cannot be interrupted; a process can be killed. Each call runs in
a spawned worker that has lost the gateway's environment (and so its secrets), may use a bounded amount of
memory, and is killed at its time limit. Pebble runs the pool, because the standard library's executor
cannot kill one task's worker.
"""

import asyncio
import contextlib
import ctypes
import importlib
import multiprocessing
import os
import sys
from collections.abc import Callable
from concurrent.futures import TimeoutError as FutureTimeout
from typing import ParamSpec, TypeVar

from pebble import ProcessExpired, ProcessPool

from core.problems import Unavailable

P = ParamSpec("P")
T = TypeVar("T")


class JailTimeout(Exception):
    """The work took longer than it may; its process was killed."""


class JailCrash(Exception):
    """The worker died (out of memory, a signal) before it answered."""


# glibc's mallopt (malloc.h): memory up to this is kept for the next task. Given back after each and asked for again,
# page by page, it took a quarter of the processor time of decoding a photograph.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEPT_BYTES, _LONGEST_KEPT_BYTES = 64 * 1024**2, 32 * 1024**2

# Three of the pool's threads take part in each call. A thread that waits for the interpreter asks for it only when
# nobody let go of it for this long, and an event loop lets go, and takes it back before anybody woke, several times in
# the five milliseconds that are usual: beside a loop that never idles a call took 1.3 s in the median (1.4 ms now).
_SWITCH_S = 0.0001


def _enter(memory_bytes: int, preload: tuple[str, ...]) -> None:
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # NumPy's would start a thread for each processor, for nothing
    for module in preload:
        importlib.import_module(module)
    with contextlib.suppress(OSError, AttributeError):  # another C library
        libc = ctypes.CDLL(None)
        libc.mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
        libc.mallopt(_MMAP_THRESHOLD, _LONGEST_KEPT_BYTES)
    for name in list(os.environ):
        if name.startswith(("DERMADETECT_", "AZURE_", "PG")):
            del os.environ[name]
    # No worker verifies a server. xmlsec would load the machine's certificate authorities for each assertion that it
    # decrypts, which takes four times as long as all the rest.
    os.environ |= {"SSL_CERT_FILE": os.devnull, "SSL_CERT_DIR": os.devnull}
    with contextlib.suppress(ImportError, ValueError, OSError):  # resource is POSIX only
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))


def _nothing() -> None:
    """A task for workers that are only to start."""


class Jail:
    """A bounded pool of killable workers.

    `workers` is the number of processes, `memory_bytes` the address space each may use, `preload` the modules
    each imports before its first task, so that a task's time limit is not spent on imports. Workers start with
    `warm` or the first call and are replaced when killed. The process's threads take turns more often from then on.
    """

    def __init__(
        self, workers: int = 2, memory_bytes: int = 2 * 1024**3, preload: tuple[str, ...] = ()
    ) -> None:
        sys.setswitchinterval(min(_SWITCH_S, sys.getswitchinterval()))
        self._waiting = 0
        self._most_waiting = 8 * workers
        self._pool = ProcessPool(
            max_workers=workers,
            max_tasks=500,  # a fresh process now and then bounds what C libraries leak
            initializer=_enter,
            initargs=(memory_bytes, preload),
            context=multiprocessing.get_context("spawn"),
        )

    def warm(self) -> None:
        """Start the workers without waiting for them."""
        self._pool.schedule(_nothing)

    async def run(self, timeout: float, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `function(*args, **kwargs)`, an importable function with picklable arguments and result.

        `timeout` is in seconds from the moment a worker takes it up. Raises `JailTimeout`, `JailCrash`,
        `Unavailable` when too much is waiting already, or what the function raised (which must be picklable).
        Cancelling the caller kills the work.
        """
        if self._waiting >= self._most_waiting:
            raise Unavailable("Too many documents are being checked at the moment; try again.", retry_after=2)
        self._waiting += 1
        future = self._pool.schedule(function, args=args, kwargs=kwargs, timeout=timeout)
        try:
            result: T = await asyncio.wrap_future(future)
        except FutureTimeout as error:
            raise JailTimeout(f"stopped after {timeout:g} s") from error
        except ProcessExpired as error:
            raise JailCrash("the worker process died") from error
        except asyncio.CancelledError:
            future.cancel()  # type: ignore[no-untyped-call]  # kills the worker
            raise
        finally:
            self._waiting -= 1
        return result

    def close(self) -> None:
        """Kill all workers and wait until they are gone."""
        self._pool.stop()  # type: ignore[no-untyped-call]
        self._pool.join()
