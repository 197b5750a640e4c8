"""Measures what each CPU optimisation gains in PyTorch: `python -m jobs.benchmarks.ablation`.

All in one process and shuffled rounds, one thread, CPU time. What no other texts share, the number of rows of a pass, is
measured on texts of new lengths each round.

Legend: T tokens, H features in, O features out.
"""

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

from jobs.benchmarks.ours import FlatVariant
from jobs.benchmarks.peaks import products
from jobs.benchmarks.report import machine
from jobs.benchmarks.rounds import PEAK_REPEATS, least_operations
from jobs.benchmarks.texts import corpus, random_checkpoint
from models.boundary import Dtype
from pipeline.inference.batching import TokenBudget

FORMER_TOKENS = 1_536
"""The token budget of a pass before."""


@dataclass(frozen=True)
class Ways:
    """What is done of it."""

    vectors: bool = False
    residual: bool = False
    activation: bool = False
    tokens: int = FORMER_TOKENS
    steps: bool = False


WAYS = {
    "none of it": Ways(),
    "keys read in whole vectors": Ways(vectors=True),
    "residuals summed inside the products": Ways(residual=True),
    "GELU inside the product": Ways(activation=True),
    "2,048 tokens a pass": Ways(tokens=2_048),
    "all of these": Ways(vectors=True, residual=True, activation=True, tokens=2_048),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="bfloat16")
    parser.add_argument("--texts", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=4)
    options = parser.parse_args(arguments)
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        rows, fresh = measure(Path(folder), dtype=options.dtype, texts=options.texts, rounds=options.rounds)
    print(f"{machine('cpu')}; {options.dtype}, {options.texts} texts, {options.rounds} rounds.\n")
    print(
        "\n".join(["| what is done | tokens/s | times as fast | share of the GEMM rate |", "| --- " * 4 + "|", *rows])
    )
    print(f"\nNumbers of rows in steps, on texts of new lengths: {fresh:.2f} times as fast.")


def measure(folder: Path, *, dtype: str, texts: int, rounds: int) -> tuple[list[str], float]:
    """(the table's lines, how many times as fast steps of rows are on new lengths)."""
    random_checkpoint(folder, layers=12, width=768)
    flat = FlatVariant(str(folder), framework="torch", dtype=cast("Dtype", dtype), device="cpu")
    data = corpus(lengths="sigma0.9", count=texts)
    operations = least_operations([len(ids) for ids in data.ids], layers=12, width=768)
    product, work = products(framework="torch", dtype=dtype, width=768, device="cpu")
    turns: dict[str, Callable[[], float]] = {
        name: partial(seconds, flat, ways, data.ids) for name, ways in WAYS.items()
    }
    turns["product"] = lambda: timed(lambda: [product() for _ in range(PEAK_REPEATS)]) / PEAK_REPEATS
    product()
    shuffled = random.Random(0)  # noqa: S311 -- an order, not a secret
    taken: dict[str, list[float]] = {name: [] for name in turns}
    for number in range(rounds + 1):
        for name in shuffled.sample(list(turns), k=len(turns)):
            found = turns[name]()
            if number:  # the round before warms up
                taken[name].append(found)
    medians = {name: statistics.median(values) for name, values in taken.items()}
    rate = work / medians["product"]
    first = medians["none of it"]
    rows = [
        f"| {name} | {data.tokens / medians[name]:,.0f} | {first / medians[name]:.3f} | {operations / medians[name] / rate:.2f} |"
        for name in WAYS
    ]
    return rows, fresh_lengths(flat, texts=texts, rounds=rounds)


def fresh_lengths(flat: FlatVariant, *, texts: int, rounds: int) -> float:
    """How many times as fast passes over lengths that were not there before are with numbers of rows in steps."""
    ratios = []
    for number in range(1, rounds + 2):
        ids = corpus(lengths="sigma0.9", count=texts + number).ids
        ways = WAYS["all of these"]
        stepped, plain = (seconds(flat, replace(ways, steps=steps), ids) for steps in (True, False))
        ratios.append(plain / stepped)
    return statistics.median(ratios[1:])  # in the first the steps are new as well


def seconds(flat: FlatVariant, ways: Ways, ids: Sequence[Sequence[int]]) -> float:
    """CPU time of all texts, done in these ways."""
    from models.roberta_torch.flat import FlatRoberta

    assert isinstance(flat.model, FlatRoberta)
    flat.model.whole_vectors, flat.model.steps = ways.vectors, ways.steps
    for layer in flat.model.layers:
        for linear in (layer.projection, layer.narrow, layer.widen):
            # The product's own methods again, or what they do where nothing can be fused.
            vars(linear).pop("added", None)
            vars(linear).pop("activated", None)
            if not ways.residual:
                vars(linear)["added"] = lambda rows_TH, sum_TO, linear=linear: sum_TO.add_(linear(rows_TH))
            if not ways.activation:
                vars(linear)["activated"] = lambda rows_TH, activation, linear=linear: activation(linear(rows_TH))
    flat.token_budget = TokenBudget(tokens=ways.tokens)
    return timed(lambda: flat.logits(ids))


def timed(work: Callable[[], Any]) -> float:
    """CPU time of the process."""
    began = time.process_time()
    work()
    return time.process_time() - began


if __name__ == "__main__":
    main()
