"""Packs of windows in, answers out, by a model in this very process: for debugging, where a crash may end everything."""

from dataclasses import dataclass

from models.boundary import FlatModel
from pipeline.errors import ResourceError
from pipeline.inference.child import answer, load_model
from pipeline.inference.supervisor import Question, Reply, Supervisor


@dataclass
class InProcess(Supervisor):
    """A supervisor without a child: a debugger sees the model, and what kills or hangs the model does so to this process."""

    _model: FlatModel | None = None

    def start(self) -> None:
        """The model loaded. Raises ResourceError with the reason when it can't be."""
        try:
            self._model = load_model(self.order)
        except Exception as error:
            raise ResourceError(f"could not load {self.order.checkpoint}: {error}") from error

    def _call(self, question: Question) -> Reply:
        if self._model is None:
            self.start()
        assert self._model is not None
        reply = answer(self._model, *question, expendable=False)
        if reply[0] == "answers":
            self.seconds.computing += reply[2]  # type: ignore[operator]  # what the tag says, the checker does not see
            return reply[1]  # type: ignore[return-value]
        self.seconds.out_of_memory += reply[1] == "oom"
        return ("out-of-memory" if reply[1] == "oom" else "exception", str(reply[2]))

    def close(self) -> None:
        """Let go of the model."""
        self._model = None
