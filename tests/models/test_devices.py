"""Every framework refuses a GPU that it can't use, with its own reason; a CPU is described."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from models.boundary import Framework
from models.devices import device_seen
from models.errors import PrelnError
from models.load import FOLDERS

FRAMEWORKS = [
    pytest.param("torch", marks=pytest.mark.torch),
    pytest.param("tensorflow", marks=pytest.mark.tensorflow),
    pytest.param("flax", marks=pytest.mark.flax),
]
REASONS = {
    "torch": "can't use a GPU: ",
    "tensorflow": "can't use it: ",
    "flax": "can't use it: it sees 0 of that kind; ",
}
FIXES = {"torch": "preln[torch]", "tensorflow": "preln[tensorflow-cuda]", "flax": "preln[flax-cuda]"}


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_gpu_that_is_not_there_is_refused_with_the_reason_and_the_fix(framework: Framework, repository: Path) -> None:
    """In a process of its own, as a replica's is: TensorFlow fixes its devices when it is first used."""
    command = [sys.executable, "-m", "models.devices", framework]
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    for device in ("cuda", "cpu"):
        done = subprocess.run([*command, device], capture_output=True, text=True, env=environment, check=True)
        facts = json.loads(done.stdout.splitlines()[-1])
        if device == "cpu":
            assert facts["device"] == "cpu"
            assert facts["framework"].split()[0] in (framework, "jax")
        elif "error" in facts:
            assert REASONS[framework] in facts["error"]
            assert FIXES[framework] in facts["error"] or "driver" in facts["error"].lower()
        else:
            assert facts["device"] == "cuda"


def test_a_framework_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(PrelnError, match=r"torch is not installed .*preln\[torch\]"):
        device_seen("torch", "cpu")
    assert set(FOLDERS) == {"torch", "tensorflow", "flax"}


@pytest.mark.torch
def test_a_gpu_older_than_the_build_is_refused_by_name_with_the_build_that_has_it() -> None:
    from models.roberta_torch.device import refuse_without_code

    built_for = ["sm_75", "sm_80", "sm_86", "sm_90a", "sm_100", "sm_120", "compute_120"]
    refuse_without_code(name="Tesla T4", capability=(7, 5), built_for=built_for, version="PyTorch 2.13.0")
    refuse_without_code(name="H100", capability=(9, 0), built_for=built_for, version="PyTorch 2.13.0")
    refuse_without_code(name="AMD", capability=(9, 4), built_for=["gfx90a"], version="PyTorch 2.13.0+rocm")
    with pytest.raises(PrelnError, match=r"Tesla V100-SXM2-16GB \(sm_70\) is older .*\(sm_75 and newer\).*whl/cu126"):
        refuse_without_code(
            name="Tesla V100-SXM2-16GB", capability=(7, 0), built_for=built_for, version="PyTorch 2.13.0"
        )


@pytest.mark.tensorflow
def test_tensorflow_takes_a_gpu_s_memory_as_it_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import tensorflow as tf

    from models.roberta_tf import device

    grown: list[str] = []
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [f"{kind}:0", f"{kind}:1"])
    monkeypatch.setattr(
        tf.config.experimental, "set_memory_growth", lambda gpu, *, enable: grown.append(f"{gpu} {enable}")
    )
    assert device.claim_device("cuda:1") == "/GPU:1"
    assert grown == ["GPU:0 True", "GPU:1 True"]
