"""Whether a file is still the one that was planned, asked after reading it, and what that says of a failure."""

from pipeline.errors import SourceError, StorageError
from pipeline.shards import SourceFile
from pipeline.store.storage import info


def check_version(file: SourceFile) -> None:
    """Raise SourceError (gone, changed) unless a file is still the one that was planned.

    Called after reading, so that what was read is what was planned.
    """
    try:
        now = info(file.uri)
    except FileNotFoundError as error:
        raise SourceError(f"{file.uri}: the file is gone", reason="gone") from error
    except StorageError as error:
        if not error.refused:
            raise
        raise SourceError(str(error), reason="unreadable") from error
    if now.version != file.version or now.size != file.size:
        raise SourceError(
            f"{file.uri}: changed since the plan ({file.size} bytes then, {now.size} now); run again to read the new version",
            reason="changed",
        )


def explained(error: SourceError, file: SourceFile) -> tuple[str, str]:
    """The reason of a failed read: `changed` for a file that only looks corrupt or unreadable since it was replaced meanwhile."""
    if error.reason in ("corrupt", "unreadable", "killed-reader"):
        try:
            check_version(file)
        except SourceError as changed:
            error = changed
    return (error.reason, str(error))
