"""The log: one JSON object per line on the worker's standard error, which Ray collects.

Every line names the run, and where there is one the shard, the replica and the attempt. On the driver's terminal the same
logger prints plain text, warnings and above unless PRELN_LOG_LEVEL says otherwise (`jobs.cli`).
"""

import json
import logging
import os
import sys
from datetime import UTC, datetime

from models.printable import printable
from pipeline.errors import SpecError

LOGGER = "preln"
LEVEL_VARIABLE = "PRELN_LOG_LEVEL"


class JsonLines(logging.Formatter):
    """A record as one JSON object: time, level, message, then what the caller passed as `extra={"fields": {…}}`."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        fields: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            "pid": record.process,
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False, default=str)


def write(message: str, *, level: int = logging.INFO, **extra_fields: object) -> None:
    """One line of a worker's journal; on the way it adds the node and Ray's job."""
    logger = logging.getLogger(LOGGER)
    ray = sys.modules.get("ray")  # a process that has not imported Ray is not a Ray worker
    if ray is None or not ray.is_initialized():
        logger.log(level, message, extra={"fields": extra_fields})
        return
    context = ray.get_runtime_context()
    if context.worker.mode != ray.WORKER_MODE:
        logger.log(level, message, extra={"fields": extra_fields})
        return
    _set_up(logger)
    logger.log(
        level,
        message,
        extra={"fields": {**extra_fields, "node": context.get_node_id(), "ray_job": context.get_job_id()}},
    )


class PlainWords(logging.Formatter):
    """A record as a person reads it: `preln: checkpoint not cached (folder …, cause …)`."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        extra_fields = ", ".join(f"{key} {value}" for key, value in getattr(record, "fields", {}).items())
        cause = f"\n{self.formatException(record.exc_info)}" if record.exc_info else ""
        message = printable(f"{record.getMessage()}{f' ({extra_fields})' if extra_fields else ''}")
        return f"preln: {message}{cause}"


class Terminal(logging.Handler):
    """Prints to the current sys.stderr, which the progress line replaces during a run."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print the record."""
        print(self.format(record), file=sys.stderr, flush=True)


def speak_on_the_terminal() -> None:
    """Log as plain text on this driver's terminal. Raises SpecError for an unknown level."""
    logger = logging.getLogger(LOGGER)
    name = os.environ.get(LEVEL_VARIABLE, "WARNING").upper()
    if name not in logging.getLevelNamesMapping():
        raise SpecError(f"{LEVEL_VARIABLE}={name}: unknown level; use DEBUG, INFO, WARNING or ERROR")
    handler = Terminal()
    handler.setFormatter(PlainWords())
    _speak(logger, handler, level=name)


def _set_up(logger: logging.Logger) -> None:
    if any(isinstance(handler.formatter, JsonLines) for handler in logger.handlers):
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    level = os.environ.get(LEVEL_VARIABLE, "INFO").upper()
    _speak(logger, handler, level=level if level in logging.getLevelNamesMapping() else "INFO")


def _speak(logger: logging.Logger, handler: logging.Handler, *, level: str) -> None:
    logger.handlers[:] = [handler]
    logger.propagate = False
    logger.setLevel(level)
