"""The process that holds the model: takes packs of windows through a pipe and sends arrays; it dies with its supervisor.

`python -m pipeline.inference.child` is started by the supervisor only. A crash, a hang or a lost device ends this process and
not the supervisor. One thread reads, the main one prepares and submits, one waits for answers and sends them, so that the
device has its next pack before it has finished the current one. Messages are pickled tuples whose first item is their kind:

in    ("load", LoadOrder)              ("run", tokens, asks)
out   ("ready", facts)                 ("answers", answers, seconds)
      ("failed", reason, message)      reason: load, oom, exception
"""

import importlib
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from models.boundary import Answers, Ask, Device, DeviceFacts, Done, FlatModel, Framework, Head, Pending, Tokens
from pipeline.inference.child_process import pipe_of_parent
from pipeline.inference.device_errors import lost, out_of_memory
from pipeline.inference.pipe import Pipe

POISONED_EXIT = 70
"""Exit status of a child whose device has failed."""

Reply = tuple[str, Mapping[str, Answers], float] | tuple[str, str, str]


@dataclass(frozen=True)
class LoadOrder:
    """What a child is to load.

    loader: `module:function`, called with the fields below by keyword; `models.load:load` unless a test says otherwise.
    device: what it must run on: "cuda" is a GPU or an error, never a CPU.
    """

    loader: str
    checkpoint: str
    framework: Framework
    heads: tuple[Head, ...] | Mapping[str, Head]
    dtype: str
    device: Device = "cpu"


def main() -> None:
    """Serve the pipe whose descriptors are the arguments until it closes."""
    pipe = pipe_of_parent()
    try:
        _serve(pipe)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        os._exit(0)


def _serve(pipe: Pipe) -> None:
    """Load the model, report that it is ready or why not, then answer packs until the pipe closes."""
    _, order = pipe.receive()
    try:
        model = load_model(order)
        facts = model.try_out()
    except Exception as error:
        pipe.send(("failed", "load", readable(error)))
        return
    sys.stdout.flush()
    sys.stderr.flush()
    pipe.send(("ready", {"pid": os.getpid(), "dtype": order.dtype, **facts}))
    inbox: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()
    outbox: queue.SimpleQueue[Begun] = queue.SimpleQueue()
    _in_a_thread(lambda: _read(pipe, inbox))
    _in_a_thread(lambda: _send(pipe, model, outbox))
    while True:
        _, tokens, asks = inbox.get()
        outbox.put(begin(model, tokens, asks))


def _in_a_thread(work: Callable[[], None]) -> None:
    """Run a function in a thread beside the main one; when it ends, the process ends."""

    def run() -> None:
        try:
            work()
        except (EOFError, BrokenPipeError, ConnectionResetError):
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)

    threading.Thread(target=run, daemon=True).start()


def _read(pipe: Pipe, inbox: "queue.SimpleQueue[tuple[Any, ...]]") -> None:
    while True:
        inbox.put(pipe.receive())


def _send(pipe: Pipe, model: FlatModel, outbox: "queue.SimpleQueue[Begun]") -> None:
    free_at = 0.0
    while True:
        reply, free_at = finish(model, outbox.get(), free_at=free_at)
        pipe.send(reply)


class AtOnce:
    """Wraps a plain function of tokens and asks as a model, which computes at once and has no device of its own."""

    def __init__(self, answer: Callable[[Tokens, Mapping[str, Ask]], Mapping[str, Answers]]) -> None:
        self._answer = answer

    def __call__(self, tokens: Tokens, asks: Mapping[str, Ask]) -> Mapping[str, Answers]:
        """The function's answers."""
        return self._answer(tokens, asks)

    def submit(self, tokens: Tokens, asks: Mapping[str, Ask]) -> Pending:
        """The function's answers, computed now."""
        return Done(self._answer(tokens, asks))

    def try_out(self) -> DeviceFacts:
        """No trial: such a function may answer anything."""
        return {"device": "cpu"}

    def probe(self) -> None:
        """No probe: there is no device that could be lost."""


def load_model(order: LoadOrder) -> FlatModel:
    """The model of a load order; a plain function is wrapped."""
    module, _, function = order.loader.partition(":")
    loader = getattr(importlib.import_module(module), function)
    model: FlatModel = loader(
        checkpoint=order.checkpoint,
        framework=order.framework,
        heads=order.heads,
        dtype=order.dtype,
        device=order.device,
    )
    return model if hasattr(model, "submit") else AtOnce(model)


@dataclass(frozen=True, eq=False)
class Begun:
    """A submitted pack. began: when it was submitted; done: when it was answered, if that was at once."""

    pending: Pending | Exception
    began: float
    done: float | None


def begin(model: FlatModel, tokens: Tokens, asks: Mapping[str, Ask]) -> Begun:
    """Submit a pack; an exception is kept, and sent as its answer when its turn comes."""
    began = time.perf_counter()
    try:
        pending: Pending | Exception = model.submit(tokens, asks)
    except Exception as error:
        return Begun(error, began, None)
    return Begun(pending, began, time.perf_counter() if isinstance(pending, Done) else None)


def finish(model: FlatModel, begun: Begun, *, free_at: float = 0.0) -> tuple[Reply, float]:
    """The reply to a pack, and when it was ready. Its seconds count from when the device had finished the previous pack."""
    try:
        if isinstance(begun.pending, Exception):
            raise begun.pending
        answers = begun.pending.result()
    except Exception as error:
        return failure(model, error), time.perf_counter()
    done = begun.done or time.perf_counter()
    return ("answers", answers, done - max(begun.began, free_at)), done


def answer(model: FlatModel, tokens: Tokens, asks: Mapping[str, Ask]) -> Reply:
    """The reply to one pack: answers and the seconds they took, or the failure."""
    return finish(model, begin(model, tokens, asks))[0]


def failure(model: FlatModel, error: Exception) -> Reply:
    """The failure message for an exception. Ends the process if the device is lost, since every later row would fail."""
    if out_of_memory(error):
        return ("failed", "oom", readable(error))
    if not isinstance(error, ValueError) and (lost(error) or _does_not_answer(model)):
        print(readable(error), file=sys.stderr, flush=True)
        os._exit(POISONED_EXIT)
    return ("failed", "exception", readable(error))


def _does_not_answer(model: FlatModel) -> bool:
    try:
        model.probe()
    except Exception as error:
        print(f"the device no longer answers: {readable(error)}", file=sys.stderr, flush=True)
        return True
    return False


def readable(error: BaseException) -> str:
    """An exception as one line with its place."""
    last = traceback.extract_tb(error.__traceback__)[-1:] if error.__traceback__ else []
    place = f" ({os.path.basename(last[0].filename)}:{last[0].lineno})" if last else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())}{place}"


if __name__ == "__main__":
    main()
