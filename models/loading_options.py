"""from_pretrained's keywords: the reference's are honoured, accepted where they change no answer, or refused by name with the
reason."""

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from models.checkpoint import SENTENCEPIECE_NAME, TOKENIZER_NAMES, Checkpoint
from models.config import CONFIG_NAME
from models.errors import CheckpointError
from models.foreign_config import as_config
from models.hub import HubOptions, checkpoint_folder
from models.unread_parts import ADAPTER_NAMES
from models.weight_files import PickleOpener, WeightKind, first_kind, without_other_kinds

logger = logging.getLogger(__name__)

Reason: TypeAlias = str

FROM_KEYWORDS: Mapping[str, WeightKind] = {"from_tf": "h5", "from_flax": "msgpack", "from_pt": "safetensors"}

# They change no answer, whatever their value: a model is always built without values and filled tensor by tensor, nothing
# is offloaded, and adapters are refused.
ACCEPTED = (
    "low_cpu_mem_usage",
    "offload_folder",
    "offload_state_dict",
    "offload_buffers",
    "adapter_name",
    "_fast_init",
)
# (values that change no answer, why any other is refused)
REFUSED: Mapping[str, tuple[tuple[Any, ...], Reason]] = {
    "attn_implementation": (
        (None, "eager", "sdpa"),
        "there is one attention, which gives what 'eager' and 'sdpa' give; leave it out",
    ),
    "state_dict": ((None,), "build the model from its config and call load_state_dict"),
    "quantization_config": ((None,), "weights are plain numbers here; use dtype='bfloat16'"),
    "load_in_8bit": ((None, False), "weights are plain numbers here; use dtype='bfloat16'"),
    "load_in_4bit": ((None, False), "weights are plain numbers here; use dtype='bfloat16'"),
    "max_memory": ((None,), "a model lies on one device; use device="),
    "variant": ((None,), "files have the names without a variant; save the folder under those"),
    "weights_only": ((None, True), "pickles are only ever read so"),
    "gguf_file": ((None,), "GGUF files are not read; convert them with the reference"),
    "key_mapping": ((None,), "tensors have the reference's names; rename them in the file"),
    "adapter_kwargs": ((None, {}), "adapters are not read; merge them into the weights"),
    "generation_config": ((None,), "give it to generate()"),
    "tp_plan": ((None,), "a model lies on one device"),
    "tp_size": ((None,), "a model lies on one device"),
    "device_mesh": ((None,), "a model lies on one device"),
    "distributed_config": ((None,), "a model lies on one device"),
    "use_kernels": ((None, False), "kernels of the Hub are code, which is not run"),
    "proxies": ((None,), "set HTTPS_PROXY instead"),
    "mirror": ((None,), "set HF_ENDPOINT instead"),
    "load_weight_prefix": ((None,), "tensors have the reference's names; rename them in the file"),
    "tf_to_pt_weight_rename": ((None,), "tensors have the reference's names; rename them in the file"),
}


SPREAD = ("auto", "balanced", "balanced_low_0", "sequential")


def one_device(device_map: Any, *, gpu: bool) -> Any:
    """The one device that a device_map of accelerate's means, None for None; gpu: whether "auto" finds one.

    Raises ValueError for a map over several devices, or to the disk.
    """
    if isinstance(device_map, Mapping):
        places = set(device_map.values())
        device_map = places.pop() if len(places) == 1 else device_map
    if isinstance(device_map, Mapping) or device_map == "disk":
        raise ValueError(
            f"device_map={device_map!r} is not supported: a model lies on one device; name that, e.g. 'cuda:0'"
        )
    if isinstance(device_map, str) and device_map in SPREAD:
        return "cuda" if gpu else "cpu"
    return f"cuda:{device_map}" if type(device_map) is int else device_map


def refuse_device_map(keywords: Mapping[str, Any], *, instead: str) -> dict[str, Any]:
    """The keywords without device_map, which only PyTorch's classes take; "auto" is what the others do by themselves."""
    rest = dict(keywords)
    if (value := rest.pop("device_map", None)) not in (None, *SPREAD):
        raise ValueError(f"from_pretrained(device_map={value!r}) is PyTorch's; use {instead}")
    return rest


@dataclass(frozen=True)
class LoadingOptions:
    """Where a checkpoint is looked for, which of its files are read, and which fields of its config are changed."""

    hub: HubOptions = field(default_factory=HubOptions)
    preferred: WeightKind | None = None
    use_safetensors: bool | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def take(cls, keywords: Mapping[str, Any]) -> "LoadingOptions":
        """The reference's keywords among these, and the rest as fields of the config.

        Raises ValueError, with the reason, for one that can't be honoured.
        """
        hub, rest = HubOptions.take({name: value for name, value in keywords.items() if name not in ACCEPTED})
        for name, (harmless, reason) in REFUSED.items():
            value = rest.pop(name, None)
            if not any(value is one or (type(value) is type(one) and value == one) for one in (None, *harmless)):
                raise ValueError(f"from_pretrained({name}={value!r}) is not supported: {reason}")
        asked = [name for name in FROM_KEYWORDS if rest.pop(name, None)]
        if len(asked) > 1:
            raise ValueError(f"from_pretrained({asked[0]}=True, {asked[1]}=True): give one of them")
        return cls(
            hub=hub,
            preferred=FROM_KEYWORDS[asked[0]] if asked else None,
            use_safetensors=rest.pop("use_safetensors", None),
            overrides=rest,
        )

    def folder(self, name: str | os.PathLike[str], *, pickle: bool = False, weights: bool = True) -> str:
        """Path or URL of the checkpoint that a name stands for; a model of the Hub is downloaded, without weights if so said."""

        def choose(names: set[str]) -> Iterable[str]:
            kind = first_kind(without_other_kinds(names, kept=self.preferred), pickle=pickle) if weights else None
            wanted = {CONFIG_NAME, SENTENCEPIECE_NAME, *TOKENIZER_NAMES, *ADAPTER_NAMES[:1]}
            return sorted(wanted & names | (set(kind) if kind else set()))

        return checkpoint_folder(name, options=self.hub, choose=choose)

    def open(
        self, name: str | os.PathLike[str], *, pickle: PickleOpener | None = None, config: Any = None
    ) -> Checkpoint:
        """The checkpoint, opened. config: stands for a config.json that is not there. Raises CheckpointError."""
        folder = self.folder(name, pickle=pickle is not None)
        stand_in = None if config is None else as_config(config)
        checkpoint = Checkpoint.open(folder, pickle=pickle, config=stand_in, preferred=self.preferred)
        file = checkpoint.sources[0].paths[0].rpartition("/")[2]
        if self.use_safetensors is not None and file.endswith(".safetensors") != self.use_safetensors:
            if self.use_safetensors:
                raise CheckpointError(f"{folder}: use_safetensors=True, and it has none; {file} is what it has")
            raise ValueError(
                "from_pretrained(use_safetensors=False) is not supported where a folder has safetensors: they are read first"
            )
        if self.preferred is not None and not _is_of(file, self.preferred):
            logger.warning("%s: asked for the weights of another framework, and it has none; %s is read", folder, file)
        return checkpoint


def _is_of(file: str, kind: WeightKind) -> bool:
    endings: dict[Literal["safetensors", "h5", "msgpack", "pickle"], tuple[str, ...]] = {
        "safetensors": (".safetensors", ".bin"),
        "h5": (".h5",),
        "msgpack": (".msgpack",),
        "pickle": (".bin",),
    }
    return file.endswith(endings[kind])
