"""Compares our model classes to transformers 4.57.6: forward pass, training step, peak memory.

`python -m jobs.benchmarks.classes` makes an environment for transformers under `build/` (the frameworks in it are those
of this environment, so that both sides run the same builds), writes one random checkpoint of base size, and measures
both sides in turns: a process each, shuffled rounds, the same inputs, answers compared.
"""

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from jobs.benchmarks.drawn import drawn_tensors
from models.boundary import Head
from models.checkpoint_writer import WeightsFormat, write_checkpoint
from models.config import RobertaPreLayerNormConfig
from models.tensors import ARCHITECTURES

REPOSITORY = Path(__file__).resolve().parents[2]
ENVIRONMENT = REPOSITORY / "build" / "reference-environment"
REFERENCE = ("transformers==4.57.6", "tf-keras")
FRAMEWORKS = ("torch", "tensorflow", "flax")
MODES = ("forward", "train")
# By default transformers imports every framework it finds, which would count in the peak of memory.
SWITCHES = {"torch": "USE_TORCH", "tensorflow": "USE_TF", "flax": "USE_FLAX"}
# The format that the reference's class of each framework reads; ours read any.
FORMATS: dict[str, WeightsFormat] = {"torch": "safetensors", "tensorflow": "h5", "flax": "msgpack"}
LABELS = 5
ANSWER_TOLERANCE = 2e-3  # float32 over twelve layers, two implementations
MATRIX = 1536  # of the product that shows what the machine can do in the same minutes
SILENT = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_USE_LEGACY_KERAS": "0",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


@dataclass
class Side:
    """One running process. seconds, cpu_seconds: of its rounds; peak_bytes: of its whole life."""

    name: str
    process: "subprocess.Popen[str]"
    answer: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    peak_bytes: int = 0

    def hear(self) -> dict[str, Any]:
        """The next JSON line; raises RuntimeError where the process has ended without one."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                message: dict[str, Any] = json.loads(line)
                return message
        raise RuntimeError(f"{self.name} ended with code {self.process.wait()}; see what it wrote above")

    def measure(self) -> None:
        """One pass."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        found = self.hear()
        self.seconds.append(float(found["seconds"]))
        self.cpu_seconds.append(float(found["cpu_seconds"]))

    def end(self) -> None:
        """Close it and take its peak."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.peak_bytes = int(self.hear()["peak_bytes"])
        self.process.wait()


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--frameworks", nargs="+", choices=FRAMEWORKS, default=list(FRAMEWORKS))
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--head", choices=["sequence-classification", "masked-lm"], default="sequence-classification")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args(arguments)
    python = reference_python()
    rows, speeds = [], []
    with tempfile.TemporaryDirectory() as folder:
        write_checkpoints(Path(folder), head=options.head, layers=options.layers)
        for framework in options.frameworks:
            for mode in options.modes:
                ours, theirs, speed = compare(options, python, Path(folder), framework, mode)
                rows.append(row(framework, mode, ours, theirs))
                speeds.append(speed)
    print(report(options, rows, statistics.median(speeds)))


def reference_python() -> Path:
    """The interpreter of an environment with transformers 4.57.6, made if it is not there."""
    python = ENVIRONMENT / "bin" / "python"
    if not python.exists():
        venv.create(ENVIRONMENT, with_pip=True)
        ours = sysconfig.get_path("purelib")
        found = next(ENVIRONMENT.glob("lib/python3*/site-packages"))
        (found / "same-frameworks.pth").write_text(f"{ours}\n", encoding="utf-8")
        subprocess.run([python, "-m", "pip", "install", "--quiet", *REFERENCE], check=True)
    return python


def write_checkpoints(folder: Path, *, head: Head, layers: int) -> None:
    """One random checkpoint of published sizes (base), in the format of each framework."""
    config = RobertaPreLayerNormConfig(
        num_hidden_layers=layers,
        max_position_embeddings=514,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        num_labels=LABELS if head == "sequence-classification" else None,
        architectures=[ARCHITECTURES[head]],
    )
    tensors = drawn_tensors(config=config, head=head)
    for framework, weights_format in FORMATS.items():
        write_checkpoint(url=str(folder / framework), config=config, tensors=tensors, weights_format=weights_format)


def compare(
    options: argparse.Namespace, python: Path, folder: Path, framework: str, mode: str
) -> tuple[Side, Side, float]:
    """Both sides in shuffled rounds, and the machine's matrix product in GFLOP/s beside them."""
    print(f"{framework} {mode} …", file=sys.stderr, flush=True)
    sides = []
    for module, interpreter in (("models", Path(sys.executable)), ("transformers", python)):
        side = start(options, interpreter, module, folder / framework, framework, mode)
        side.answer = list(side.hear()["answer"])  # one after the other: nothing disturbs a warm-up
        sides.append(side)
    np.testing.assert_allclose(sides[0].answer, sides[1].answer, rtol=0, atol=ANSWER_TOLERANCE, err_msg=framework)
    shuffled = random.Random(0)  # noqa: S311 -- an order, not a secret
    speeds = []
    for _ in range(options.rounds):
        for side in shuffled.sample(sides, k=2):
            side.measure()
        speeds.append(matrix_speed())
    for side in sides:
        side.end()
    return sides[0], sides[1], statistics.median(speeds)


def start(options: argparse.Namespace, interpreter: Path, module: str, folder: Path, framework: str, mode: str) -> Side:
    """A process of one side, loading."""
    kind = ARCHITECTURES[options.head].removeprefix("RobertaPreLayerNorm")
    labels = LABELS if options.head == "sequence-classification" else 1000
    script = Path(__file__).with_name("measured_classes.py")
    words: dict[str, Any] = {
        "module": module,
        "framework": framework,
        "kind": kind,
        "folder": folder,
        "mode": mode,
        "batch": options.batch,
        "length": options.length,
        "labels": labels,
        "threads": options.threads,
    }
    switches = {switch: "1" if name == framework else "0" for name, switch in SWITCHES.items()}
    legacy = {"TF_USE_LEGACY_KERAS": "1"} if module == "transformers" else {}
    # -P: the script's folder is not searched for modules; ours are found from the repository alone.
    process = subprocess.Popen(
        [str(interpreter), "-P", str(script), *(f"--{name}={value}" for name, value in words.items())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        env={
            **os.environ,
            **SILENT,
            **switches,
            **legacy,
            "OMP_NUM_THREADS": str(options.threads),
            "PYTHONPATH": str(REPOSITORY) if module == "models" else "",
        },
    )
    return Side(name=f"{module} {framework} {mode}", process=process)


def matrix_speed() -> float:
    """GFLOP/s of one large matrix product in float32."""
    square = np.ones((MATRIX, MATRIX), np.float32)
    start_time = time.perf_counter()
    square @ square
    return 2 * MATRIX**3 / (time.perf_counter() - start_time) / 1e9


def row(framework: str, mode: str, ours: Side, theirs: Side) -> str:
    """One line of the table."""
    mine, other = statistics.median(ours.seconds), statistics.median(theirs.seconds)
    cpu = statistics.median(ours.cpu_seconds) / statistics.median(theirs.cpu_seconds)
    # The ratio of each round, so that a slow minute counts on both sides.
    ratios = sorted(a / b for a, b in zip(ours.seconds, theirs.seconds, strict=True))
    low, high = ratios[len(ratios) // 4], ratios[(3 * len(ratios)) // 4]
    return (
        f"| {framework} | {mode} | {mine * 1e3:,.0f} ms | {other * 1e3:,.0f} ms "
        f"| {statistics.median(ratios):.2f} ({low:.2f} … {high:.2f}) | {cpu:.2f} "
        f"| {ours.peak_bytes / 2**20:,.0f} MiB | {theirs.peak_bytes / 2**20:,.0f} MiB |"
    )


def report(options: argparse.Namespace, rows: list[str], speed: float) -> str:
    """Markdown: how it was measured, and the table."""
    versions = {name: _version(name) for name in ("torch", "tensorflow", "jax", "flax")}
    shown = ", ".join(f"{name} {version}" for name, version in versions.items())
    sentences = [
        f"`python -m jobs.benchmarks.classes --rounds {options.rounds} --head {options.head} --threads {options.threads}`:",
        f"{ARCHITECTURES[options.head]}, {options.layers} layers of width 768, batch {options.batch} x {options.length}",
        f"tokens, float32; {processor()}, Python {platform.python_version()}, {shown}, transformers 4.57.6.",
        "Torch eager, TensorFlow as a graph, Flax under jit; a training step is forward with dropout, backward and SGD.",
        "Medians of shuffled rounds. Ratios are ours by theirs: of wall time (middle half of the rounds in brackets) and of",
        f"the process's CPU time. A matrix product ran at {speed:,.0f} GFLOP/s in between.",
    ]
    head = "| framework | pass | ours | transformers | ratio | CPU ratio | peak, ours | peak, transformers |"
    return "\n".join([*sentences, "", head, "| --- | --- | --- | --- | --- | --- | --- | --- |", *rows])


def _version(name: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


VECTORS = {"amx_bf16": "AMX", "avx512_bf16": "AVX512-BF16", "avx512f": "AVX-512", "avx2": "AVX2"}


def processor() -> str:
    """The processor's name, and the widest vectors that it has: speeds of processors with others can't be compared."""
    names = _cpu_lines("model name")
    name = names[0] if names else platform.processor() or platform.machine()
    flags = cpu_flags()
    vectors = [shown for flag, shown in VECTORS.items() if flag in flags]
    return f"{name} ({', '.join(vectors) or 'neither AVX2 nor AVX-512'})" if flags else name


def cpu_flags() -> set[str]:
    """The processor's features by Linux's names; empty if the system does not report them."""
    return set(next(iter([*_cpu_lines("flags"), *_cpu_lines("Features")]), "").split())


def _cpu_lines(key: str) -> list[str]:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    return [line.partition(":")[2].strip() for line in lines if line.startswith(key)]


if __name__ == "__main__":
    main()
