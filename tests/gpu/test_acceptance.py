"""A GPU is accepted: `pytest -m gpu tests/gpu` on a bare machine, in ten minutes; neither Ray, Arrow, pydantic nor TensorFlow.

Every head in every type against the reference's committed answers, flat against each text alone, memory that really runs out,
a child that is killed with two packs in flight, the part of the memory that a replica may take, and `doctor`.
"""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.benchmarks.gpu import Settings, ask_of, checkpoint, machine, tokens_of
from jobs.embedded import CHECKPOINT, SAMPLE
from models.boundary import Ask, Device, Dtype, Framework, Head, Tokens
from models.load import load
from models.tokenizer import load_tokenizer
from pipeline.inference.batching import TokenBudget
from pipeline.inference.child import LoadOrder
from pipeline.inference.passes import Question
from pipeline.inference.supervisor import Supervisor
from tests.gpu.golden_cases import HEADS, TOLERANCES, distance

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(600)]

FRAMEWORKS = [pytest.param("torch", marks=pytest.mark.torch), pytest.param("flax", marks=pytest.mark.flax)]
ALL_FRAMEWORKS = [*FRAMEWORKS, pytest.param("tensorflow", marks=pytest.mark.tensorflow)]
DEVICE: Device = "cuda"
HEAD: Head = "sequence-classification"
SHARE_GB = 1.0
"""What a process is given that is to run out of memory: weights fit, the largest pack does not."""


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("framework", ALL_FRAMEWORKS)
def test_every_head_answers_as_the_reference(framework: Framework, dtype: Dtype, head: Head) -> None:
    assert distance(head=head, framework=framework, dtype=dtype, device=DEVICE) < TOLERANCES[dtype]


def real_text() -> list[list[int]]:
    """Token ids of the sample's texts."""
    tokenizer = load_tokenizer(str(CHECKPOINT)).backend
    lines = (SAMPLE / "texts.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["text"] or "" for line in lines]
    return [tokenizer.encode(text).ids for text in texts if text.strip()]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("framework", ALL_FRAMEWORKS)
def test_flat_answers_are_those_of_each_text_alone(framework: Framework, dtype: Dtype) -> None:
    ids = real_text()
    flat = load(checkpoint=str(CHECKPOINT), framework=framework, heads=[HEAD], dtype=dtype, device=DEVICE)
    exact = load(checkpoint=str(CHECKPOINT), framework=framework, heads=[HEAD], dtype="float32", device="cpu")
    cu_seqlens = np.cumsum([0, *map(len, ids)]).astype(np.int32)
    together = Tokens(np.concatenate([np.asarray(one, np.int32) for one in ids]), cu_seqlens)
    found = flat(together, {HEAD: Ask(cu_seqlens[:-1])})[HEAD]["logits"]
    for place in range(0, len(ids), 5):
        alone = Tokens(np.asarray(ids[place], np.int32), np.array([0, len(ids[place])], np.int32))
        expected = exact(alone, {HEAD: Ask(alone.cu_seqlens[:-1])})[HEAD]["logits"][0]
        assert np.abs(found[place] - expected).max() < TOLERANCES[dtype] * max(np.abs(expected).max(), 1.0)


def settings(framework: Framework) -> Settings:
    return Settings(DEVICE, framework, "bfloat16", 2, 768, 0, (), 1, 0.9)


def supervisor_of(framework: Framework, folder: Path, **environment: str) -> Supervisor:
    place = checkpoint(HEAD, str(folder), settings(framework))
    order = LoadOrder("models.load:load", place, framework, (HEAD,), "bfloat16", DEVICE)
    return Supervisor(order=order, threads=1, stall=300.0, environment=environment)


def answered(supervisor: Supervisor, packs: Sequence[Tokens], *, budget: TokenBudget | None = None) -> dict[int, Any]:
    """The answer, or error, of every sequence of every pack."""
    windows: list[tuple[int, int]] = [(p, w) for p, one in enumerate(packs) for w in range(len(one.lengths_B))]
    cut = [[n for n, (p, _) in enumerate(windows) if p == pack] for pack in range(len(packs))]

    def ask(part: Sequence[int]) -> Question:
        chosen = [packs[windows[n][0]] for n in part]
        pieces = [
            one.input_ids_T[one.cu_seqlens[windows[n][1]] : one.cu_seqlens[windows[n][1] + 1]]
            for n, one in zip(part, chosen, strict=True)
        ]
        cu_seqlens = np.cumsum([0, *map(len, pieces)]).astype(np.int32)
        tokens = Tokens(np.concatenate(pieces), cu_seqlens)
        return tokens, {HEAD: ask_of(HEAD, tokens)}

    found: dict[int, Any] = {}
    for part, reply in supervisor.solve_all(cut, ask, budget):
        for place, window in enumerate(part):
            found[window] = reply if isinstance(reply, tuple) else reply[HEAD]["logits"][place]
    assert sorted(found) == list(range(len(windows)))
    return found


def total_gb() -> float:
    printed = json.loads(str(machine("torch")["seen"]).splitlines()[-1])
    return float(printed["memory_gb"])


@pytest.mark.torch
def test_memory_that_really_runs_out_halves_the_pack_and_loses_no_row(tmp_path: Path) -> None:
    supervisor = supervisor_of("torch", tmp_path, PRELN_GPU_SHARE=f"{SHARE_GB / total_gb():.4f}")
    try:
        budget = TokenBudget(tokens=262_144)
        found = answered(supervisor, [tokens_of(np.full(512, 512))], budget=budget)
        assert all(isinstance(one, np.ndarray) and np.isfinite(one).all() for one in found.values())
        assert supervisor.seconds.out_of_memory >= 1
        assert supervisor.seconds.children == 1
        assert budget.tokens <= 131_072
    finally:
        supervisor.close()


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_child_killed_with_two_packs_in_flight_loses_no_row_and_blames_none(
    framework: Framework, tmp_path: Path
) -> None:
    supervisor = supervisor_of(framework, tmp_path)
    try:
        supervisor.start()
        assert supervisor._process is not None
        victim = supervisor._process.pid
        packs = [tokens_of(np.full(128, 256)) for _ in range(24)]
        answered(supervisor, packs[:2])
        threading.Timer(0.05, os.kill, (victim, signal.SIGKILL)).start()
        found = answered(supervisor, packs)
        assert all(isinstance(one, np.ndarray) and np.isfinite(one).all() for one in found.values())
        assert supervisor.seconds.children == 2
    finally:
        supervisor.close()


@pytest.mark.flax
def test_a_replica_of_a_part_of_a_gpu_takes_its_part_of_the_memory(tmp_path: Path) -> None:
    supervisor = supervisor_of("flax", tmp_path, XLA_PYTHON_CLIENT_MEM_FRACTION="0.2")
    try:
        supervisor.start()
        assert 0 < float(supervisor.facts["memory_gb"]) <= 0.25 * total_gb()
    finally:
        supervisor.close()


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_child_says_what_it_runs_on(framework: Framework, tmp_path: Path) -> None:
    supervisor = supervisor_of(framework, tmp_path)
    try:
        supervisor.start()
        assert supervisor.facts["device"] == DEVICE
        assert {"name", "capability", "build", "attention", "memory_gb"} <= set(supervisor.facts)
        if float(supervisor.facts["capability"]) >= 8.0:
            assert str(supervisor.facts["attention"]).startswith("varlen" if framework == "torch" else "cuDNN")
    finally:
        supervisor.close()


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="doctor looks at Ray, which is not installed")
def test_doctor_finds_that_jobs_can_run_here(repository: Path) -> None:
    command = [sys.executable, "-m", "jobs", "doctor", "--framework", "torch", "--gpu", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=repository, check=False)
    assert done.returncode == 0, done.stdout
    about = {line["about"]: line for line in map(json.loads, done.stdout.splitlines())}
    assert about["torch model"]["good"] is True
