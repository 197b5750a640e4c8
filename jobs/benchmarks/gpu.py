"""Measures how fast preln is on this machine's GPU and where the time goes, in one command on a bare machine.

    python -m jobs.benchmarks.gpu                    # about ten minutes on an H100: Markdown, gpu.json and gpu.svg
    python -m jobs.benchmarks.gpu --device cpu --layers 2 --width 128 --tokens 20000 --budgets 2048 --reps 3   # that it runs

Neither Ray, Arrow, pydantic nor TensorFlow is needed. The rate of bare products is measured in the same rounds as the model, at
its own shapes; tokens a second by pack size in this process, then by head through the real supervisor, pipe and child.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np

from jobs.benchmarks.drawn import drawn_tensors
from jobs.benchmarks.rounds import least_operations
from models.boundary import Ask, Device, Dtype, Framework, Head, Tokens
from models.checkpoint_writer import write_checkpoint
from models.config import RobertaPreLayerNormConfig
from models.load import load
from models.tensors import ARCHITECTURES
from pipeline.inference.batching import TokenBudget, packs
from pipeline.inference.child import LoadOrder
from pipeline.inference.passes import Question
from pipeline.inference.supervisor import Supervisor

SMI = "name,driver_version,compute_cap,clocks.sm,clocks.max.sm,power.limit,mig.mode.current,memory.total"
LARGEST_IN_CHILD = 65_536
GOAL_SHARE = 0.65
HEADS: tuple[Head, ...] = (
    "sequence-classification",
    "masked-lm",
    "question-answering",
    "token-classification",
    "encoder",
)


@dataclass(frozen=True)
class Settings:
    """What is measured, and how long."""

    device: Device
    framework: Framework
    dtype: Dtype
    layers: int
    width: int
    tokens: int
    budgets: tuple[int, ...]
    reps: int
    sigma: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write gpu.json and gpu.svg."""
    settings, out = read_settings(arguments)
    results: dict[str, Any] = {"settings": vars(settings), "machine": machine(settings.framework)}
    print(json.dumps(results["machine"], indent=1), flush=True)
    lengths = made_up_lengths(settings)
    with tempfile.TemporaryDirectory() as root:
        results["model"], results["profile"] = in_this_process(settings, lengths, root)
        results["child"] = list(in_a_child(settings, lengths, root))
    out.mkdir(parents=True, exist_ok=True)
    (out / "gpu.json").write_text(json.dumps(results, indent=1), encoding="utf-8")
    print(report(results))
    draw(results, out / "gpu.svg")


def read_settings(arguments: Sequence[str] | None) -> tuple[Settings, Path]:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--device", default="cuda", choices=("cuda", "cpu"))
    add("--framework", default="torch", choices=("torch", "flax"))
    add("--dtype", default="bfloat16")
    add("--layers", type=int, default=12)
    add("--width", type=int, default=768)
    add("--tokens", type=int, default=6_000_000)
    add("--budgets", default="8192,16384,32768,65536,131072")
    add("--reps", type=int, default=50)
    add("--sigma", type=float, default=0.9)
    add("--out", type=Path, default=Path())
    given = parser.parse_args(arguments)
    settings = Settings(
        device=given.device,
        framework=given.framework,
        dtype=given.dtype,
        layers=given.layers,
        width=given.width,
        tokens=given.tokens,
        budgets=tuple(int(one) for one in given.budgets.split(",")),
        reps=given.reps,
        sigma=given.sigma,
    )
    return settings, given.out


def machine(framework: str) -> dict[str, object]:
    """The hardware, and what the framework sees of it."""
    seen = [sys.executable, "-m", "models.devices", framework, "cuda"]
    return {
        "smi": output_of(["nvidia-smi", f"--query-gpu={SMI}", "--format=csv"]),
        "cpus": len(os.sched_getaffinity(0)),
        "seen": output_of(seen),
    }


def output_of(command: Sequence[str]) -> str:
    """What a command prints, or why it could not be run."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False).stdout.strip()
    except OSError as error:
        return f"none ({error})"


def made_up_lengths(settings: Settings) -> np.ndarray:
    """Log-normal lengths around 60 tokens, as many as make the wanted tokens."""
    drawn = np.random.default_rng(0).standard_normal(settings.tokens // 20)
    lengths = np.clip(60 * np.exp(settings.sigma * drawn), 4, 512).astype(np.int32)
    return lengths[: int(np.searchsorted(np.cumsum(lengths), settings.tokens)) + 1]


def tokens_of(lengths: np.ndarray) -> Tokens:
    """A pack of made-up ids."""
    cu_seqlens = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    ids = np.random.default_rng(1).integers(4, 900, int(cu_seqlens[-1])).astype(np.int32)
    return Tokens(ids, cu_seqlens)


def ask_of(head: Head, tokens: Tokens) -> Ask:
    """What a job asks of this head."""
    everywhere = np.arange(len(tokens.input_ids_T), dtype=np.int32)
    if head == "sequence-classification":
        return Ask(tokens.cu_seqlens[:-1])
    if head == "masked-lm":
        return Ask(tokens.cu_seqlens[:-1] + 1, top_k=5)
    return Ask(everywhere, reduce="mean") if head == "encoder" else Ask(everywhere)


def checkpoint(head: Head, root: str, settings: Settings) -> str:
    """A random checkpoint of this head, written once."""
    folder = f"{root}/{head}"
    if Path(folder).exists():
        return folder
    config = RobertaPreLayerNormConfig(
        vocab_size=50_265,
        hidden_size=settings.width,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.width // 64,
        intermediate_size=4 * settings.width,
        max_position_embeddings=514,
        type_vocab_size=1,
        num_labels=2 if head == "question-answering" else 9,
        architectures=[ARCHITECTURES.get(head, "RobertaPreLayerNormModel")],
    )
    tensors = drawn_tensors(config=config, head=head)
    write_checkpoint(url=folder, config=config, tensors=tensors)
    return folder


def cut(settings: Settings, lengths: np.ndarray, budget: int) -> list[np.ndarray]:
    """The packs to measure: of this budget, spread over all lengths."""
    in_order = settings.framework != "torch"
    work = list(packs(lengths_W=lengths, budget=TokenBudget(tokens=budget), in_order=in_order))
    return work[:: max(1, len(work) // settings.reps)][: settings.reps]


def in_this_process(settings: Settings, lengths: np.ndarray, root: str) -> tuple[list[dict[str, Any]], str]:
    """The model alone by pack size, two packs in flight, and bare products in turn with it; and a profile of one pack."""
    rows: list[dict[str, Any]] = []
    profile = ""
    for head in HEADS[:1] + HEADS[3:4]:
        model = load(
            checkpoint=checkpoint(head, root, settings),
            framework=settings.framework,
            heads=[head],
            dtype=settings.dtype,
            device=settings.device,
        )
        print(head, model.try_out(), flush=True)
        for budget in settings.budgets:
            chosen = cut(settings, lengths, budget)
            work = [tokens_of(lengths[one]) for one in chosen]
            run_all(model, head, work[:3])
            rates, seconds = [], []
            for _ in range(3):
                rates.append(product_rate(settings, budget))
                began = time.perf_counter()
                run_all(model, head, work)
                seconds.append(time.perf_counter() - began)
            wall = statistics.median(seconds)
            tokens = sum(len(one.input_ids_T) for one in work)
            operations = sum(
                least_operations(lengths[one].tolist(), layers=settings.layers, width=settings.width) for one in chosen
            )
            rows.append(
                {
                    "head": head,
                    "budget": budget,
                    "tokens_s": tokens / wall,
                    "products_tflops": statistics.median(rates) / 1e12,
                    "share": operations / wall / statistics.median(rates),
                    "ms_a_pack": 1e3 * wall / len(work),
                }
            )
            print({key: round(value, 3) if isinstance(value, float) else value for key, value in rows[-1].items()})
        if settings.framework == "torch":
            profile += profiled(model, head, max(work, key=lambda one: len(one.input_ids_T)), settings.device)
    return rows, profile


def run_all(model: Any, head: Head, work: Sequence[Tokens]) -> None:
    """Run every pack, two in flight as in a child."""
    waiting = []
    for tokens in work:
        waiting.append(model.submit(tokens, {head: ask_of(head, tokens)}))
        if len(waiting) == 2:
            waiting.pop(0).result()
    for one in waiting:
        one.result()


def product_rate(settings: Settings, rows: int) -> float:
    """FLOP/s of a layer's four matrix products at so many rows, waiting for the device once."""
    width = settings.width
    shapes = [(width, 3 * width), (width, width), (width, 4 * width), (4 * width, width)]
    once, wait = (_torch_products if settings.framework == "torch" else _jax_products)(settings, rows, shapes)
    once()
    wait()
    began = time.perf_counter()
    for _ in range(settings.reps):
        once()
    wait()
    return settings.reps * sum(2.0 * rows * k * n for k, n in shapes) / (time.perf_counter() - began)


Pair = tuple[Callable[[], None], Callable[[], None]]


def _torch_products(settings: Settings, rows: int, shapes: Sequence[tuple[int, int]]) -> Pair:
    import torch

    ones = partial(torch.ones, dtype=getattr(torch, settings.dtype), device=settings.device)
    made = [(ones(rows, k), ones(n, k)) for k, n in shapes]

    def once() -> None:
        with torch.inference_mode():
            for x, w in made:
                torch.nn.functional.linear(x, w)

    return once, torch.cuda.synchronize if settings.device == "cuda" else lambda: None


def _jax_products(settings: Settings, rows: int, shapes: Sequence[tuple[int, int]]) -> Pair:
    import jax
    import jax.numpy as jnp

    made = [(jnp.ones((rows, k), settings.dtype), jnp.ones((k, n), settings.dtype)) for k, n in shapes]
    product = jax.jit(lambda x, w: x @ w)
    last: list[Any] = []

    def once() -> None:
        last[:] = [product(x, w) for x, w in made]

    return once, lambda: jax.block_until_ready(last)


def profiled(model: Any, head: Head, tokens: Tokens, device: Device) -> str:
    """Where one pack's time goes and, on a GPU, what makes the host wait according to PyTorch's warnings."""
    import torch

    kinds = [torch.profiler.ProfilerActivity.CPU]
    kinds += [torch.profiler.ProfilerActivity.CUDA] if device == "cuda" else []
    with torch.profiler.profile(activities=kinds) as profile:
        run_all(model, head, [tokens] * 3)
    order = "self_device_time_total" if device == "cuda" else "self_cpu_time_total"
    table = str(profile.key_averages().table(sort_by=order, row_limit=18))
    if device == "cuda":
        torch.cuda.set_sync_debug_mode("warn")
        pending = model.submit(tokens, {head: ask_of(head, tokens)})
        torch.cuda.set_sync_debug_mode("default")
        pending.result()
    print(head, table, sep="\n", flush=True)
    return f"{head}\n{table}\n"


def in_a_child(settings: Settings, lengths: np.ndarray, root: str) -> Iterator[dict[str, Any]]:
    """Each head through supervisor, pipe and child, two packs in flight."""
    budget = max([one for one in settings.budgets if one <= LARGEST_IN_CHILD] or settings.budgets[:1])
    for head in HEADS:
        order = LoadOrder(
            loader="models.load:load",
            checkpoint=checkpoint(head, root, settings),
            framework=settings.framework,
            heads=(head,),
            dtype=settings.dtype,
            device=settings.device,
        )
        supervisor = Supervisor(order=order, threads=1, stall=600.0)
        try:
            supervisor.start()
            work = {number: tokens_of(lengths[one]) for number, one in enumerate(cut(settings, lengths, budget))}
            timed(supervisor, head, dict(list(work.items())[:2]))
            before, wall = supervisor.seconds.computing, timed(supervisor, head, work)
            tokens = sum(len(one.input_ids_T) for one in work.values())
            row = {
                "head": head,
                "budget": budget,
                "tokens_s": tokens / wall,
                "child_computes": (supervisor.seconds.computing - before) / wall,
                "start_s": supervisor.seconds.starting,
                "facts": supervisor.facts,
                "said": supervisor.said,
            }
        finally:
            supervisor.close()
        print({key: row[key] for key in ("head", "tokens_s", "child_computes", "start_s")}, flush=True)
        yield row


def timed(supervisor: Supervisor, head: Head, work: Mapping[int, Tokens]) -> float:
    """Seconds for all packs, each as one window. Raises RuntimeError if one is not answered."""

    def ask(part: Sequence[int]) -> Question:
        tokens = work[part[0]]
        return tokens, {head: ask_of(head, tokens)}

    began = time.perf_counter()
    for part, reply in supervisor.solve_all([[number] for number in work], ask):
        if isinstance(reply, tuple):
            raise RuntimeError(f"{head}: pack {part[0]} has no answer: {reply[1]}")  # noqa: TRY004 - no wrong type
    return time.perf_counter() - began


def report(results: Mapping[str, Any]) -> str:
    """Markdown tables, and what to run next."""
    lines = [
        "| head | pack | tokens/s | bare products, TFLOP/s | share | ms a pack |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {row['head']} | {row['budget']:,} | {row['tokens_s']:,.0f} | {row['products_tflops']:.1f} | {row['share']:.2f} | "
        f"{row['ms_a_pack']:.2f} |"
        for row in results["model"]
    ]
    lines += ["", "| head, through the child | tokens/s | child computes | start |", "| --- | --- | --- | --- |"]
    lines += [
        f"| {row['head']} | {row['tokens_s']:,.0f} | {row['child_computes']:.2f} | {row['start_s']:.1f} s |"
        for row in results["child"]
    ]
    best = max(row["share"] for row in results["model"])
    lines += ["", f"Best share of this device's rate of bare products: {best:.2f} (aim {GOAL_SHARE})."]
    return "\n".join([*lines, "Next: pytest -m gpu tests/gpu, then python -m jobs.benchmarks.whole_job"])


def draw(results: Mapping[str, Any], file: Path) -> None:
    """Draw tokens per second by pack size, and by head through the child, if matplotlib is installed."""
    try:
        import matplotlib as mpl
    except ImportError:
        print("no picture: matplotlib is not installed")
        return
    mpl.use("svg")
    from matplotlib import pyplot as plt

    mpl.rcParams.update({"svg.hashsalt": "preln", "svg.fonttype": "none"})
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    for head in dict.fromkeys(row["head"] for row in results["model"]):
        rows = [row for row in results["model"] if row["head"] == head]
        left.plot([row["budget"] for row in rows], [row["tokens_s"] for row in rows], marker="o", label=head)
    left.set(xlabel="tokens a pack", ylabel="tokens a second", title="the model alone", xscale="log")
    left.legend()
    right.barh(
        [row["head"] for row in results["child"]], [row["tokens_s"] for row in results["child"]], color="#4878a8"
    )
    right.set(xlabel="tokens a second", title="through supervisor and child")
    figure.savefig(file, metadata=cast("Any", {"Date": None}))
    plt.close(figure)


if __name__ == "__main__":
    main()
