"""Opens several heads around one encoder, each from its own checkpoint folder.

Heads named by their kind are all in the one folder. A head with a name of its own is in the folder `{checkpoint}/{name}`, with
its config, its labels and its tensors, or, without such a folder, in the checkpoint itself. All must have the same encoder: one
`base_model_name_or_path`, or the same folder.
"""

import hashlib
import posixpath
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from models.boundary import Head
from models.checkpoint import Checkpoint, TensorDigests, file_names, listing
from models.config import CONFIG_NAME, RobertaPreLayerNormConfig
from models.errors import CheckpointError
from models.tensors import PREFIX

POOLER = f"{PREFIX}pooler."
ENCODER_FIELDS = (
    "model_type",
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "max_position_embeddings",
    "type_vocab_size",
    "layer_norm_eps",
    "pad_token_id",
    "position_embedding_type",
    "is_decoder",
    "add_cross_attention",
    "pruned_heads",
)
"""Fields in which the heads' configs must agree: those that the encoder's output depends on."""


@dataclass(frozen=True, eq=False)
class NamedHead:
    """A head and the checkpoint that it, and its labels, come from."""

    head: Head
    checkpoint: Checkpoint


def open_heads(
    *, checkpoint: Checkpoint | str, heads: Sequence[Head] | Mapping[str, Head], tokenizer: bool = False
) -> dict[str, NamedHead]:
    """Name -> head, each checked from the headers alone. heads: kinds, or name -> kind.

    Raises CheckpointError for what a head lacks, or if two heads have different encoders.
    """
    if not isinstance(heads, Mapping):
        opened = checkpoint if isinstance(checkpoint, Checkpoint) else Checkpoint.open(checkpoint)
        opened.check(heads=heads, tokenizer=tokenizer)
        return {head: NamedHead(head=head, checkpoint=opened) for head in heads}
    root = checkpoint.url if isinstance(checkpoint, Checkpoint) else checkpoint
    named = {
        name: NamedHead(head=head, checkpoint=Checkpoint.open(head_folder(checkpoint=root, name=name)))
        for name, head in heads.items()
    }
    for one in named.values():
        one.checkpoint.check(heads=[one.head], tokenizer=tokenizer)
    _check_encoder(named)
    return named


def head_folder(*, checkpoint: str, name: str) -> str:
    """The folder of a named head: one of its name, else the checkpoint itself.

    Raises CheckpointError if neither has it.
    """
    own = f"{checkpoint.rstrip('/')}/{name}"
    inside = file_names(own)
    if CONFIG_NAME in inside:
        return own
    around = file_names(checkpoint)
    if inside or CONFIG_NAME not in around:
        found = f"{own} holds {listing(inside)}" if inside else f"{checkpoint} holds {listing(around)}"
        raise CheckpointError(
            f"{checkpoint}: no head '{name}': there is no {own}/{CONFIG_NAME}"
            + ("" if inside else ", and the folder around it is no checkpoint either")
            + f"; {found}"
        )
    return checkpoint


def encoder_config(named: Mapping[str, NamedHead]) -> RobertaPreLayerNormConfig:
    """The config of the heads' common encoder; its labels are those of an arbitrary head."""
    return next(iter(named.values())).checkpoint.config


@dataclass(frozen=True, eq=False)
class HeadFolders:
    """The checkpoints of a job's heads, as one digest and one stamp.

    checkpoints: by head name; where `whole`, the one checkpoint under its own URL.
    """

    checkpoints: Mapping[str, Checkpoint]
    whole: bool

    @classmethod
    def open(cls, *, checkpoint: str, names: Iterable[str] | None) -> "HeadFolders":
        """Each name's folder; None is the checkpoint itself. Raises CheckpointError."""
        if names is None:
            return cls({checkpoint: Checkpoint.open(checkpoint)}, whole=True)
        folders = {name: head_folder(checkpoint=checkpoint, name=name) for name in names}
        opened = {folder: Checkpoint.open(folder) for folder in dict.fromkeys(folders.values())}
        return cls({name: opened[folder] for name, folder in folders.items()}, whole=False)

    def digest(self) -> str:
        """Hash over all that the heads' answers depend on: the folder's own digest where it is the only one."""
        seen: TensorDigests = {}
        return self._hashed(lambda checkpoint: checkpoint.digest(seen=seen))

    def stamp(self) -> str:
        """Cheap key of the state of all folders to cache their digest by."""
        return self._hashed(Checkpoint.stamp)

    def _hashed(self, of: Callable[[Checkpoint], str]) -> str:
        hashes = {checkpoint.url: of(checkpoint) for checkpoint in dict.fromkeys(self.checkpoints.values())}
        if self.whole:
            return next(iter(hashes.values()))
        lines = [f"{name} {hashes[self.checkpoints[name].url]}" for name in sorted(self.checkpoints)]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _check_encoder(named: Mapping[str, NamedHead]) -> None:
    """Raise CheckpointError unless all heads name the same encoder.

    Equal config and the same files, so that one pass serves all.
    """
    pooled = {name: one.checkpoint for name, one in named.items() if one.head == "multiple-choice"}
    if len({_files_of(checkpoint, pooler=True) for checkpoint in pooled.values()}) > 1:
        raise CheckpointError(f"{' and '.join(pooled)} have a pooler each, and one pass has one; run them as two jobs")
    (first_name, first), *others = named.items()
    for name, other in others:
        for field in ENCODER_FIELDS:
            here, there = getattr(first.checkpoint.config, field), getattr(other.checkpoint.config, field)
            if here != there:
                raise CheckpointError(
                    f"{first.checkpoint.url} and {other.checkpoint.url} have different encoders: {field} is {here} for "
                    f"'{first_name}' and {there} for '{name}'; run them as two jobs"
                )
        if _files_of(first.checkpoint, pooler=False) != _files_of(other.checkpoint, pooler=False):
            raise CheckpointError(
                f"{first.checkpoint.url} and {other.checkpoint.url} have different encoders: their weights are in different "
                "files; run them as two jobs, or let both name one folder as base_model_name_or_path"
            )


def _files_of(checkpoint: Checkpoint, *, pooler: bool) -> tuple[str, ...]:
    """The files that the encoder's weights, or its pooler's, are read from: of the first folder that has them."""
    for source in checkpoint.sources:
        if any(name.startswith(PREFIX) and name.startswith(POOLER) == pooler for name in source.tensors):
            return tuple(posixpath.normpath(path) for path in source.paths)
    return ()
