"""Every error that preln reports to a user, as one tree.

PrelnError (models.errors)           one readable line; exit code 2 unless said
├── CheckpointError (models.errors)  a checkpoint that is missing, incomplete, of another size, or refused
├── SpecError                        a job that can't work as written: unknown key, missing column, no input
│   └── OptionError                  an option of a task that its checkpoint can't serve
├── OutputError                      an output folder that belongs to another job
├── StorageError                     an object store that refused, or stayed away longer than the retries
├── ResourceError                    replicas that the cluster can't place, or that could not start
├── RunFailed                        a run that started and could not continue; exit code 1
└── SourceError                      an input file that is corrupt, gone or changed since the plan: its shards fail,
                                     the others go on; it ends no run, and the run ends with exit code 3

What goes wrong with a single row is none of these: it is the `error` of that row (`pipeline.rows`).
"""

from typing import TypeAlias

from models.errors import CheckpointError, PrelnError

__all__ = [
    "CheckpointError",
    "OptionError",
    "OutputError",
    "PrelnError",
    "ResourceError",
    "RowError",
    "RunFailed",
    "SourceError",
    "SpecError",
    "StorageError",
]


RowError: TypeAlias = tuple[str, str]
"""Why one row has no answer: (reason, message)."""


class SpecError(PrelnError):
    """A job that can't work as it is written, and what to change."""


class OptionError(SpecError):
    """An option of a task that its checkpoint can't serve.

    option: the option's name, None for the task as a whole.
    """

    def __init__(self, option: str | None, message: str) -> None:
        super().__init__(_under("task", option, message))
        self.option = option
        self.message = message

    def __reduce__(self) -> tuple[object, ...]:
        return (OptionError, (self.option, self.message))

    def under(self, key: str) -> str:
        """The message for a task that the job has under this key."""
        return _under(key, self.option, self.message)


def _under(key: str, option: str | None, message: str) -> str:
    return f"{key}: {message}" if option is None else f"{key}.{option}: {message}"


class OutputError(PrelnError):
    """An output folder that another job has written, and the difference."""


class StorageError(PrelnError):
    """A store that refused an operation, or (refused is False) stayed out of reach longer than the retries."""

    def __init__(self, message: str, *, refused: bool = True) -> None:
        super().__init__(message)
        self.refused = refused

    def __reduce__(self) -> tuple[object, ...]:
        return (_storage_error, (str(self), self.refused))


def _storage_error(message: str, refused: bool) -> StorageError:
    return StorageError(message, refused=refused)


class ResourceError(PrelnError):
    """Replicas that can't be placed, or could not start, and why."""


class RunFailed(PrelnError):
    """A run that started and could not continue, and why; committed shards stay."""


class SourceError(PrelnError):
    """An input file that can't be read as planned; `reason` is one of corrupt, gone, changed, unreadable, killed-reader."""

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[object, ...]:
        return (_source_error, (str(self), self.reason))


def _source_error(message: str, reason: str) -> SourceError:
    return SourceError(message, reason=reason)
