"""The master keys of the settings: the current one, which wraps, and the one before it, whose keys still open.

A master key is given as it is, or made at random and wrapped by a key in a vault. RSA-OAEP, by which a vault wraps, binds
nothing to what it belongs to, and anybody with the public key can wrap by it. So the vault wraps the master key alone, and
the master key wraps all others and binds them to tenant and purpose (`core.crypto`). A process asks the vault when it first
opens a key, and never again.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from sqlalchemy import ColumnElement, select
from sqlalchemy.dialects.postgresql import insert

from auth.keys.errors import MasterKeyUnknown
from auth.keys.models import VaultedMasterKey
from core import crypto
from core.crypto import CannotOpen, MasterKey
from core.database import ControlSession

OpenControl = Callable[[], AbstractAsyncContextManager[ControlSession]]


class Vault(Protocol):
    """A key in a vault: `core.azure_keys.VaultKey`. Its methods raise `core.problems.Unavailable`."""

    identifier: str

    async def wrap(self, secret: bytes) -> bytes: ...
    async def unwrap(self, wrapped: bytes) -> bytes: ...
    async def aclose(self) -> None: ...


class MasterKeys:
    """`sources` are the current one and those before it; `control` opens a transaction on the control tables."""

    def __init__(self, sources: Sequence[MasterKey | Vault], control: OpenControl) -> None:
        self._current = sources[0]
        self._control = control
        self._opened = {each.kek_id: each for each in sources if isinstance(each, MasterKey)}
        self._vaults = {each.identifier: each for each in sources if not isinstance(each, MasterKey)}
        self._opening: dict[str, asyncio.Task[MasterKey]] = {}

    async def named(self, kek_id: str) -> MasterKey:
        """The one that has wrapped something. Raises `MasterKeyUnknown`, `CannotOpen`, and `Unavailable` while the
        vault is away."""
        if kek_id not in self._opened:
            task = self._opening.get(kek_id)
            if task is None:  # all that wait for it share one question, and its failure
                task = self._opening[kek_id] = asyncio.create_task(self._open(kek_id))
                task.add_done_callback(lambda done: self._done(kek_id, done))
            self._opened[kek_id] = await asyncio.shield(task)
        return self._opened[kek_id]

    async def made(self) -> MasterKey | None:
        """The one that wraps, None where the vault's key has wrapped none yet; raises as `named` does."""
        if isinstance(self._current, MasterKey):
            return self._current
        row = await self._find(VaultedMasterKey.vault_key == self._current.identifier)
        return await self.named(row.kek_id) if row else None

    async def current(self) -> MasterKey:
        """The one that wraps; raises as `named` does."""
        current = await self.made()
        if current is None:
            raise MasterKeyUnknown(
                "The vault's key has wrapped no master key yet: `dermadetect keys rewrap`."
            )
        return current

    async def make(self) -> MasterKey:
        """The one that wraps, made first where a vault's key has wrapped none yet: for the operator's login."""
        made = await self.made()
        if made is None:
            assert not isinstance(self._current, MasterKey)
            made = MasterKey(crypto.new_key())
            wrapped = await self._current.wrap(made.secret)
            async with self._control() as session:
                await session.execute(
                    insert(VaultedMasterKey)
                    .values(vault_key=self._current.identifier, kek_id=made.kek_id, wrapped=wrapped)
                    .on_conflict_do_nothing()
                )
            made = await self.current()  # of two at once the first one's holds
        return made

    async def open_all(self) -> None:
        """Open what there is, so that no transaction waits for a vault later; raises as `named` does."""
        async with self._control() as session:
            made = select(VaultedMasterKey.kek_id).where(VaultedMasterKey.vault_key.in_(self._vaults))
            names = list(await session.scalars(made)) if self._vaults else []
        for kek_id in names:
            await self.named(kek_id)

    async def aclose(self) -> None:
        """Close the connections to vaults."""
        for vault in self._vaults.values():
            await vault.aclose()

    async def _open(self, kek_id: str) -> MasterKey:
        row = await self._find(VaultedMasterKey.kek_id == kek_id)
        vault = self._vaults.get(row.vault_key) if row else None
        if row is None or vault is None:
            raise MasterKeyUnknown(
                f"It is wrapped by the master key {kek_id}, which this process was not given "
                "(DERMADETECT_MASTER_KEY, DERMADETECT_MASTER_KEY_PREVIOUS)."
            )
        opened = MasterKey(await vault.unwrap(row.wrapped))
        if opened.kek_id != kek_id:
            raise CannotOpen("the vault's key wraps another master key than the row says")
        return opened

    async def _find(self, condition: ColumnElement[bool]) -> VaultedMasterKey | None:
        async with self._control() as session:
            row: VaultedMasterKey | None = await session.scalar(select(VaultedMasterKey).where(condition))
        return row

    def _done(self, kek_id: str, task: asyncio.Task[MasterKey]) -> None:
        del self._opening[kek_id]
        if not task.cancelled():
            task.exception()  # whoever still waits is told; where nobody does, it is no defect
