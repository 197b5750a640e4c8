"""Packs contain each window once, within the token budget, longest first."""

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.inference.batching import PASSES, TokenBudget, packs

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


def pass_at(budget: TokenBudget, rate: float, times: int = 1) -> None:
    for _ in range(times):
        budget.took(tokens=budget.tokens, seconds=budget.tokens / rate)


def test_a_budget_grows_while_passes_get_faster_and_stays_where_they_do_not() -> None:
    budget = TokenBudget(tokens=1_000, most=64_000)
    rates = {1_000: 1.0, 2_000: 1.5, 4_000: 1.9, 8_000: 1.91}
    for _ in range(8):
        pass_at(budget, rates[budget.tokens], PASSES)
    assert budget.tokens == 4_000


def test_the_largest_budget_is_given_up_too_where_it_is_no_faster() -> None:
    budget = TokenBudget(tokens=32_768, most=65_536)
    pass_at(budget, 2.0, PASSES)
    assert budget.tokens == 65_536
    pass_at(budget, 2.0, PASSES)
    assert budget.tokens == 32_768


@given(slow=st.integers(0, 2 * PASSES - 1), noise=st.lists(st.floats(0.98, 1.02), min_size=12, max_size=12))
def test_one_slow_pass_never_makes_a_budget_smaller(slow: int, noise: list[float]) -> None:
    budget = TokenBudget(tokens=32_768, most=65_536)
    for number, wobble in enumerate(noise):
        rate = {32_768: 2.0, 65_536: 2.4}[budget.tokens] * wobble
        pass_at(budget, rate / 10 if number == slow else rate)
    assert budget.tokens == 65_536


def test_passes_that_are_not_full_or_of_another_budget_say_nothing() -> None:
    budget = TokenBudget(tokens=1_000, most=64_000)
    for tokens in (100, 2_000) * PASSES:
        budget.took(tokens=tokens, seconds=0.001)
    assert budget.tokens == 1_000


def test_a_fixed_budget_stays() -> None:
    budget = TokenBudget(tokens=1_000)
    pass_at(budget, 10_000.0, 2 * PASSES)
    assert budget.tokens == 1_000


def test_a_budget_is_halved_where_memory_runs_out_and_grows_no_more() -> None:
    budget = TokenBudget(tokens=1_000, most=64_000)
    pass_at(budget, 1_000.0)
    budget.refused(tokens=1_000)
    assert budget.tokens == 500
    pass_at(budget, 10_000.0, 2 * PASSES)
    assert budget.tokens == 500


def test_two_packs_of_one_budget_that_ran_out_of_memory_together_halve_it_once() -> None:
    budget = TokenBudget(tokens=1_000)
    budget.refused(tokens=990)
    budget.refused(tokens=1_000)
    assert budget.tokens == 500


@given(lengths=LENGTHS, budget=st.integers(1, 4_096))
def test_packs_in_order_hold_windows_as_they_come(lengths: list[int], budget: int) -> None:
    found = list(packs(lengths_W=np.array(lengths, np.int32), budget=TokenBudget(tokens=budget), in_order=True))
    assert [window for pack in found for window in pack] == list(range(len(lengths)))
    assert all(len(pack) == 1 or sum(lengths[window] for window in pack) <= budget for pack in found)
