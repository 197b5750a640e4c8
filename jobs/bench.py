"""`preln bench`: measures the model and the stages around it on this machine, beside alternatives, without Ray.

`python -m jobs.bench model` needs neither Ray nor Arrow, so that a bare machine with a GPU and PyTorch is enough.

Legend: N texts, L labels, H hidden size.
"""

import enum
import importlib.util
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from models.errors import PrelnError
from models.families import FAMILIES

if TYPE_CHECKING:
    from jobs.benchmarks.ours import BenchTask
    from jobs.benchmarks.texts import Corpus
    from models.boundary import Dtype, Framework, Head

NEEDED = {
    "bfloat16": {"avx512_bf16", "amx_bf16", "avx_ne_convert", "bf16"},
    "float16": {"avx512_fp16", "amx_fp16", "fphp"},
}
"""Flags of processors that multiply in a type, of which one suffices."""
VECTOR_BATCHES = (1, 8, 32)
"""Of sentence-transformers, which sorts texts by length itself; 32 is its default."""
PIPELINE_BATCHES = {"cpu": (1, 8, 32), "cuda": (1, 8, 32, 128)}
"""Batch sizes of transformers' pipeline that are tried; larger ones only pad more where a CPU is busy with one text."""
SWEEP_TEXTS = 96
PEERS, CPU_PEERS, VECTOR_PEERS = ("transformers",), ("onnx", "onnxruntime", "openvino"), ("sentence_transformers",)


class Scope(enum.StrEnum):
    """What is measured: the model only (token ids to logits), or the whole way from texts to labels."""

    model = "model"
    text = "text"


class Task(enum.StrEnum):
    """What is asked of a text: the probabilities of its labels, the mean of its vectors, or the best tokens for its mask."""

    classification = "text-classification"
    vectors = "feature-extraction"
    fills = "fill-mask"


def bench(
    scope: Annotated[Scope, typer.Argument(help="model: token ids to logits. text: texts to labels.")] = Scope.text,
    task: Annotated[
        Task, typer.Option(help="Labels of texts, or mean vectors or masks beside sentence-transformers.")
    ] = Task.classification,
    lengths: Annotated[
        str, typer.Option(help="Tokens a text: sigma0.5, sigma0.9, sigma1.2 (log-normal around 60) or fixed512.")
    ] = "sigma0.9",
    texts: Annotated[int, typer.Option(help="Texts.", min=8)] = SWEEP_TEXTS,
    rounds: Annotated[int, typer.Option(help="Shuffled rounds; the table has medians.", min=1)] = 3,
    dtypes: Annotated[str, typer.Option(help="Types, e.g. float32,bfloat16.")] = "float32",
    frameworks: Annotated[str, typer.Option(help="Ours to measure, e.g. torch,flax,tensorflow.")] = "torch",
    peers: Annotated[bool, typer.Option(help="Also measure the alternatives (needs 'preln[bench]').")] = True,
    layers: Annotated[int, typer.Option(help="Layers of the random checkpoint.")] = 12,
    family: Annotated[str, typer.Option(help="Its model_type, e.g. roberta.")] = "roberta-prelayernorm",
    width: Annotated[int, typer.Option(help="Its width, a multiple of 64.")] = 768,
    threads: Annotated[int, typer.Option(help="CPU threads; with one, CPU time is the clock.", min=1)] = 1,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    plot: Annotated[Path | None, typer.Option(help="Draw the speeds to this SVG file (needs matplotlib).")] = None,
) -> None:
    """Measure preln beside transformers, ONNX Runtime, OpenVINO and sentence-transformers, as the task has them, on a random
    checkpoint, and print a Markdown table.

    Needs pip install 'preln[bench]', or --no-peers. It takes from minutes to half an hour; what it measures and has found so far
    goes to standard error. All run in one process on the same texts, their answers compared. Ray is not used.
    """
    if family not in FAMILIES:
        raise PrelnError(f"--family {family}: choose one of {', '.join(FAMILIES)}")
    asked: BenchTask = task.value
    _hold_to(threads)
    from jobs.benchmarks.peaks import products
    from jobs.benchmarks.report import draw, machine, table
    from jobs.benchmarks.rounds import clock, in_rounds, least_operations
    from jobs.benchmarks.texts import corpus, random_checkpoint

    if peers:
        _require_peers(device, asked)
    sample = corpus(lengths=lengths, count=texts, masked=task is Task.fills)
    types, ours = measurable(dtypes.split(","), device), frameworks.split(",")
    with tempfile.TemporaryDirectory() as folder:
        head: Head = "masked-lm" if task is Task.fills else "sequence-classification"
        config = random_checkpoint(Path(folder), layers=layers, width=width, model_type=family, head=head)
        variants = _ours(folder, scope, ours, types, device, asked)
        reference = _reference(folder, sample, asked)
        if peers:
            variants += _peers(folder, scope, types, threads, device, asked)
        peaks = {
            (framework, dtype): products(framework=framework, dtype=dtype, width=width, device=device)
            for framework in ours
            for dtype in types
        }
        lengths_N = [len(ids) for ids in sample.ids]
        measured, rates = in_rounds(
            [(one, one.scores) for one in variants],
            inputs=sample.texts if scope is Scope.text else sample.ids,
            reference=reference,
            tokens=sample.tokens,
            operations=least_operations(lengths_N, layers=layers, width=width),
            rounds=rounds,
            now=clock(threads=threads, device=device),
            peaks=peaks,
            say=_progress(),
        )
    words = [f"{family}, {layers} layers of width {width}, {texts} texts, {sample.tokens:,} tokens, lengths {lengths}"]
    words += [f"a vocabulary of {config.vocab_size:,}"] if task is Task.fills else []
    words += [f"{threads} thread{'s' if threads > 1 else ''}, {device}", f"medians of {rounds} shuffled rounds"]
    print("\n".join([_command(), "", machine(device) + "; " + ", ".join(words) + ".", ""]))
    print(table(measured, rates))
    if plot is not None:
        draw(measured, plot, title=f"{scope}, {lengths}")


def measurable(types: Sequence[str], device: str) -> list[str]:
    """The types that the processor has instructions for. Others are reported and skipped: emulated, a table takes hours.

    Raises PrelnError if none is left.
    """
    from jobs.benchmarks.classes import cpu_flags

    flags = cpu_flags()
    out = [one for one in types if device == "cpu" and flags and not NEEDED.get(one, flags) & flags]
    left = [one for one in types if one not in out]
    if not left:
        raise PrelnError(
            f"--dtypes {','.join(types)}: this processor has no instructions for {' or '.join(out)}; try float32"
        )
    for one in out:
        print(f"preln: {one} is left out: this processor has no instructions for it", file=sys.stderr)
    return left


def _progress() -> Callable[[str], None]:
    """Writes what is measured to standard error, with the time since now."""
    began = time.monotonic()

    def say(words: str) -> None:
        minutes, seconds = divmod(int(time.monotonic() - began), 60)
        print(f"[{minutes}:{seconds:02}] {words}", file=sys.stderr, flush=True)

    return say


def _hold_to(threads: int) -> None:
    """Pin the process to some cores, before any framework is imported and sizes its thread pools."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    os.environ.update(
        OMP_NUM_THREADS=str(threads), TOKENIZERS_PARALLELISM="false", TF_CPP_MIN_LOG_LEVEL="3", HF_HUB_OFFLINE="1"
    )


class _FromIds:
    """A variant of ids whose logits become probabilities; vectors and fills stay as they are."""

    def __init__(self, variant: Any, task: "BenchTask") -> None:
        self.name, self.dtype, self.framework = variant.name, variant.dtype, variant.framework
        self._variant, self._task = variant, task

    def scores(self, ids: Sequence[Sequence[int]]) -> Any:
        """Probabilities [N, L], vectors [N, H] or fills."""
        from jobs.benchmarks.ours import scored

        return scored(self._variant.logits(ids), self._task)


def _ours(
    folder: str, scope: Scope, frameworks: Sequence[str], dtypes: Sequence[str], device: str, task: "BenchTask"
) -> list[Any]:
    from jobs.benchmarks.ours import flat_variants

    variants = [
        variant
        for framework in cast("Sequence[Framework]", frameworks)
        for dtype in cast("Sequence[Dtype]", dtypes)
        for variant in flat_variants(folder, framework=framework, dtype=dtype, device=device, task=task)
    ]
    if scope is Scope.model:
        return [_FromIds(one, task) for one in variants]
    from jobs.benchmarks.stages import PipelineVariant  # needs Arrow and Ray, which a bare machine may lack

    return [PipelineVariant(folder, one, device=device, task=task) for one in variants]


def _require_peers(device: str, task: "BenchTask") -> None:
    """Raise PrelnError, before anything is built, where one of what there is else is not installed."""
    sentences = VECTOR_PEERS if task != "text-classification" else ()
    graphs = CPU_PEERS if task != "feature-extraction" and device == "cpu" else ()
    for package in (*PEERS, *sentences, *graphs):
        if importlib.util.find_spec(package) is None:
            raise PrelnError(
                f"{package} is not installed; pip install 'preln[bench]', or measure ours alone by --no-peers"
            )


def _peers(folder: str, scope: Scope, dtypes: Sequence[str], threads: int, device: str, task: "BenchTask") -> list[Any]:
    from jobs.benchmarks import peers

    by_ids: list[Any]
    if task == "feature-extraction":
        by_ids = [peers.EagerEncoder(folder, dtype=dtype, device=device) for dtype in dtypes]
    else:
        by_ids = [peers.EagerVariant(folder, dtype=dtype, device=device, task=task) for dtype in dtypes]
        if device == "cpu":
            by_ids += [peers.OnnxVariant(folder, threads=threads, task=task)] if "float32" in dtypes else []
            by_ids += [peers.OpenVinoVariant(folder, dtype=dtype, threads=threads, task=task) for dtype in dtypes]
    if scope is Scope.model:
        return [_FromIds(one, task) for one in by_ids]
    by_texts: list[Any] = []
    for dtype in dtypes:
        made: dict[str, Any] = {"dtype": dtype, "device": device, "task": task}
        if task != "text-classification":
            by_texts += [peers.SentenceTransformersVariant(folder, batch=batch, **made) for batch in VECTOR_BATCHES]
        if task != "feature-extraction":
            by_texts += [peers.PipelineVariant(folder, batch=batch, **made) for batch in PIPELINE_BATCHES[device]]
        if task == "text-classification":
            by_texts.append(peers.FrameVariant(folder, dtype=dtype, device=device))
    return [*(peers.FromTexts(one, folder, task=task) for one in by_ids), *by_texts]


def _reference(folder: str, sample: "Corpus", task: "BenchTask") -> Any:
    """Probabilities, vectors or fills, as an array, of the float32 model called on each text alone."""
    import numpy as np

    from jobs.benchmarks.ours import FlatVariant, scored

    alone = FlatVariant(folder, framework="torch", dtype="float32", device="cpu", task=task)
    return scored(np.concatenate([alone.logits([ids]) for ids in sample.ids]), task)


def _command() -> str:
    return "`preln " + " ".join(sys.argv[1:]) + "`"


if __name__ == "__main__":
    typer.run(bench)
