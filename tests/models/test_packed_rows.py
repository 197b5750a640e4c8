"""Sequences laid into rows of one width: every token has its slot, and rows go in pieces of few sizes."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from models.boundary import Tokens
from models.packed_rows import pack_rows, power_of_two, powers_up_to, row_pieces
from tests.models.flat import rows


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 32), min_size=1, max_size=40))
def test_every_token_has_a_slot_of_its_own_beside_its_neighbours(lengths: list[int]) -> None:
    tokens = Tokens(np.arange(sum(lengths), dtype=np.int32), np.cumsum([0, *lengths]).astype(np.int32))
    packed = pack_rows(tokens=tokens, width=32)
    spread = packed.spread(tokens.input_ids_T, fill=-1)
    assert spread.shape == (packed.rows, 32)
    assert sorted(spread[spread >= 0].tolist()) == tokens.input_ids_T.tolist()
    for row in rows(tokens):
        slots = packed.slot_T[row]
        assert (np.diff(slots) == 1).all()
        assert slots[0] // 32 == slots[-1] // 32
        assert len(set(packed.sequence_X[slots])) == 1
    # Any two rows together hold more than one row's worth, so at most twice the rows that the tokens need.
    assert packed.rows <= max(1, 2 * -(-sum(lengths) // 32))


def test_rows_go_in_pieces_of_few_sizes() -> None:
    assert row_pieces(rows=23, sizes=powers_up_to(8)) == [(0, 8), (8, 8), (16, 4), (20, 2), (22, 1)]
    assert [power_of_two(size) for size in (0, 1, 2, 3, 512, 513)] == [1, 1, 2, 4, 512, 1024]
    assert power_of_two(3, least=16) == 16
