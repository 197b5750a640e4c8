"""Lengths of windows in; proof that packs hold each once, within the budget, longest first, out."""

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.batching import packs

LENGTHS = st.lists(st.integers(1, 512), max_size=200)


@given(lengths=LENGTHS, budget=st.integers(1, 4_096))
def test_every_window_is_in_one_pack_within_the_budget_and_longest_first(lengths: list[int], budget: int) -> None:
    lengths_W = np.array(lengths, np.int32)
    found = [pack.tolist() for pack in packs(lengths_W=lengths_W, budget=budget)]
    order = [window for pack in found for window in pack]
    assert sorted(order) == list(range(len(lengths)))
    assert [lengths[window] for window in order] == sorted(lengths, reverse=True)
    for pack in found:
        assert pack
        assert len(pack) == 1 or sum(lengths[window] for window in pack) <= budget


@given(lengths=LENGTHS, budget=st.integers(1, 4_096))
def test_a_pack_ends_only_where_the_next_window_does_not_fit(lengths: list[int], budget: int) -> None:
    found = [pack.tolist() for pack in packs(lengths_W=np.array(lengths, np.int32), budget=budget)]
    for pack, following in itertools.pairwise(found):
        assert sum(lengths[window] for window in pack) + lengths[following[0]] > budget


@given(lengths=LENGTHS)
def test_windows_of_one_length_keep_their_order(lengths: list[int]) -> None:
    same = np.full(len(lengths), 7)
    assert [window for pack in packs(lengths_W=same, budget=20) for window in pack] == list(range(len(lengths)))


def test_many_tokens_do_not_overflow_the_sum_of_lengths() -> None:
    lengths_W = np.full(5, 2**30, np.int32)
    assert [len(pack) for pack in packs(lengths_W=lengths_W, budget=2**31)] == [2, 2, 1]
