"""Reads a checkpoint folder at any path or URL: its config, tensors and digests.

A folder holds config.json, model.safetensors (or shards with an index) and the tokenizer's files. It may hold only a
head's tensors and name its encoder's folder by `base_model_name_or_path` in config.json (a URL or a folder beside it).
Names are neutral (models.tensors). Credentials come from the environment, as fsspec takes them. Other formats of
weights are read too (models.weight_files); pickle only where the caller brings an opener for it.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from fsspec.implementations.local import LocalFileSystem

from models.added_tokens import changes_digest
from models.addresses import open_address
from models.boundary import Head
from models.calibration_file import CALIBRATION_NAME, Calibration, parse_calibration
from models.checks import check_config
from models.config import CONFIG_NAME, RobertaPreLayerNormConfig, read_config
from models.errors import CheckpointError
from models.families import PRE_LAYER_NORM
from models.hub import refuse_hub_name
from models.safetensors_file import AnyArray, TensorInfo
from models.tensors import HEADS, LAYER, PREFIX, expected_tensors, second_names, stored_name
from models.unread_parts import refuse_labels, refuse_unread, refuse_whole_numbers
from models.weight_files import PickleOpener, WeightFiles, WeightKind, first_kind, open_weights, without_other_kinds

TOKENIZER_NAMES = (
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
SENTENCEPIECE_NAME = "sentencepiece.bpe.model"
# Fields of config.json that no answer depends on.
SILENT_FIELDS = ("transformers_version", "architectures", "_name_or_path", "dtype", "base_model_name_or_path")
MAX_BASES = 4
EXTRAS = {"hf://": "hub", "s3://": "s3", "gs://": "gcs", "gcs://": "gcs", "abfs": "azure", "az://": "azure"}
# By which stores tell the versions of a file apart; blob_id is the Hub's.
STATE_KEYS = ("ETag", "etag", "md5Hash", "blob_id", "mtime", "LastModified")
TensorDigests: TypeAlias = dict[tuple[str, str], str]
"""(files, tensor) -> digest."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """One folder, opened: only config.json and the headers have been read.

    url: as given. config: config.json. sources: the files of this folder, then those of the encoder it names.
    calibration: the folder's own, if it has one.
    """

    url: str
    config: RobertaPreLayerNormConfig
    sources: tuple[WeightFiles, ...]
    calibration: Calibration | None = None

    @classmethod
    def open(
        cls,
        url: str,
        *,
        pickle: PickleOpener | None = None,
        config: RobertaPreLayerNormConfig | None = None,
        preferred: WeightKind | None = None,
    ) -> "Checkpoint":
        """Read config.json and the weights' headers.

        pickle: what opens pytorch_model.bin, for a caller who trusts the folder. config: stands for a config.json that is not
        there. preferred: the format to read where the folder has several.
        Raises CheckpointError where the folder, config.json or the weights are missing, cut off or not of this
        model, naming what was found instead.
        """
        url = str(url)
        names = _find_folder(url, bare=config is not None)
        fields = config.to_dict() if config is not None and CONFIG_NAME not in names else read_config(url)
        config = _config(url, fields)
        calibration = read_calibration(url, id2label=config.id2label) if CALIBRATION_NAME in names else None
        names = without_other_kinds(names, kept=preferred)
        sources = [open_weights(url=url, names=names, pickle=pickle, family=config.family)]
        refuse_unread(url=url, names=names, fields=fields, tensors=())
        base, place = fields.get("base_model_name_or_path"), url
        for _ in range(MAX_BASES):
            if not base:
                break
            place = beside(url=place, name=base)
            names = _find_folder(place)
            around = read_config(place)
            refuse_unread(url=place, names=names, fields=around, tensors=())
            if around.get("model_type", PRE_LAYER_NORM) != config.model_type:
                raise CheckpointError(
                    f"{url}: its model_type is '{config.model_type}', that of the encoder it names, {place}, "
                    f"'{around.get('model_type')}'; name an encoder of the same model_type"
                )
            sources.append(open_weights(url=place, names=names, pickle=pickle, family=config.family))
            base = around.get("base_model_name_or_path")
        else:
            raise CheckpointError(
                f"{url}: base_model_name_or_path chains more than {MAX_BASES} folders; is it circular?"
            )
        return cls(url=url, config=config, sources=tuple(sources), calibration=calibration)

    @property
    def tensors(self) -> dict[str, TensorInfo]:
        """Neutral name -> shape and type of every tensor; a folder's own win over those of the encoder it names.

        Second names of tied tensors are left out.
        """
        seconds = second_names(self.config)
        return {
            name: info
            for source in reversed(self.sources)
            for name, info in source.tensors.items()
            if name not in seconds
        }

    @property
    def stored_dtype(self) -> str:
        """The type that most weights are stored in, e.g. "float32"."""
        sizes: dict[str, int] = {}
        for info in self.tensors.values():
            sizes[info.dtype.name] = sizes.get(info.dtype.name, 0) + info.stop - info.start
        return max(sizes, key=lambda name: sizes[name], default="float32")

    def stream(self, names: Iterable[str] | None = None) -> Iterator[tuple[str, AnyArray]]:
        """(name, array) of the named tensors, or of all, file by file; read-only arrays, each read when reached."""
        wanted = set(self.tensors if names is None else names)
        for source in self.sources:
            mine = [name for name in source.tensors if name in wanted]
            wanted -= set(mine)
            yield from source.read(mine)
        if wanted:
            raise CheckpointError(f"{self.url}: no tensor '{min(wanted)}'")

    def heads(self) -> list[Head]:
        """The heads whose tensors are all here in the right size (the bare encoder always counts as one)."""
        found: list[Head] = []
        tensors = self.tensors
        if self._lacking_layer(tensors) is not None:
            return []
        for head in HEADS:
            shapes = expected_tensors(config=self.config, head=head)
            if all(name in tensors and tensors[name].shape == shape for name, shape in shapes.items()):
                found.append(head)
        return found

    def check(self, *, heads: Sequence[Head], tokenizer: bool = False) -> None:
        """Refuse, from the headers alone, a checkpoint that these heads can't be built from.

        Raises CheckpointError naming the first tensor that is missing or of another size than config.json says, and
        with tokenizer=True where the tokenizer's files are missing.
        """
        try:
            check_config(self.config)
        except (ValueError, TypeError, AttributeError, OverflowError) as error:
            raise CheckpointError(f"{self.url}: {CONFIG_NAME} is not valid: {error}; fix {CONFIG_NAME}") from None
        refuse_labels(url=self.url, id2label=self.config.id2label, heads=heads)
        tensors = self.tensors
        if heads and (lacking := self._lacking_layer(tensors)) is not None:
            raise CheckpointError(self._missing(heads[0], lacking))
        for head in heads:
            refuse_whole_numbers(url=self.url, tensors=tensors, wanted=expected_tensors(config=self.config, head=head))
            for name, shape in expected_tensors(config=self.config, head=head).items():
                if name not in tensors:
                    raise CheckpointError(self._missing(head, name))
                if tensors[name].shape != shape:
                    name_there = stored_name(name, family=self.config.family)
                    raise CheckpointError(
                        f"{self.url}: '{name_there}' is {tensors[name].shape}, {CONFIG_NAME} says {shape} for the head "
                        f"'{head}'; was it saved from another size, label count or head?"
                    )
        if tokenizer:
            check_tokenizer_files(self.url)

    def _lacking_layer(self, tensors: Mapping[str, TensorInfo]) -> str | None:
        """A tensor of the first layer that is not there at all; found before a name is made for each tensor of all layers."""
        name, *_ = LAYER
        names = (f"{PREFIX}{name.format(i=layer)}" for layer in range(self.config.num_hidden_layers))
        return next((name for name in names if name not in tensors), None)

    def _missing(self, head: Head, name: str) -> str:
        if name.startswith(PREFIX):
            name = stored_name(name, family=self.config.family)
            return f"{self.url}: '{name}' is missing, which {CONFIG_NAME} asks for; was it saved from another size?"
        found = ", ".join(other for other in self.heads() if other != "encoder") or "none but the encoder"
        return (
            f"{self.url}: no head '{head}' ('{name}' is missing); it has heads: {found}; "
            "name a checkpoint trained for this task"
        )

    def weights_digest(self, *, seen: TensorDigests | None = None) -> str:
        """Hash over every tensor's name, type, shape and bytes; the same however they are spread over files.

        seen: digests of tensors that were read for another checkpoint of the same files; filled here.
        """
        seen = {} if seen is None else seen
        wanted, parts = set(self.tensors), dict[str, str]()
        for source in self.sources:
            mine, where = [name for name in source.tensors if name in wanted], "\n".join(source.paths)
            wanted -= set(mine)
            fresh = [name for name in mine if (where, name) not in seen]
            seen.update({(where, name): _array_digest(array) for name, array in source.read(fresh)})
            parts |= {name: seen[where, name] for name in mine}
        return _digest(f"{name} {parts[name]}".encode() for name in sorted(parts))

    def config_digest(self) -> str:
        """Hash over the fields of config.json that answers depend on."""
        fields = {name: value for name, value in self.config.to_dict().items() if name not in SILENT_FIELDS}
        return _digest([json.dumps(fields, sort_keys=True, default=str).encode()])

    def tokenizer_digest(self) -> str:
        """Hash over the names and bytes of the tokenizer's files."""
        files = read_tokenizer_files(self.url)
        parts = [part for name in sorted(files) for part in (name.encode(), files[name])]
        try:
            changed = changes_digest(files)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError) as error:
            raise CheckpointError(
                f"{self.url}: the tokenizer's files can't be read: {error}; copy them again"
            ) from None
        return _digest([*parts, b"added tokens are read"] if changed else parts)

    def digest(self, *, seen: TensorDigests | None = None) -> str:
        """Hash over weights, config, tokenizer and calibration: the same digest, the same answers. seen: as in
        `weights_digest`."""
        parts = (self.weights_digest(seen=seen), self.config_digest(), self.tokenizer_digest())
        return _digest([*(part.encode() for part in parts), *self._calibrated()])

    def _calibrated(self) -> list[bytes]:
        """Nothing for a folder without calibration.json, whose digest stays what it was."""
        return [] if self.calibration is None else [CALIBRATION_NAME.encode(), self.calibration.identity()]

    def stamp(self) -> str:
        """Cheap key of the folder's state (each weights file's path, size, etag or time) to cache digests by."""
        lines = [self.config_digest()]
        for source in self.sources:
            for path in source.paths:
                info = source.system.info(path)
                state = next((info[key] for key in STATE_KEYS if info.get(key)), "")
                lines.append(f"{path} {info['size']} {state}")
        return _digest([*(line.encode() for line in lines), *self._calibrated()])


def check(*, checkpoint: "Checkpoint | str", heads: Sequence[Head], tokenizer: bool = True) -> Checkpoint:
    """Open a checkpoint if need be, and refuse it if it lacks these heads or its tokenizer."""
    opened = checkpoint if isinstance(checkpoint, Checkpoint) else Checkpoint.open(checkpoint)
    opened.check(heads=heads, tokenizer=tokenizer)
    return opened


def _config(url: str, fields: dict[str, Any]) -> RobertaPreLayerNormConfig:
    try:
        return RobertaPreLayerNormConfig.from_dict(fields)
    except (ValueError, TypeError, AttributeError, KeyError, OverflowError) as error:
        raise CheckpointError(f"{url}: {CONFIG_NAME} is not valid: {error}; fix {CONFIG_NAME}") from None


def beside(*, url: str, name: Any) -> str:
    """Where `base_model_name_or_path` points: a folder beside this one, or an address in the same store and bucket.

    Raises CheckpointError for any other, since whoever wrote the checkpoint would choose what this machine opens: `::` chains
    file systems of fsspec, of which some run code, and another bucket is asked with this machine's credentials.
    """
    parent, _, _ = url.rstrip("/").rpartition("/")
    if not isinstance(name, str) or "::" in name or "\0" in name:
        raise CheckpointError(f"{url}: base_model_name_or_path is {name!r}; it must be a folder's name or address")
    absolute = "://" in name or name.startswith("/")
    place = name if absolute or not parent else f"{parent}/{name}"
    if store_of(place) != store_of(url):
        raise CheckpointError(
            f"{url}: base_model_name_or_path is {name!r}, in another store or bucket than this folder, which is not "
            "followed; put the encoder's folder beside this one and write its name there"
        )
    return place


def store_of(url: str) -> str:
    """The protocol of an address, and the bucket or host where it has one: `s3://models`, `file://`."""
    protocol, separator, path = url.partition("://")
    if not separator or protocol in ("file", "local"):
        return "file://"
    return f"{protocol}://{path.partition('/')[0]}"


def read_calibration(url: str, *, id2label: Any) -> Calibration:
    """A folder's calibration.json. Raises CheckpointError."""
    system, folder = open_address(url)
    return parse_calibration(system.cat_file(f"{folder}/{CALIBRATION_NAME}"), url=url, id2label=id2label)


def check_tokenizer_files(url: str) -> None:
    """Raise CheckpointError unless the folder has tokenizer.json, or vocab.json with merges.txt."""
    names = file_names(url)
    if SENTENCEPIECE_NAME in names and "tokenizer.json" not in names and not {"vocab.json", "merges.txt"} <= names:
        raise CheckpointError(
            f"{url}: no tokenizer.json, only {SENTENCEPIECE_NAME}; `preln convert {url} NEW_FOLDER` makes one of it"
        )
    if "tokenizer.json" not in names and not {"vocab.json", "merges.txt"} <= names:
        raise CheckpointError(
            f"{url}: no tokenizer: neither tokenizer.json nor vocab.json with merges.txt; found {listing(names)}"
        )


def read_tokenizer_files(url: str) -> dict[str, bytes]:
    """Name -> bytes of the tokenizer's files that the folder has."""
    system, folder = open_address(url)
    names = file_names(url)
    return {name: system.cat_file(f"{folder}/{name}") for name in TOKENIZER_NAMES if name in names}


def _find_folder(url: str, *, bare: bool = False) -> set[str]:
    """The names of a folder's files. bare: it may lack config.json."""
    names = file_names(url)
    if not names:
        refuse_hub_name(url)
        raise CheckpointError(f"{url}: no such checkpoint folder, or it is empty; check the path and the credentials")
    if CONFIG_NAME not in names and not bare:
        hint = ""
        if first_kind(names, pickle=True):
            hint = (
                "; weights alone, as torch.save and the Trainer of transformers leave them, say neither sizes nor labels: call "
                "model.save_pretrained() on this folder, or pass config= to from_pretrained"
            )
        raise CheckpointError(f"{url}: no {CONFIG_NAME}; found {listing(names)}{hint}")
    return names


def file_names(url: str) -> set[str]:
    """What a folder holds; a pipe or a socket of this machine, which could be read forever, is no file of a checkpoint."""
    try:
        system, folder = open_address(url)
        system.invalidate_cache()
        paths = [str(path) for path in system.ls(folder, detail=False)]
        if isinstance(system, LocalFileSystem):
            paths = [path for path in paths if Path(path).is_file() or Path(path).is_dir() or not Path(path).exists()]
        return {path.rsplit("/", 1)[-1] for path in paths}
    except (FileNotFoundError, NotADirectoryError):
        return set()
    except ImportError as error:
        extra = next((name for start, name in EXTRAS.items() if str(url).startswith(start)), None)
        advice = f"pip install 'preln[{extra}]'" if extra else "install what it needs"
        raise CheckpointError(f"{url}: {error}; {advice}") from error
    except Exception as error:  # every store's client has exceptions of its own: no credentials, no such protocol, …
        raise CheckpointError(
            f"{url}: can't be listed ({type(error).__name__}: {error}); check the URL and the credentials"
        ) from error


def listing(names: set[str]) -> str:
    shown = sorted(names)[:8]
    return ", ".join(shown) + (", …" if len(names) > len(shown) else "")


def _array_digest(array: AnyArray) -> str:
    shape = "x".join(map(str, array.shape))
    block = np.ascontiguousarray(array).reshape(-1).view(np.uint8) if array.size else np.empty(0, np.uint8)
    return _digest([f"{array.dtype.name} {shape} ".encode(), block.data])


def _digest(parts: Iterable[bytes | memoryview]) -> str:
    whole = hashlib.sha256()
    for part in parts:
        whole.update(f"{len(part)}:".encode())
        whole.update(part)
    return whole.hexdigest()
