"""Opens a checkpoint of any origin: its config, and its tensors under neutral names.

Origins are folders of every family in every format (models.checkpoint), fairseq's .pt files, and the folders of DinkyTrain
(princeton-nlp's efficient_mlm), whose names begin with `roberta.`. Nothing is written here.
"""

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np

from models.addresses import open_address
from models.calibration_file import CALIBRATION_NAME
from models.checkpoint import SENTENCEPIECE_NAME, Checkpoint, read_tokenizer_files
from models.config import CONFIG_NAME, RobertaPreLayerNormConfig
from models.dinkytrain_folder import dinkytrain_config, dinkytrain_names, is_dinkytrain
from models.errors import CheckpointError, PrelnError
from models.fairseq_names import (
    TOKEN_TYPES,
    WORDS,
    choose_classification_head,
    fairseq_config,
    neutral_fairseq_names,
)
from models.hub import refuse_hub_name
from models.safetensors_file import AnyArray
from models.sentencepiece_file import tokenizer_json
from models.tensors import second_names
from models.weight_files import PickleOpener, StoredWeights, stored_weights

OriginKind: TypeAlias = Literal["auto", "hf", "fairseq", "dinkytrain", "efficient-mlm"]
FAIRSEQ_ENDINGS = (".pt", ".pth")
NO_TOKENIZER = (
    "no tokenizer beside it: put the vocab.json and merges.txt (or tokenizer.json) that it was trained with into the "
    "folder"
)


@dataclass(frozen=True)
class OriginTensor:
    """stored_name: as the file calls it, or in brackets how it was made."""

    stored_name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, eq=False)
class Origin:
    """One checkpoint, opened.

    tensors: by neutral name; names without a neutral one stay as stored. dropped: stored name -> why it is not needed.
    notes: what had to be assumed, one sentence each. read: (name, array) of the named tensors, in torch's layout.
    """

    url: str
    kind: OriginKind
    config: RobertaPreLayerNormConfig
    tensors: Mapping[str, OriginTensor]
    read: Callable[[Sequence[str]], Iterator[tuple[str, AnyArray]]]
    dropped: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    tokenizer_files: Mapping[str, bytes] = field(default_factory=dict)


def open_origin(
    *,
    url: str,
    kind: OriginKind = "auto",
    allow_pickle: bool = False,
    attention_heads: int | None = None,
    classification_head: str | None = None,
) -> Origin:
    """Open a checkpoint of any kind; "auto" looks at the files.

    attention_heads, classification_head: for fairseq's files that lack the number of heads, or have several classification
    heads. Raises CheckpointError if it is missing or not this model, or is a pickle and allow_pickle is not set.
    """
    url = str(url).rstrip("/")
    names = _names(url)
    if not names:
        refuse_hub_name(url)
    fairseq_file = _fairseq_file(url, names)
    if kind == "fairseq" or (kind in ("auto", "dinkytrain") and fairseq_file is not None and CONFIG_NAME not in names):
        if fairseq_file is None:
            raise CheckpointError(f"{url}: no fairseq checkpoint there; name the .pt file itself")
        return _open_fairseq(fairseq_file, allow_pickle, attention_heads, classification_head)
    pickle = _pickle_opener() if allow_pickle else None
    weights = stored_weights(url=url, names=names, pickle=pickle) if CONFIG_NAME in names else None
    if kind in ("dinkytrain", "efficient-mlm") or (weights is not None and is_dinkytrain(url, list(weights.tensors))):
        if weights is None:
            raise CheckpointError(f"{url}: no {CONFIG_NAME} there, so it is no folder of DinkyTrain's")
        return _open_dinkytrain(url, weights)
    return _open_hf(url, pickle)


def _open_hf(url: str, pickle: PickleOpener | None) -> Origin:
    """A folder as transformers saves it: config and names are read as by any load, tensors are streamed."""
    checkpoint = Checkpoint.open(url, pickle=pickle)
    stored = {name: real for source in reversed(checkpoint.sources) for name, real in source.stored_names.items()}
    files, notes = _tokenizer_files(url, checkpoint.config)
    if checkpoint.calibration is not None:
        notes = (*notes, f"{CALIBRATION_NAME} is left behind: run `preln calibrate` on the new folder")
    return Origin(
        url=url,
        kind="hf",
        config=checkpoint.config,
        tensors={
            name: OriginTensor(stored_name=stored[name], shape=info.shape, dtype=info.dtype.name)
            for name, info in checkpoint.tensors.items()
        },
        read=checkpoint.stream,
        notes=notes,
        tokenizer_files=files,
    )


def _tokenizer_files(url: str, config: RobertaPreLayerNormConfig) -> tuple[dict[str, bytes], tuple[str, ...]]:
    """The folder's tokenizer files; tokenizer.json is made where there is only SentencePiece's model."""
    files = read_tokenizer_files(url)
    if "tokenizer.json" in files or {"vocab.json", "merges.txt"} <= set(files):
        return files, ()
    system, folder = open_address(url)
    if SENTENCEPIECE_NAME not in _names(url):
        return files, (NO_TOKENIZER,)
    content = system.cat_file(f"{folder}/{SENTENCEPIECE_NAME}")
    try:
        files["tokenizer.json"] = tokenizer_json(content, model_type=config.model_type)
    except (ValueError, KeyError) as error:
        raise CheckpointError(f"{url}: {SENTENCEPIECE_NAME} can't be read: {error}; copy it again") from None
    return files, (f"tokenizer.json was made of {SENTENCEPIECE_NAME}",)


def _open_dinkytrain(url: str, weights: StoredWeights) -> Origin:
    """An efficient_mlm folder: names and config are translated, tensors are streamed."""
    stored, dropped = dinkytrain_names(url, list(weights.tensors))
    config = dinkytrain_config(url)
    tensors = {
        name: OriginTensor(stored_name=real, shape=weights.tensors[real].shape, dtype=weights.tensors[real].dtype.name)
        for name, real in stored.items()
        if name not in second_names(config)
    }

    def read(names: Sequence[str]) -> Iterator[tuple[str, AnyArray]]:
        neutral = {stored[name]: name for name in names}
        for real, array in weights.read(list(neutral)):
            yield neutral[real], array

    files = read_tokenizer_files(url)
    return Origin(
        url=url,
        kind="efficient-mlm",
        config=config,
        tensors=tensors,
        read=read,
        dropped=dropped,
        notes=() if files else (NO_TOKENIZER,),
        tokenizer_files=files,
    )


def _open_fairseq(
    path: str, allow_pickle: bool, attention_heads: int | None, classification_head: str | None
) -> Origin:
    """A fairseq `.pt` file under neutral names, all its tensors in memory.

    fairseq has no token types; this model has, so one row of zeros is added. The number of attention heads is in the
    file's settings, which old files lack: then `attention_heads` must be given. There is no tokenizer. Raises CheckpointError.
    """
    if not allow_pickle:
        raise CheckpointError(
            f"{path}: a fairseq checkpoint is a pickle, which can run code: allow it by --allow-pickle "
            "(allow_pickle=True) if you trust where it comes from"
        )
    system, place = open_address(path)
    stored, settings = torch_module("fairseq_file").read_fairseq(system=system, path=place)
    try:
        head = choose_classification_head(names=list(stored), asked=classification_head)
        names = neutral_fairseq_names(names=list(stored), classification_head=head)
        arrays: dict[str, Any] = {name: stored[real] for name, real in names.stored.items()}
        tied = _is_tied(arrays)
        config, notes = fairseq_config(
            shapes={name: array.shape for name, array in arrays.items()},
            settings=settings,
            attention_heads=attention_heads,
            tied=tied,
        )
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    # One row of zeros, which changes nothing, as in fairseq.
    arrays[TOKEN_TYPES] = np.zeros((1, config.hidden_size), arrays[WORDS].dtype)
    tensors = {
        name: OriginTensor(
            stored_name=names.stored.get(name, "(zeros)"), shape=array.shape, dtype=np.dtype(array.dtype).name
        )
        for name, array in arrays.items()
        if name not in second_names(config)
    }
    beside = sorted(name for name in _names(path.rpartition("/")[0]) if name == "dict.txt")
    words = "dict.txt is fairseq's numbering of tokens and no tokenizer; " if beside else ""
    return Origin(
        url=path,
        kind="fairseq",
        config=config,
        tensors=tensors,
        read=lambda wanted: ((name, arrays[name]) for name in wanted),
        dropped=names.dropped,
        notes=(*notes, words + NO_TOKENIZER),
    )


def _is_tied(arrays: Mapping[str, AnyArray]) -> bool:
    decoder, words = arrays.get("lm_head.decoder.weight"), arrays.get(WORDS)
    return decoder is None or words is None or np.array_equal(decoder, words)


def _fairseq_file(url: str, names: set[str]) -> str | None:
    """The .pt file that a URL names, or the only one of a folder."""
    if url.endswith(FAIRSEQ_ENDINGS):
        return url
    files = [name for name in names if name.endswith(FAIRSEQ_ENDINGS)]
    return f"{url}/{files[0]}" if len(files) == 1 else None


def _names(url: str) -> set[str]:
    try:
        system, folder = open_address(url or ".")
        return {str(path).rsplit("/", 1)[-1] for path in system.ls(folder, detail=False)}
    except (FileNotFoundError, NotADirectoryError):
        return set()
    except Exception as error:  # every store's client has exceptions of its own
        raise CheckpointError(
            f"{url}: can't be listed ({type(error).__name__}: {error}); check the URL and the credentials"
        ) from error


def _pickle_opener() -> PickleOpener:
    opener: PickleOpener = torch_module("pickle_file").read_pickles
    return opener


def torch_module(name: str) -> Any:
    """One of the pickle modules; PyTorch is imported here and only for pickles."""
    try:
        return importlib.import_module(f"models.roberta_torch.{name}")
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("models"):
            raise
        raise PrelnError(f"reading and writing pickles needs '{error.name}'; pip install 'preln[torch]'") from None
