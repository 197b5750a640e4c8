"""A device's name as users write it in, TensorFlow's name out, with its memory and threads set once.

TensorFlow fixes both when it first touches a device, so they are set before that, and left alone after it.
"""

import importlib.util
import logging
import os

import tensorflow as tf

from models.boundary import DeviceFacts
from models.errors import PrelnError

logger = logging.getLogger(__name__)

THREADS_VARIABLE = "PRELN_THREADS"


def claim_device(device: str | None) -> str:
    """TensorFlow's name of "cpu", "cuda", "cuda:1", "gpu:0" or one of its own names; None: a GPU if there is one.

    A GPU's memory is taken as it is needed. On a CPU, PRELN_THREADS says how many threads one operation uses.
    Raises PrelnError for a device that is not there.
    """
    _set_once()
    kind, _, number = (device or "").removeprefix("/").lower().removeprefix("device:").partition(":")
    gpus = tf.config.list_physical_devices("GPU")
    if kind in ("", "cuda", "gpu"):
        place = int(number or 0)
        if place < len(gpus):
            return f"/GPU:{place}"
        if not kind:
            return "/CPU:0"
        raise PrelnError(f"device is '{device}', and TensorFlow {tf.__version__} can't use it: {why_no_gpu(len(gpus))}")
    if kind != "cpu":
        raise PrelnError(f"device is '{device}'; TensorFlow takes 'cpu', 'cuda' or 'cuda:N'")
    return "/CPU:0"


def built_for() -> str | None:
    """The CUDA that this build has its libraries for; None for one without, or without its libraries."""
    if not tf.test.is_built_with_gpu_support() or importlib.util.find_spec("nvidia") is None:
        return None
    return f"CUDA {tf.sysconfig.get_build_info().get('cuda_version')}"


def why_no_gpu(gpus: int) -> str:
    """What TensorFlow can say of it: no CUDA in this build, no libraries, no driver."""
    if not tf.test.is_built_with_gpu_support():
        return "this build has no CUDA in it; pip install 'preln[tensorflow-cuda]' on Linux"
    built = tf.sysconfig.get_build_info()
    return (
        f"it sees {gpus} GPUs (built for CUDA {built.get('cuda_version')}, cuDNN {built.get('cudnn_version')}); install the "
        "libraries by pip install 'preln[tensorflow-cuda]', and look at nvidia-smi for the driver"
    )


def exact_float32() -> None:
    """Products in float32 are computed in float32: by default Ampere and later GPUs round their inputs to TF32's 10 bits."""
    tf.config.experimental.enable_tensor_float_32_execution(False)


def device_facts(place: str) -> DeviceFacts:
    """What TensorFlow knows of a device."""
    facts: DeviceFacts = {"device": "cpu", "framework": f"tensorflow {tf.__version__}"}
    if "GPU" not in place:
        return {**facts, "threads": tf.config.threading.get_intra_op_parallelism_threads()}
    gpu = tf.config.list_physical_devices("GPU")[int(place.rpartition(":")[2])]
    details = tf.config.experimental.get_device_details(gpu)
    major, minor = details.get("compute_capability", (0, 0))
    facts |= {"device": "cuda", "name": details.get("device_name", "unknown"), "capability": f"{major}.{minor}"}
    return {**facts, "build": f"CUDA {tf.sysconfig.get_build_info().get('cuda_version')}"}


def _set_once() -> None:
    threads = os.environ.get(THREADS_VARIABLE)
    try:
        for gpu in tf.config.list_physical_devices("GPU"):
            tf.config.experimental.set_memory_growth(gpu, enable=True)
        if threads:
            tf.config.threading.set_intra_op_parallelism_threads(int(threads))
    except RuntimeError:
        # Something has used TensorFlow in this process before: what it set stays.
        logger.info("TensorFlow runs already; its memory and thread settings stay as they are")
