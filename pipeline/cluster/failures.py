"""Finds the error of ours that made Ray raise, with its own message and without Ray's."""

import re

import ray.exceptions

from pipeline import errors
from pipeline.errors import PrelnError, ResourceError

_OURS = re.compile(r"(?:pipeline|models)\.errors\.(\w+): (.+)")


def caused_by(error: Exception) -> Exception:
    """Our own error inside a remote one; the error itself if there is none.

    Ray carries an exception of a task as an object, but one of an actor's constructor only as its traceback's text.
    """
    if isinstance(error, ray.exceptions.RayTaskError) and isinstance(error.cause, PrelnError):
        return error.cause  # `error` is an instance of both classes, and its message is Ray's
    if isinstance(error, PrelnError):
        return error
    found = _OURS.findall(str(error))
    if found:
        name, message = found[-1]
        kind = getattr(errors, name, PrelnError)
        return kind(message) if kind is not errors.SourceError else PrelnError(message)
    if isinstance(error, ray.exceptions.OutOfMemoryError):
        return ResourceError(
            f"a node ran out of memory and Ray ended a worker again and again: {str(error).splitlines()[0]}"
        )
    return error
