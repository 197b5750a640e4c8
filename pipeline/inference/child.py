"""The process that holds the model: packs of windows in by a pipe, arrays out; it dies with the one that started it.

`python -m pipeline.inference.child` is started by the supervisor and by nothing else. A crash, a hang or a poisoned device is
this process's end and not its supervisor's. Messages are pickled tuples whose first item says what they are:

in    ("load", LoadOrder)              ("run", tokens, asks)
out   ("ready", facts)                 ("answers", answers, seconds)
      ("failed", reason, message)      reason: load, oom, exception
"""

import ctypes
import importlib
import os
import platform
import signal
import sys
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection

from models.boundary import Answers, Ask, FlatModel, Framework, Head, Tokens

_PR_SET_PDEATHSIG = 1

POISONED_EXIT = 70
"""Exit status of a child whose device can't be used any more."""


@dataclass(frozen=True)
class LoadOrder:
    """What a child is to load.

    loader: `module:function`, called with the fields below by keyword; `models.load:load` unless a test says otherwise.
    """

    loader: str
    checkpoint: str
    framework: Framework
    heads: tuple[Head, ...] | Mapping[str, Head]
    dtype: str


def main() -> None:
    """Serve the pipe whose descriptors are the arguments until it closes."""
    parent = int(sys.argv[3])
    _die_with(parent)
    incoming = Connection(int(sys.argv[1]), writable=False)
    outgoing = Connection(int(sys.argv[2]), readable=False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the supervisor decides
    try:
        _serve(incoming, outgoing)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        os._exit(0)


def _die_with(parent: int) -> None:
    if platform.system() == "Linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        os._exit(0)


def _serve(incoming: Connection, outgoing: Connection) -> None:
    _, order = incoming.recv()
    try:
        model = load_model(order)
    except Exception as error:
        outgoing.send(("failed", "load", _readable(error)))
        return
    outgoing.send(("ready", {"pid": os.getpid()}))
    while True:
        _, tokens, asks = incoming.recv()
        outgoing.send(answer(model, tokens, asks))


def load_model(order: LoadOrder) -> FlatModel:
    """The model of a load order."""
    module, _, function = order.loader.partition(":")
    loader = getattr(importlib.import_module(module), function)
    model: FlatModel = loader(
        checkpoint=order.checkpoint, framework=order.framework, heads=order.heads, dtype=order.dtype
    )
    return model


def answer(
    model: FlatModel, tokens: Tokens, asks: Mapping[str, Ask], *, expendable: bool = True
) -> tuple[str, Mapping[str, Answers], float] | tuple[str, str, str]:
    """The reply to one pack: answers and the seconds they took, or why there are none.

    expendable: this process ends where its device can't be used any more; another will take its place.
    """
    began = time.perf_counter()
    try:
        answers = model(tokens, asks)
    except MemoryError as error:
        return ("failed", "oom", _readable(error))
    except Exception as error:
        if out_of_memory(error):
            return ("failed", "oom", _readable(error))
        if expendable and poisoned(error):
            print(_readable(error), file=sys.stderr, flush=True)
            os._exit(POISONED_EXIT)
        return ("failed", "exception", _readable(error))
    return ("answers", answers, time.perf_counter() - began)


def out_of_memory(error: BaseException) -> bool:
    """Whether a framework's exception says that the device has no memory left, in whichever words it has for that."""
    name, text = type(error).__name__, str(error)
    return (
        name in {"OutOfMemoryError", "ResourceExhaustedError"}
        or "RESOURCE_EXHAUSTED" in text
        or "out of memory" in text.lower()
    )


def poisoned(error: BaseException) -> bool:
    """Whether an exception tells of a device that will answer nothing more in this process, whoever asks."""
    return type(error).__name__ == "AcceleratorError" or "CUDA error" in str(error)


def _readable(error: BaseException) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1:] if error.__traceback__ else []
    place = f" ({os.path.basename(last[0].filename)}:{last[0].lineno})" if last else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())}{place}"


if __name__ == "__main__":
    main()
