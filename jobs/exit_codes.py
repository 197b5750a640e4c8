"""An error in, the exit code of the command that it ended out."""

import sys

from pipeline.errors import PrelnError, ResourceError, RunFailed

LATER = 1
"""The same command may do better later: a run that had begun, nodes that did not come, a cluster that went out of reach."""
WRONG = 2
"""Nothing was started, and something must be changed."""


def exit_code_of(error: PrelnError) -> int:
    """What the shell is told."""
    later: tuple[type[PrelnError], ...] = (RunFailed, ResourceError)
    if "jobs.submission.job_api" in sys.modules:  # whoever has not imported it has asked no cluster
        from jobs.submission.job_api import Unreachable

        later = (*later, Unreachable)
    return LATER if isinstance(error, later) else WRONG
