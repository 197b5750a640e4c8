"""The one command for a GPU runs, on a CPU, where neither Ray, Arrow, pydantic nor TensorFlow can be imported."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BARE = "import sys; sys.modules.update(dict.fromkeys(('ray', 'pyarrow', 'pydantic', 'tensorflow')))\n"
SMALL = "--device cpu --layers 1 --width 64 --tokens 2000 --budgets 1024 --reps 2 --dtype float32"


@pytest.mark.torch
def test_the_benchmark_of_a_gpu_runs_on_a_bare_machine(repository: Path, tmp_path: Path) -> None:
    program = f"{BARE}from jobs.benchmarks.gpu import main\nmain({SMALL.split()!r} + ['--out', {str(tmp_path)!r}])"
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, cwd=repository, check=False
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    results = json.loads((tmp_path / "gpu.json").read_text())
    assert {row["head"] for row in results["model"]} == {"sequence-classification", "token-classification"}
    assert len(results["child"]) == 5
    for row in results["child"]:
        assert row["tokens_s"] > 0
        assert 0 < row["child_computes"] <= 1.05
        assert row["facts"]["device"] == "cpu"
    assert 0 < results["model"][0]["share"] < 2
    assert "share of this device's rate" in done.stdout


@pytest.mark.torch
def test_the_acceptance_suite_is_collected_on_a_bare_machine(repository: Path) -> None:
    program = f"{BARE}import pytest\nsys.exit(pytest.main(['--collect-only', '-q', '-m', 'gpu', 'tests/gpu']))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=repository, check=False)
    assert done.returncode == 0, done.stdout[-2_000:]
    assert "test_every_head_answers_as_the_reference" in done.stdout
