"""An error in, the exit code of the command that it ended out."""

from jobs.submission.job_api import Unreachable
from pipeline.errors import PrelnError, ResourceError, RunFailed

LATER = 1
"""The same command may succeed later: a failed run, missing nodes, an unreachable cluster."""
WRONG = 2
"""Nothing was started, and something must be changed."""


def exit_code_of(error: PrelnError) -> int:
    """The exit code of a command that this error ended."""
    return LATER if isinstance(error, RunFailed | ResourceError | Unreachable) else WRONG
