"""What happens on a node in, one JSON object a line on the worker's standard error out, which Ray keeps and collects.

Every line names the run, and where there is one the shard, the replica and the attempt. On the driver's terminal the same
logger speaks plain words (`jobs.connect`).
"""

import json
import logging
import os
import sys
from datetime import UTC, datetime

import ray

LOGGER = "preln"
LEVEL_VARIABLE = "PRELN_LOG_LEVEL"


class JsonLines(logging.Formatter):
    """A record as one JSON object: time, level, message, then what the caller told by `extra={"told": {…}}`."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        fields: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            "pid": record.process,
            **getattr(record, "told", {}),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False, default=str)


def write(message: str, *, level: int = logging.INFO, **told: object) -> None:
    """One line of a worker's journal; on the way it adds the node and Ray's job."""
    logger = logging.getLogger(LOGGER)
    if not ray.is_initialized():
        logger.log(level, message, extra={"told": told})
        return
    context = ray.get_runtime_context()
    if context.worker.mode != ray.WORKER_MODE:
        logger.log(level, message, extra={"told": told})
        return
    _set_up(logger)
    logger.log(level, message, extra={"told": {**told, "node": context.get_node_id(), "ray_job": context.get_job_id()}})


def _set_up(logger: logging.Logger) -> None:
    if any(isinstance(handler.formatter, JsonLines) for handler in logger.handlers):
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logger.handlers[:] = [handler]
    logger.propagate = False
    logger.setLevel(os.environ.get(LEVEL_VARIABLE, "INFO").upper())
