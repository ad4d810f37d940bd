"""Uploads on their way: readable to who has the key, gone when they are done with."""

import asyncio
import hashlib
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.jail import Jail
from core.spool import SealedFile, Spool, SpoolFull

DATA = b"where it was taken " * 80_000  # more than is written at a time


async def written(spool: Spool, data: bytes = DATA) -> SealedFile:
    """The sealed file of an upload that is over, put back where it was."""
    async with spool.open() as file:
        for at in range(0, len(data), 100_003):
            await file.write(data[at : at + 100_003])
        await file.finish()
        on_disk = file.sealed.path.read_bytes()
    file.sealed.path.write_bytes(on_disk)
    return file.sealed


async def test_a_file_lies_encrypted_and_goes_with_its_upload(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 10**7)
    async with spool.open() as file, spool.open() as other:
        for each in (file, other):
            for at in range(0, len(DATA), 1_001):
                await each.write(DATA[at : at + 1_001])
            await each.finish()
        assert (file.size, file.sha256) == (len(DATA), hashlib.sha256(DATA).hexdigest())
        assert file.sealed.read() == other.sealed.read() == DATA
        parts: list[range | bytes] = [b"before ", range(5, len(DATA) - 3), b"", b" after", range(7, 7)]
        kept = b"before " + DATA[5:-3] + b" after"
        assert await file.read(parts) == kept
        assert b"".join([chunk async for chunk in file.chunks(parts)]) == kept
        lying, another = (path.read_bytes() for path in tmp_path.iterdir())
        assert len(lying) == len(DATA)
        assert lying != another, "the keys are their own"
        assert b"where" not in lying
        assert all(path.stat().st_mode & 0o777 == 0o600 for path in tmp_path.iterdir())
        assert file.sealed.key.hex() not in repr(file.sealed)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> SealedFile:
    return asyncio.run(written(Spool(tmp_path_factory.mktemp("spool"), 10**7)))


@given(st.integers(0, len(DATA)), st.integers(0, len(DATA)))
def test_any_part_can_be_read(sealed: SealedFile, start: int, length: int) -> None:
    assert sealed.read(start, start + length) == DATA[start : start + length]
    assert sealed.read(start) == DATA[start:]


async def test_a_file_that_was_cut_short_is_not_taken_for_whole(tmp_path: Path) -> None:
    lying = await written(Spool(tmp_path, 10**7))
    os.truncate(lying.path, len(DATA) - 1)
    assert lying.join([range(2, len(DATA) - 1)]) == DATA[2:-1]
    with pytest.raises(OSError, match="shorter"):
        lying.join([range(2, len(DATA))])


async def test_a_worker_reads_what_it_is_given(tmp_path: Path) -> None:
    jail = Jail(workers=1)
    try:
        async with Spool(tmp_path, 10**7).open() as file:
            await file.write(DATA)
            await file.finish()
            assert await jail.run(30, SealedFile.read, file.sealed, 3, 9) == DATA[3:9]
    finally:
        jail.close()


async def test_an_upload_given_up_while_it_writes_leaves_nothing(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 10**8)

    async def endless() -> None:
        async with spool.open() as file:
            while True:
                await file.write(bytes(300_000))

    for _ in range(20):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(endless(), 0.01)
    assert list(tmp_path.iterdir()) == []
    async with spool.open() as file:
        await file.write(bytes(10**8))  # all room has been given back


async def test_no_more_than_there_is_room_for(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 1_000_000)
    async with spool.open() as first, spool.open() as second:
        await first.write(bytes(600_000))
        with pytest.raises(SpoolFull):
            await second.write(bytes(400_001))
        await second.write(bytes(400_000))
    async with spool.open() as third:
        await third.write(bytes(1_000_000))
    with pytest.raises(SpoolFull):
        async with Spool(tmp_path / "away", 1_000_000).open():
            pass


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
async def test_a_full_disk_is_told(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 10**7)
    async with spool.open() as file:
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, file._file.fileno())
        os.close(full)
        with pytest.raises(SpoolFull):
            await file.write(DATA)
    assert list(tmp_path.iterdir()) == []


async def test_what_a_crash_left_is_cleared_and_nothing_else(tmp_path: Path) -> None:
    program = f"""
        import asyncio, os, pathlib
        from core.spool import Spool
        async def die():
            async with Spool(pathlib.Path({str(tmp_path)!r}), 10**7).open() as file:
                await file.write(b"x" * 2 * 10**6)
                os.kill(os.getpid(), 9)
        asyncio.run(die())
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=False)
    assert len(list(tmp_path.iterdir())) == 1
    (tmp_path / "another's").touch()
    spool = Spool(tmp_path, 10**7)
    async with spool.open() as file:
        await file.write(DATA)
        await file.finish()
        Spool(tmp_path, 10**7).clear()
        assert {path.name for path in tmp_path.iterdir()} == {"another's", file.sealed.path.name}
        assert file.sealed.read() == DATA
