"""What a command asks of a run, apart from its job; imports no Ray."""

from dataclasses import dataclass


@dataclass(frozen=True)
class RunOptions:
    """What one command asks for beyond bringing the folder up to date.

    retry_errors: run the shards with error rows again. prune: drop the rows of input files that are gone.
    accept_failed: close the run although some files failed. probe: run so many shards, spread over the work, and forecast
    the rest.
    """

    retry_errors: bool = False
    prune: bool = False
    accept_failed: bool = False
    probe: int | None = None


DEFAULT_OPTIONS = RunOptions()
