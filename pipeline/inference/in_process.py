"""Runs the model in this process instead of a child: for debugging, at the price that a crash ends everything."""

import time
from dataclasses import dataclass

from models.boundary import FlatModel
from pipeline.errors import ResourceError
from pipeline.inference.child import load_model, readable
from pipeline.inference.device_errors import out_of_memory
from pipeline.inference.passes import Question
from pipeline.inference.supervisor import Answered, Reply, Supervisor


@dataclass
class InProcess(Supervisor):
    """A supervisor without a child: a debugger sees the model, but what kills or hangs the model hits this process."""

    in_flight: int = 1
    _model: FlatModel | None = None
    _question: Question | None = None

    def start(self) -> None:
        """Load the model. Raises ResourceError with the reason if it can't."""
        try:
            self._model = load_model(self.order)
            self.facts = self._model.try_out()
        except Exception as error:
            raise ResourceError(f"could not load {self.order.checkpoint}: {error}") from error

    def _ask(self, question: Question) -> None:
        self._question = question

    def _reply(self) -> Reply:
        if self._model is None:
            self.start()
        assert self._model is not None
        assert self._question is not None
        began = time.perf_counter()
        try:
            answers = self._model.submit(*self._question).result()
        except Exception as error:
            self.seconds.out_of_memory += out_of_memory(error)
            return ("out-of-memory" if out_of_memory(error) else "exception", readable(error))
        seconds = time.perf_counter() - began
        self.seconds.computing += seconds
        return Answered(answers=answers, seconds=seconds)

    def close(self) -> None:
        """Release the model."""
        self._model = None
