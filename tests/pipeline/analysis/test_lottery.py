"""The draw of rows is uniform, reproducible, and independent of how the rows are cut and ordered."""

import numpy as np
import pyarrow as pa
import pytest

from pipeline.analysis.lottery import Lowest, uniform

ROWS = np.arange(20_000, dtype=np.int64)


def table(rows: np.ndarray, *, group: str = "g") -> pa.Table:
    rank = uniform(seed=3, source="a", rows_R=rows)
    return pa.table({"group": [group] * len(rows), "rank": rank, "source": ["a"] * len(rows), "row": rows})


@pytest.mark.parametrize("rows", [ROWS, ROWS * 137, ROWS + 2**40], ids=["numbers", "byte offsets", "far offsets"])
def test_numbers_are_uniform_and_neighbours_independent(rows: np.ndarray) -> None:
    drawn = uniform(seed=0, source="s3://b/a.parquet", rows_R=rows)
    counts, _ = np.histogram(drawn, bins=20, range=(0, 1))
    assert ((counts - 1000) ** 2 / 1000).sum() < 50  # chi-square, 19 degrees of freedom: above 50 once in 10,000 keys
    assert abs(np.corrcoef(drawn[1:], drawn[:-1])[0, 1]) < 0.03
    assert len(np.unique(drawn)) == len(rows)


def test_another_seed_source_or_stream_draws_other_numbers() -> None:
    first = uniform(seed=0, source="a", rows_R=ROWS)
    others = [
        uniform(seed=1, source="a", rows_R=ROWS),
        uniform(seed=0, source="b", rows_R=ROWS),
        uniform(seed=0, source="a", rows_R=ROWS, stream="order"),
    ]
    assert (uniform(seed=0, source="a", rows_R=ROWS) == first).all()
    assert all(abs(np.corrcoef(first, other)[0, 1]) < 0.03 for other in others)


def test_what_is_kept_depends_neither_on_the_cut_nor_on_the_order() -> None:
    whole, parts = Lowest(50), Lowest(50)
    for group in ("x", "y"):
        whole.add(table(ROWS, group=group))
    for part in reversed(np.array_split(ROWS, 23)):
        for group in ("y", "x"):
            parts.add(table(part, group=group))
    kept = whole.rows()
    assert kept is not None
    assert kept.equals(parts.rows())
    assert kept.num_rows == 100
    assert kept["rank"].to_numpy()[:50].max() == np.sort(uniform(seed=3, source="a", rows_R=ROWS))[49]
    assert whole.counts == parts.counts == {"x": 20_000, "y": 20_000}
