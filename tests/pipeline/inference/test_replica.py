"""Every window gets its own answer, whatever is packed with it."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.boundary import Head, HeadAsk
from pipeline.bundle import ShardTables, pack, unpack
from pipeline.inference.answers import answer_arrays, answer_shards, answers_table
from pipeline.inference.batching import TokenBudget
from pipeline.inference.child import LoadOrder
from pipeline.inference.passes import AskFor, Part
from pipeline.inference.replica import Replica, ReplicaOrder, gpu_settings
from tests.pipeline import hostile
from tests.pipeline.hostile import FULL, LABELS, LARGEST_PASS, NAN, RAISE, SEGFAULT, HostileModel
from tests.pipeline.small import TASK, only_tables, reasons, shard, windows_shard

HEAD: Head = "sequence-classification"
WINDOW = st.lists(st.integers(3, 900), min_size=1, max_size=12)
SHARDS = st.lists(st.lists(WINDOW, max_size=6), min_size=1, max_size=5)


class InProcess:
    """A supervisor's `solve_all` around a model in this process; counts the passes and their tokens."""

    def __init__(self) -> None:
        self.passes: list[int] = []
        self._model = HostileModel(Path())

    def solve_all(self, packs: Iterable[Sequence[int]], ask: AskFor, budget: TokenBudget) -> Iterator[Part]:
        """Answers of all windows together, or each alone where one raises."""
        for windows in packs:
            tokens, asks = ask(windows)
            self.passes.append(len(tokens.input_ids_T))
            try:
                yield windows, self._model(tokens, asks)
            except RuntimeError as error:
                if len(windows) == 1:
                    yield windows, ("exception", str(error))
                else:
                    yield from self.solve_all([[window] for window in windows], ask, budget)


def order(checkpoint: str, *, batch_tokens: int | tuple[int, int] = 20) -> ReplicaOrder:
    load = LoadOrder(loader=hostile.LOADER, checkpoint=checkpoint, framework="torch", heads=(HEAD,), dtype="float32")
    return ReplicaOrder(load=load, asks={TASK: HeadAsk(head=HEAD)}, batch_tokens=batch_tokens, threads=1, stall=5.0)


def answered(shards: Sequence[ShardTables], *, batch_tokens: int = 20, ask: HeadAsk | None = None) -> list[ShardTables]:
    return by(InProcess(), shards, batch_tokens=batch_tokens, ask=ask)


def by(
    supervisor: InProcess, shards: Sequence[ShardTables], *, batch_tokens: int = 20, ask: HeadAsk | None = None
) -> list[ShardTables]:
    budget = TokenBudget(tokens=batch_tokens)
    return answer_shards(shards=shards, asks={TASK: ask or HeadAsk(head=HEAD)}, budget=budget, supervisor=supervisor)


def logits(found: ShardTables) -> list[list[float]]:
    return only_tables(found)["answers"]["logits"].to_pylist() if only_tables(found)["answers"].num_rows else []


def right(window: Sequence[int]) -> list[float]:
    return [window[0], sum(window), len(window)]


@given(shards=SHARDS, batch_tokens=st.integers(1, 60))
def test_answers_are_each_windows_own_in_order_whatever_the_budget_and_the_neighbours(
    shards: list[list[list[int]]], batch_tokens: int
) -> None:
    found = answered([windows_shard(windows) for windows in shards], batch_tokens=batch_tokens)
    assert [logits(part) for part in found] == [[right(window) for window in windows] for windows in shards]
    for part, windows in zip(found, shards, strict=True):
        assert only_tables(part)["failures"].num_rows == len(windows)
        assert only_tables(part)["failures"]["error"].null_count == len(windows)
        assert part.facts["tokens"] == sum(map(len, windows))


@given(shards=SHARDS, data=st.data())
def test_answers_at_several_positions_of_a_window_stay_with_their_position(
    shards: list[list[list[int]]], data: st.DataObject
) -> None:
    positions = [
        [data.draw(st.lists(st.integers(0, len(window) - 1), max_size=4, unique=True)) for window in windows]
        for windows in shards
    ]
    given_shards = [windows_shard(w, positions=p) for w, p in zip(shards, positions, strict=True)]
    found = answered(given_shards)
    for part, windows, asked in zip(found, shards, positions, strict=True):
        expected = [window[place] for window, places in zip(windows, asked, strict=True) for place in places]
        assert [int(row[0]) for row in logits(part)] == expected


@given(shards=SHARDS)
def test_an_answer_a_window_comes_back_where_the_positions_are_reduced(shards: list[list[list[int]]]) -> None:
    ask = HeadAsk(head=HEAD, reduce="mean")
    everywhere = [[list(range(len(window))) for window in windows] for windows in shards]
    given_shards = [windows_shard(w, positions=p) for w, p in zip(shards, everywhere, strict=True)]
    found = answered(given_shards, ask=ask)
    for part, windows in zip(found, shards, strict=True):
        if windows:
            assert only_tables(part)["answers"]["hidden"].to_pylist() == [right(window) for window in windows]


def test_windows_of_several_shards_share_passes_within_the_budget() -> None:
    supervisor = InProcess()
    shards = [windows_shard([[5] * 4] * 3) for _ in range(4)]
    found = by(supervisor, shards, batch_tokens=24)
    assert supervisor.passes == [24, 24]
    assert found[0].facts["passes"] == 2
    assert found[0].facts["budget_tokens"] == 48


def test_a_window_longer_than_the_budget_goes_alone() -> None:
    supervisor = InProcess()
    shards = [windows_shard([[5] * 4, [6] * 100, [7] * 4])]
    by(supervisor, shards, batch_tokens=10)
    assert supervisor.passes == [100, 8]


def test_a_failed_window_has_its_error_and_its_neighbours_their_answers() -> None:
    windows = [[5, 6], [RAISE, 1], [7]]
    (found,) = answered([windows_shard(windows)])
    assert reasons(only_tables(found)["failures"]["error"]) == [None, "exception", None]
    assert [logits(found)[index] for index in (0, 2)] == [right(windows[0]), right(windows[2])]
    assert np.isnan(logits(found)[1]).all()


def test_scores_that_are_not_finite_are_an_error_and_no_answer() -> None:
    first, second = answered([windows_shard([[5], [NAN, 1]]), windows_shard([[NAN], [6]])])
    assert reasons(only_tables(first)["failures"]["error"]) == [None, "nan"]
    assert reasons(only_tables(second)["failures"]["error"]) == ["nan", None]


def test_shards_without_windows_or_with_a_failure_pass_as_they_are() -> None:
    gone = ShardTables(shard=shard(50, 60), failure=("gone", "the file is gone"))
    done = windows_shard([[5]])
    found = answered([gone, done, windows_shard([])])
    assert found[0] is gone
    assert logits(found[1]) == [right([5])]
    assert only_tables(found[2])["failures"].num_rows == 0
    assert answered([gone]) == [gone]


def test_a_bundle_in_which_nothing_is_asked_needs_no_pass() -> None:
    (found,) = answered([windows_shard([])])
    assert only_tables(found)["answers"].num_rows == 0
    assert "passes" not in found.facts


def test_windows_in_many_chunks_and_slices_read_as_one() -> None:
    whole = only_tables(windows_shard([[3], [5, 6], [7, 8, 9], [10]]))["windows"]
    chunked = pa.concat_tables([whole.slice(1, 1), whole.slice(2, 2)])
    (found,) = answered([ShardTables(shard=shard(0, 3), tasks={TASK: {"windows": chunked}})])
    assert logits(found) == [right([5, 6]), right([7, 8, 9]), right([10])]


def test_gold_ids_and_segments_of_a_window_go_with_it() -> None:
    ids = pa.list_(pa.int32())
    table = only_tables(windows_shard([[5, 6], [7, 8, 9]], positions=[[1], [0, 2]]))["windows"]
    table = table.append_column("gold", pa.array([[60], [70, 90]], ids))
    table = table.append_column("token_type_ids", pa.array([[0, 1], [0, 0, 1]], ids))
    seen = []

    class Recording(InProcess):
        def solve_all(self, packs: Iterable[Sequence[int]], ask: AskFor, budget: TokenBudget) -> Iterator[Part]:
            for windows in packs:
                seen.append(ask(windows))
                yield from super().solve_all([windows], ask, budget)

    shards = [ShardTables(shard=shard(0, 2), tasks={TASK: {"windows": table}})]
    by(Recording(), shards)
    ((tokens, asks),) = seen
    assert tokens.input_ids_T.tolist() == [7, 8, 9, 5, 6], "longest first"
    assert tokens.token_type_ids_T is not None
    assert tokens.token_type_ids_T.tolist() == [0, 0, 1, 0, 1]
    positions_G, gold_G = asks[HEAD].positions_G, asks[HEAD].gold_G
    assert positions_G.tolist() == [0, 2, 4]
    assert gold_G is not None
    assert gold_G.tolist() == [70, 90, 60]


@pytest.mark.parametrize(
    "values", [np.arange(3, dtype=np.float32), np.arange(6, dtype=np.int32).reshape(3, 2), np.empty((0, 4), np.float32)]
)
def test_answer_arrays_pass_through_a_table(values: np.ndarray) -> None:
    (found,) = answer_arrays(answers_table({"logits": values})).values()
    assert found.dtype == values.dtype
    np.testing.assert_array_equal(found, values)


def test_the_actor_answers_bundles_from_its_child_process(tmp_path: Path) -> None:
    replica = Replica(order(str(tmp_path)))
    try:
        bundle = pack(
            [windows_shard([[5], [SEGFAULT, 1], [6, 7]]), ShardTables(shard=shard(9, 9), failure=("gone", "x"))]
        )
        first, second = unpack(replica(bundle))
        assert reasons(only_tables(first)["failures"]["error"]) == [None, "killed-replica", None]
        assert [logits(first)[index] for index in (0, 2)] == [right([5]), right([6, 7])]
        assert second.failure == ("gone", "x")
        assert {"replica", "computing_s", "waiting_s"} <= set(first.facts)
        assert len(logits(first)[0]) == LABELS
    finally:
        replica.close()


def test_passes_are_smaller_for_good_once_the_device_ran_out_of_memory(tmp_path: Path) -> None:
    replica = Replica(order(str(tmp_path), batch_tokens=(16, 1_024)))
    try:
        (found,) = unpack(replica(pack([windows_shard([[FULL, 1]] * 8)])))
        assert only_tables(found)["failures"]["error"].null_count == 8
        assert replica._budget.tokens == 2 * LARGEST_PASS
        (found,) = unpack(replica(pack([windows_shard([[FULL, 1]] * 8)])))
        assert found.facts["passes"] == 2
        assert replica._supervisor.seconds.out_of_memory == 1
    finally:
        replica.close()


@pytest.mark.parametrize(
    "gpu", ["3", "GPU-5a1b7c3e-6d1e-4f0e-9a55-0d6f0c0a8c11", "MIG-41b36db1-4ebf-5f1b-9b5b-3a5d3e1d3c1a"]
)
def test_a_model_s_process_keeps_to_the_gpu_that_ray_chose_whatever_its_name(gpu: str) -> None:
    assert gpu_settings(1.0, [gpu]) == {"CUDA_VISIBLE_DEVICES": gpu}
    assert gpu_settings(0.25, [gpu]) == {
        "CUDA_VISIBLE_DEVICES": gpu,
        "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.225",
        "PRELN_GPU_SHARE": "0.25",
    }
    assert gpu_settings(1.0, None) == {}  # Ray has set the variable itself
    assert gpu_settings(0.0, None) == {}
