"""When a token ends, read from what another implementation of CBOR has written."""

import base64
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.network.blocks.token_expiry import expires_ms

BEGAN_S, LIFE_MIN = 1_700_000_000, 1440
ENDS_MS = (BEGAN_S + LIFE_MIN * 60) * 1000


def token(**members: Any) -> str:
    said = {
        name.encode(): value for name, value in {"v": 2, "t": BEGAN_S, "ttl": LIFE_MIN, **members}.items()
    }
    return base64.urlsafe_b64encode(cbor2.dumps(said)).decode()


RIGHTS = {b"chan": {b"x" * 300: 255}, b"grp": {}, b"usr": {}}


def test_a_token_as_the_network_makes_it() -> None:
    assert expires_ms(token(res=RIGHTS, pat={}, meta={}, uuid=b"u", sig=bytes(32))) == ENDS_MS


@given(
    st.recursive(
        st.integers() | st.floats() | st.binary() | st.text() | st.booleans() | st.none(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=12,
    )
)
def test_whatever_else_it_has(value: Any) -> None:
    said = {b"other": value, b"t": BEGAN_S, b"ttl": LIFE_MIN}
    made = base64.urlsafe_b64encode(cbor2.dumps(said)).decode()
    assert expires_ms(made) in (ENDS_MS, None)
    assert expires_ms(token(other=3)) == ENDS_MS


@pytest.mark.parametrize("text", ["", "no token", "qEF2AkF0", "%%%", "é", "gA==", "n/////8="])
def test_one_that_does_not_say_when_it_ends(text: str) -> None:
    assert expires_ms(text) is None


@given(st.binary(max_size=60))
def test_any_bytes(data: bytes) -> None:
    found = expires_ms(base64.urlsafe_b64encode(data).decode())
    assert found is None or isinstance(found, int)
