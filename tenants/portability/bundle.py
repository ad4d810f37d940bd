"""A tenant as a directory of files, each named with its hash.

    manifest.json     what this is: the tenant, its schema's revision, and size and SHA-256 of every other file
    control.json      settings, quotas, identity provider, keys
    tables/NAME.copy  a table's rows, in PostgreSQL's COPY text format
    blobs.jsonl       one line per blob: name, size, SHA-256, media type
    blobs/NAME        the blobs

Nothing is compressed, so nothing grows when it is read.
"""

import hashlib
import os
import stat
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from core.blobs import check_name
from core.crypto import MasterKey
from tenants.portability.errors import BundleRefused

MANIFEST, CONTROL, BLOB_INDEX = "manifest.json", "control.json", "blobs.jsonl"
CHUNK = 1 << 20
MOST_DOCUMENT = 10_000_000
MOST_LINE = 2_000

M = TypeVar("M", bound=BaseModel)
Identifier = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class FileEntry(_Strict):
    """Size in bytes and hash of a file."""

    size: int
    sha256: Sha256


class Table(FileEntry):
    """The columns are in the order of the file's fields."""

    name: Identifier
    columns: list[Identifier]
    rows: int


class Blob(FileEntry):
    name: str
    media_type: Annotated[str, StringConstraints(max_length=200)]


class Blobs(FileEntry):
    """The index's size and hash, and what all blobs come to. `missing` of the tenant's rows name a blob that the store
    had lost."""

    count: int
    bytes: int
    missing: int


class TenantEntry(_Strict):
    key: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9]{0,39}$")]
    slug: str
    name: str
    plan: str
    home_host: str


class Scrypt(_Strict):
    """How the passphrase makes the key that wraps the bundle's keys (RFC 7914): N = 2^17, r = 8, p = 1."""

    salt: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]


class Manifest(_Strict):
    """`tables` are in an order that satisfies their foreign keys. `wrapped_by` names the platform's master key, or
    says how a passphrase opens the keys."""

    format: Literal["dermadetect-tenant/1"]
    created_at: str
    tenant: TenantEntry
    schema_revision: str
    wrapped_by: str | Scrypt
    tables: list[Table]
    blobs: Blobs
    control: FileEntry


class Key(_Strict):
    """One of the tenant's keys, wrapped as the manifest says; what it is for is `auth`'s business."""

    id: UUID
    purpose: str
    active_from: datetime
    retires_at: datetime | None
    private_wrapped: Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{2})+$")]
    public: dict[str, Any]


class Connection(_Strict):
    """One of the tenant's identity providers; what the columns mean is `auth`'s business. `particulars` are those of
    its kind."""

    id: UUID
    kind: str
    columns: dict[str, Any]
    particulars: dict[str, Any]


class Control(_Strict):
    """What the control schema knows of a tenant. `hosts` are for people to read: a restored tenant has others."""

    ai_model: str | None
    image_links: str
    hosts: list[str]
    quotas: dict[str, int]
    connections: list[Connection]
    keys: list[Key]


def passphrase_key(passphrase: str, scrypt: Scrypt) -> MasterKey:
    """The key that stands for the platform's master key in a bundle that leaves the platform."""
    return MasterKey(
        hashlib.scrypt(
            passphrase.encode(),
            salt=bytes.fromhex(scrypt.salt),
            n=1 << 17,
            r=8,
            p=1,
            maxmem=1 << 28,
            dklen=32,
        )
    )


class HashedFile:
    """A new file that knows its size and hash."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("xb")
        self._digest = hashlib.sha256()
        self._size = 0

    async def write(self, data: bytes) -> None:
        """Asynchronous because the driver wants it so; writing to a local file does not wait."""
        self._file.write(data)
        self._digest.update(data)
        self._size += len(data)

    def finish(self) -> FileEntry:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return FileEntry(size=self._size, sha256=self._digest.hexdigest())


def open_plain(path: Path) -> BinaryIO:
    """Open a file of a bundle for reading. Raises `BundleRefused` for what is not a plain file, links included."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise BundleRefused(f"{path.name} cannot be opened: {error.strerror}.") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise BundleRefused(f"{path.name} is not a plain file.")
    return os.fdopen(descriptor, "rb")


def chunks(path: Path) -> Iterator[bytes]:
    """A file's content, a mebibyte at a time."""
    with open_plain(path) as file:
        while chunk := file.read(CHUNK):
            yield chunk


def read_manifest(bundle: Path) -> tuple[Manifest, str]:
    """The manifest and its SHA-256, which names the bundle. Raises `BundleRefused`."""
    content = _small(bundle / MANIFEST)
    return _parse(Manifest, MANIFEST, content), hashlib.sha256(content).hexdigest()


def read_control(bundle: Path) -> Control:
    """What is to be known of the tenant besides its rows. Raises `BundleRefused`."""
    return _parse(Control, CONTROL, _small(bundle / CONTROL))


def _small(path: Path) -> bytes:
    with open_plain(path) as file:
        content = file.read(MOST_DOCUMENT + 1)
    if len(content) > MOST_DOCUMENT:
        raise BundleRefused(f"{path.name} is larger than any of ours.")
    return content


def _parse(kind: type[M], name: str, content: bytes) -> M:
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise BundleRefused(f"{name}: {'.'.join(map(str, first['loc']))}: {first['msg']}.") from None


def read_blobs(bundle: Path) -> Iterator[Blob]:
    """The index of blobs, in order of their names. Raises `BundleRefused`."""
    last = ""
    with open_plain(bundle / BLOB_INDEX) as file:
        while line := file.readline(MOST_LINE):
            try:
                blob = Blob.model_validate_json(line)
                check_name(blob.name)
            except ValueError:  # pydantic's own is one
                raise BundleRefused(f"{BLOB_INDEX} has a line that describes no blob of ours.") from None
            if blob.name <= last:
                raise BundleRefused(f"{BLOB_INDEX} names {blob.name} twice or out of order.")
            last = blob.name
            yield blob


def verify(bundle: Path) -> tuple[Manifest, str]:
    """Read every file and compare it with its hash; nothing may be missing and nothing more be there. Memory is bounded.
    Returns what `read_manifest` does. Raises `BundleRefused`, which names the file."""
    manifest, digest = read_manifest(bundle)
    names = [table.name for table in manifest.tables]
    if len(set(names)) < len(names):
        raise BundleRefused(f"{MANIFEST} names a table twice.")
    _check(bundle, CONTROL, manifest.control)
    _check(bundle, BLOB_INDEX, manifest.blobs)
    for table in manifest.tables:
        _check(bundle, f"tables/{table.name}.copy", table)
    count = size = 0
    for blob in read_blobs(bundle):
        _check(bundle, f"blobs/{blob.name}", blob)
        count, size = count + 1, size + blob.size
    if (count, size) != (manifest.blobs.count, manifest.blobs.bytes):
        raise BundleRefused(f"{BLOB_INDEX} does not come to what {MANIFEST} says.")
    there = sum(
        len(entries) + len([d for d in folders if Path(at, d).is_symlink()])
        for at, folders, entries in os.walk(bundle)
    )
    if there != len((MANIFEST, CONTROL, BLOB_INDEX)) + len(names) + count:
        raise BundleRefused("There are files that no list names.")
    return manifest, digest


def _check(bundle: Path, name: str, entry: FileEntry) -> None:
    path = bundle
    for part in Path(name).parts[:-1]:
        path = path / part
        if path.is_symlink():
            raise BundleRefused(f"{name} lies behind a link.")
    digest, size = hashlib.sha256(), 0
    for chunk in chunks(bundle / name):
        digest.update(chunk)
        size += len(chunk)
        if size > entry.size:
            break
    if size != entry.size or digest.hexdigest() != entry.sha256:
        raise BundleRefused(f"{name} is not the file that was exported.")
