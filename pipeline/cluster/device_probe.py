"""Probes, in a separate process, what a framework sees of a device on this machine."""

import json
import os
import subprocess
import sys

from models.boundary import DeviceFacts, Framework
from pipeline.errors import ResourceError

SECONDS = 300.0
"""Importing a framework from a cold network disk takes long; beyond this, the driver hangs."""
HALF_FROM = 8.0
"""Compute capability from which bfloat16 is multiplied natively: Ampere."""
FLOAT16_FROM = 7.0
"""Compute capability from which float16 is fast: Volta and Turing, whose float32 is about 8 times slower."""


def probe_device(framework: Framework, device: str) -> DeviceFacts:
    """What a replica on this machine would find. Raises ResourceError with the framework's reason."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-m", "models.devices", framework, device]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, env=environment, check=False)
    except subprocess.TimeoutExpired:
        raise ResourceError(f"{framework} did not answer within {SECONDS:.0f} s when probed for '{device}'") from None
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        words = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise ResourceError(f"{framework} ended with exit status {done.returncode} when asked for '{device}': {words}")
    facts: DeviceFacts = json.loads(lines[-1])
    if "error" in facts:
        raise ResourceError(str(facts["error"]))
    return facts


def gpu_dtype(facts: DeviceFacts) -> tuple[str, str | None]:
    """The dtype that `auto` means on a GPU, and a remark for the job's owner, if any."""
    capability = float(facts.get("capability", 0.0))
    if capability >= HALF_FROM:
        return "bfloat16", None
    remark = None
    if capability >= FLOAT16_FROM:
        remark = (
            f"{facts.get('name', 'this GPU')} (compute capability {capability}) has no bfloat16: `dtype: auto` is float32 here. "
            "float16 is about 8 times as fast on it; set model.dtype: float16 if its answers are good enough for you"
        )
    return "float32", remark
