"""Packs contain each window once, within the token budget, longest first."""

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.inference.batching import TokenBudget, packs

LENGTHS = st.lists(st.integers(1, 512), max_size=200)


@given(lengths=LENGTHS, budget=st.integers(1, 4_096))
def test_every_window_is_in_one_pack_within_the_budget_and_longest_first(lengths: list[int], budget: int) -> None:
    lengths_W = np.array(lengths, np.int32)
    found = [pack.tolist() for pack in packs(lengths_W=lengths_W, budget=TokenBudget(tokens=budget))]
    order = [window for pack in found for window in pack]
    assert sorted(order) == list(range(len(lengths)))
    assert [lengths[window] for window in order] == sorted(lengths, reverse=True)
    for pack in found:
        assert pack
        assert len(pack) == 1 or sum(lengths[window] for window in pack) <= budget


@given(lengths=LENGTHS, budget=st.integers(1, 4_096))
def test_a_pack_ends_only_where_the_next_window_does_not_fit(lengths: list[int], budget: int) -> None:
    found = [pack.tolist() for pack in packs(lengths_W=np.array(lengths, np.int32), budget=TokenBudget(tokens=budget))]
    for pack, following in itertools.pairwise(found):
        assert sum(lengths[window] for window in pack) + lengths[following[0]] > budget


@given(lengths=LENGTHS)
def test_windows_of_one_length_keep_their_order(lengths: list[int]) -> None:
    same = np.full(len(lengths), 7)
    assert [window for pack in packs(lengths_W=same, budget=TokenBudget(tokens=20)) for window in pack] == list(
        range(len(lengths))
    )


def test_many_tokens_do_not_overflow_the_sum_of_lengths() -> None:
    lengths_W = np.full(5, 2**30, np.int32)
    assert [len(pack) for pack in packs(lengths_W=lengths_W, budget=TokenBudget(tokens=2**31))] == [2, 2, 1]


def test_a_budget_grows_while_passes_get_faster_and_stays_where_they_do_not() -> None:
    budget = TokenBudget(tokens=1_000, most=64_000)
    rates = {1_000: 1.0, 2_000: 1.5, 4_000: 1.9, 8_000: 1.91}
    for _ in range(8):
        budget.took(tokens=budget.tokens, seconds=budget.tokens / rates[budget.tokens])
    assert budget.tokens == 4_000


def test_passes_that_are_not_full_say_nothing_about_a_budget() -> None:
    budget = TokenBudget(tokens=1_000, most=64_000)
    budget.took(tokens=100, seconds=0.001)
    assert budget.tokens == 1_000


def test_a_fixed_budget_stays() -> None:
    budget = TokenBudget(tokens=1_000)
    budget.took(tokens=1_000, seconds=0.1)
    assert budget.tokens == 1_000


def test_a_budget_is_halved_where_memory_runs_out_and_grows_no_more() -> None:
    budget = TokenBudget(tokens=1_000, most=64_000)
    budget.took(tokens=1_000, seconds=1.0)
    budget.refused()
    budget.took(tokens=1_000, seconds=0.1)
    assert budget.tokens == 1_000
    budget.refused()
    assert budget.tokens == 500
