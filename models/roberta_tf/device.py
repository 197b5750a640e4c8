"""A device's name as users write it in, TensorFlow's name out, with its memory and threads set once.

TensorFlow fixes both when it first touches a device, so they are set before that, and left alone after it.
"""

import logging
import os

import tensorflow as tf

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
        raise PrelnError(f"device is '{device}', TensorFlow sees {len(gpus)} GPUs; choose 'cpu', or check the driver")
    if kind != "cpu":
        raise PrelnError(f"device is '{device}'; TensorFlow takes 'cpu', 'cuda' or 'cuda:N'")
    return "/CPU:0"


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
