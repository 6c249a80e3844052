"""Leaves: that each stands for one row, with all its columns."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism_vault_agent.proof.leaf import leaf_data, row_hash
from prism_vault_agent.proof.merkle import leaf_hash

ROWS = st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.binary(max_size=20))


def test_the_data_of_a_leaf_is_that_of_the_protocol():
    """Number and time take 8 bytes each, big endian, and the event's bytes follow as they are."""
    assert leaf_data(1, 1_767_225_600_000, b"{}") == bytes.fromhex("0000000000000001 0000019b76daa800") + b"{}"


@given(ROWS, ROWS)
def test_two_rows_never_have_the_same_leaf(one: tuple[int, int, bytes], other: tuple[int, int, bytes]) -> None:
    """Rows that differ in any column have different data."""
    assert (leaf_data(*one) == leaf_data(*other)) == (one == other)


@given(ROWS)
def test_the_short_way_to_the_hash_of_a_leaf_is_that_of_the_tree(row: tuple[int, int, bytes]) -> None:
    """A row's hash is that of a leaf (RFC 6962, section 2.1) over the row's data."""
    assert row_hash(*row) == leaf_hash(leaf_data(*row))


@pytest.mark.parametrize(("n", "received_at"), [(-1, 0), (0, -1), (2**64, 0)])
def test_a_number_that_no_row_has_is_refused(n, received_at):
    """What 8 bytes cannot hold is an error, not another row's leaf."""
    with pytest.raises(struct.error):
        leaf_data(n, received_at, b"")
