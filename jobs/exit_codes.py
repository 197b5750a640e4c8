"""The exit codes of commands, by the error that ended them."""

import sys

from pipeline.errors import PrelnError, ResourceError, RunFailed

LATER = 1
"""Exit code if the same command may succeed later: a failed run, missing nodes, an unreachable cluster."""
WRONG = 2
"""Exit code if nothing was started and something must be changed."""
NOT_OK = 3
"""Exit code if the command did its work and found that something is not as asked."""


def exit_code_of(error: PrelnError) -> int:
    """The exit code of a command that this error ended."""
    later: tuple[type[PrelnError], ...] = (RunFailed, ResourceError)
    if "jobs.submission.job_api" in sys.modules:  # whoever has not imported it has asked no cluster
        from jobs.submission.job_api import Unreachable

        later = (*later, Unreachable)
    return LATER if isinstance(error, later) else WRONG
