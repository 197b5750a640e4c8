"""Finds the folder of a checkpoint by its name, and downloads models of the Hugging Face Hub.

`org/name` that is no folder here, and `hf://org/name[@revision][/folder]`, are the Hub's. Its own cache keeps them, and
HF_HOME, HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE count. huggingface_hub, the extra `hub`, is imported where one is named.
"""

import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from models.errors import CheckpointError

logger = logging.getLogger(__name__)

PROTOCOL = "hf://"
INSTALL = "pip install 'preln[hub]'"
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
IDLE = ("trust_remote_code", "resume_download", "_commit_hash", "_from_auto", "_from_pipeline")
"""Keywords of the reference that change nothing here: no code of a model ever runs, and downloads always resume."""

Choice = Callable[[set[str]], Iterable[str]]
"""The names of a folder's files in, those that are wanted out."""


@dataclass(frozen=True)
class HubOptions:
    """How the Hub is asked: the reference's keywords, of which only `subfolder` means something for other places."""

    revision: str | None = None
    cache_dir: str | os.PathLike[str] | None = None
    token: str | bool | None = None
    local_files_only: bool = False
    force_download: bool = False
    subfolder: str = ""

    @classmethod
    def take(cls, keywords: Mapping[str, Any]) -> "tuple[HubOptions, dict[str, Any]]":
        """These options among the reference's keywords, and the keywords that are left."""
        rest = {name: value for name, value in keywords.items() if name not in IDLE}
        if "use_auth_token" in rest:
            rest.setdefault("token", rest.pop("use_auth_token"))
        found = {name: rest.pop(name) for name in cls.__dataclass_fields__ if name in rest}
        return cls(**{name: value for name, value in found.items() if value is not None}), rest


@dataclass(frozen=True)
class _HubName:
    repository: str
    revision: str | None
    folder: str


def is_hub_name(name: str) -> bool:
    """Whether a text reads like `org/name` and is no path of this machine."""
    return _NAME.fullmatch(name) is not None and not os.path.exists(name)


def refuse_hub_name(url: str) -> None:
    """Raise CheckpointError for a name as a Hub has them where only paths and URLs are taken, and no such folder is here."""
    if is_hub_name(url):
        raise CheckpointError(
            f"{url}: no such checkpoint folder; if it is a model of the Hugging Face Hub, write {PROTOCOL}{url} ({INSTALL})"
        )


def checkpoint_folder(name: str | os.PathLike[str], *, options: HubOptions, choose: Choice) -> str:
    """The folder: as named, with `subfolder`, or the cached copy of a Hub's model, of which the chosen files are there.

    Raises CheckpointError where the Hub has no such model or revision, refuses it, or can't be reached and has left no copy.
    """
    name = os.fspath(name)
    asked = _parse(name)
    if asked is None:
        if options.revision not in (None, "main"):
            logger.warning("%s: revision=%r is the Hub's, and this is not; it is ignored", name, options.revision)
        return f"{name.rstrip('/')}/{options.subfolder.strip('/')}" if options.subfolder else name
    if asked.revision and options.revision and asked.revision != options.revision:
        raise CheckpointError(
            f"{name}: it names a revision, and revision={options.revision!r} another; give one of them"
        )
    folder = "/".join(part for part in (asked.folder, options.subfolder.strip("/")) if part)
    snapshot = _snapshot(name, asked.repository, asked.revision or options.revision, folder, options, choose)
    return f"{snapshot}/{folder}" if folder else snapshot


def _parse(name: str) -> _HubName | None:
    if not name.startswith(PROTOCOL):
        return _HubName(name, None, "") if is_hub_name(name) else None
    parts = name.removeprefix(PROTOCOL).strip("/").split("/")
    if parts[0] == "models":
        parts = parts[1:]
    if len(parts) < 2 or parts[0] in ("datasets", "spaces", "buckets"):
        raise CheckpointError(
            f"{name}: a model of the Hub is hf://org/name, hf://org/name@revision or hf://org/name/folder"
        )
    last, _, revision = parts[1].partition("@")
    return _HubName(f"{parts[0]}/{last}", unquote(revision) or None, "/".join(parts[2:]))


def _snapshot(
    name: str, repository: str, revision: str | None, folder: str, options: HubOptions, choose: Choice
) -> str:
    """Download the files of a checkpoint that `choose` picks, or find them in the cache. Raises CheckpointError."""
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ImportError:
        place = "" if name.startswith(PROTOCOL) else "no such folder here, and "
        raise CheckpointError(f"{name}: {place}a model of the Hub needs huggingface_hub: {INSTALL}") from None
    where: dict[str, Any] = {"cache_dir": options.cache_dir, "token": options.token}
    inside = f"{folder}/" if folder else ""
    wanted, failure = [f"{inside}config.json"], None
    if not options.local_files_only:
        try:
            # Not list_repo_files, which tries for half a minute where nobody answers.
            found = huggingface_hub.HfApi(token=options.token).model_info(repository, revision=revision, timeout=10)
            listed = [sibling.rfilename for sibling in found.siblings or ()]
            files = {file.removeprefix(inside) for file in listed if file.startswith(inside)}
            wanted = [inside + file for file in choose({file for file in files if "/" not in file})]
            if not wanted:
                raise CheckpointError(
                    f"{name}: the Hub's folder has no checkpoint; it has {', '.join(sorted(listed)[:8])}"
                )
        except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
            raise CheckpointError(_refusal(name, revision, error)) from None
        except CheckpointError:
            raise
        except Exception as error:  # offline, no connection, a server that fails: what the cache has will do
            failure = error
    if not any(file.endswith((".safetensors", ".bin", ".h5", ".msgpack")) for file in wanted):
        where["tqdm_class"] = _no_bar()  # a bar is for weights, not for a few small files
    try:
        return str(
            huggingface_hub.snapshot_download(
                repository,
                revision=revision,
                allow_patterns=wanted,
                local_files_only=options.local_files_only or failure is not None,
                force_download=options.force_download,
                **where,
            )
        )
    except (OSError, ValueError) as error:
        reason = failure or error
        rule = "no copy is in the cache" if failure or options.local_files_only else "the download failed"
        detail = f"{type(reason).__name__}: {str(reason).strip().splitlines()[0] if str(reason).strip() else ''}"
        raise CheckpointError(f"{name}: {rule} of the Hub ({detail}); check the connection and HF_ENDPOINT") from None


def _no_bar() -> type[Any]:
    from tqdm.auto import tqdm  # type: ignore[import-untyped]  # huggingface_hub brings it

    class NoBar(tqdm):
        """A bar that nobody sees."""

        def __init__(self, *places: Any, **named: Any) -> None:
            named.pop("name", None)
            super().__init__(*places, **{**named, "disable": True})

    return NoBar


def _refusal(name: str, revision: str | None, error: Exception) -> str:
    if type(error).__name__ == "RevisionNotFoundError":
        return f"{name}: the Hub has no revision {revision!r} of it"
    if type(error).__name__ == "GatedRepoError":
        return f"{name}: the Hub gives it only to those who were granted access; ask there, and set HF_TOKEN or token="
    place = "" if name.startswith(PROTOCOL) else "no such folder here, and "
    return f"{name}: {place}the Hub has no such model, or a private one; check the name, and HF_TOKEN or token="
