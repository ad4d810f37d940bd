"""What was sealed for one purpose opens for no other."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.crypto import CannotOpen, MasterKey, new_key, seal, unseal


@given(st.binary(max_size=2000), st.text(max_size=50))
def test_seal_and_unseal_are_inverse(plaintext: bytes, context: str) -> None:
    key = new_key()
    sealed = seal(key, plaintext, context)
    assert len(sealed) == len(plaintext) + 29
    assert unseal(key, sealed, context) == plaintext


@given(st.binary(min_size=1, max_size=100), st.data())
def test_any_changed_byte_is_noticed(plaintext: bytes, data: st.DataObject) -> None:
    key = new_key()
    sealed = bytearray(seal(key, plaintext, "c"))
    sealed[data.draw(st.integers(0, len(sealed) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(CannotOpen):
        unseal(key, bytes(sealed), "c")


def test_a_wrapped_key_opens_for_its_tenant_and_purpose_alone() -> None:
    master = MasterKey(new_key())
    wrapped = master.wrap("acme", "token", b"secret")
    assert master.unwrap("acme", "token", wrapped) == b"secret"
    for tenant, purpose in (("globex", "token"), ("acme", "data"), ("acme|token", "")):
        with pytest.raises(CannotOpen):
            master.unwrap(tenant, purpose, wrapped)
    with pytest.raises(CannotOpen):
        MasterKey(new_key()).unwrap("acme", "token", wrapped)


def test_the_master_key_does_not_show_itself() -> None:
    secret = new_key()
    master = MasterKey(secret)
    assert secret.hex() not in repr(master)
    assert str(secret) not in repr(master)
    assert master.kek_id in repr(master)
