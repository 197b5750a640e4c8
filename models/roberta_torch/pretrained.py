"""A checkpoint folder in, a model of the wanted class out; and back. What all seven classes can do besides forward().

Legend: V vocabulary, H hidden size.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, Self, cast

import torch
from torch import Tensor, nn

from models.addresses import open_address
from models.boundary import Head
from models.checkpoint import Checkpoint
from models.checkpoint_writer import WeightsFormat, write_checkpoint
from models.checks import check_config
from models.config import RobertaPreLayerNormConfig
from models.families import check_class_family
from models.foreign_config import as_config
from models.loading import LoadingReport, compare, judge, override_config
from models.loading_options import LoadingOptions, one_device
from models.outputs import ModelOutput
from models.roberta_torch.encoder import RobertaPreLayerNormEncoder
from models.roberta_torch.exporting import traceable, tracing
from models.roberta_torch.pickle_file import read_pickles, write_pickle
from models.roberta_torch.surgery import prune, resize_language_head, resized_embedding
from models.roberta_torch.weights import (
    dtype_of,
    fill,
    fill_missing,
    gathered,
    initialise,
    neutral_parameters,
    to_numpy,
    without_values,
)
from models.saving_options import refuse_saving
from models.tensors import PREFIX, architecture, expected_tensors
from models.weight_files import PICKLE_NAME


class RobertaPreLayerNormPreTrainedModel(nn.Module):
    """Base of the seven classes: building, loading, saving, embeddings, pruning and checkpointed gradients."""

    config_class = RobertaPreLayerNormConfig
    base_model_prefix = "roberta_prelayernorm"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    head: ClassVar[Head] = "encoder"

    def __init__(self, config: RobertaPreLayerNormConfig) -> None:
        super().__init__()
        config = as_config(config)
        check_class_family(config.model_type, class_name=type(self).__name__)
        check_config(config)
        self.config = config

    def post_init(self) -> None:
        """Start the parameters afresh and tie what is one tensor."""
        initialise(self, self.config)
        self.tie_weights()

    def answer(self, output: ModelOutput, *, return_dict: bool | None) -> Any:
        """The output as it is, or as a tuple where the call or the config says so."""
        return output if self.names_output(return_dict=return_dict) else traceable(output.to_tuple())

    def names_output(self, *, return_dict: bool | None) -> bool:
        """Whether an answer is an output class: as the call says, else as the config does (tracing takes tuples)."""
        return self.config.use_return_dict and not tracing() if return_dict is None else return_dict

    @property
    def bare(self) -> bool:
        """Whether this is the model without a head, whose names have no prefix."""
        return type(self).head == "encoder"

    @property
    def base_model(self) -> nn.Module:
        """The model without the head."""
        return self if self.bare else self.get_submodule(self.base_model_prefix)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The parameters' type."""
        return next(self.parameters()).dtype

    @classmethod
    def can_generate(cls) -> bool:
        """Whether it continues a prompt, which the reference's pipelines ask."""
        return cls.head == "causal-lm"

    @classmethod
    def from_config(cls, config: RobertaPreLayerNormConfig) -> Self:
        """A fresh model."""
        return cls(config)

    @classmethod
    def from_pretrained(
        cls,
        url: str | os.PathLike[str],
        *,
        config: Any = None,
        dtype: str | torch.dtype | None = None,
        device: str | torch.device | None = None,
        device_map: Any = None,
        ignore_mismatched_sizes: bool = False,
        output_loading_info: bool = False,
        allow_pickle: bool = False,
        add_pooling_layer: bool = True,
        torch_dtype: str | torch.dtype | None = None,
        **keywords: Any,
    ) -> Any:
        """The model of a checkpoint folder at a path or URL, or of a model of the Hub's, in evaluation mode.

        config: instead of config.json, ours, transformers' or a path; keywords: single fields of it, e.g. num_labels=3, and
        those of the reference (models.loading_options). device_map: one device, in any of accelerate's ways.
        dtype: "float32" (default), "bfloat16", "float16", or "auto" for the type that the folder is stored in;
        torch_dtype is its older name.
        ignore_mismatched_sizes: start tensors of another size afresh instead of raising MismatchError.
        allow_pickle: also read pytorch_model.bin, weights only; pickle can run code, so trust the folder.
        output_loading_info: return (model, info) with missing_keys, unexpected_keys and mismatched_keys.
        """
        if device is not None and device_map is not None:
            raise ValueError(f"device={device!r} and device_map={device_map!r} were given; give one of them")
        device = one_device(device_map, gpu=torch.cuda.is_available()) if device is None else device
        options = LoadingOptions.take(keywords)
        checkpoint = options.open(url, pickle=read_pickles if allow_pickle else None, config=config)
        config = override_config(checkpoint.config if config is None else config, options.overrides)
        asked = dtype or torch_dtype or "float32"
        wanted = dtype_of(checkpoint.stored_dtype if asked == "auto" else asked)
        extra = {} if cls.head != "encoder" else {"add_pooling_layer": add_pooling_layer}
        with without_values():
            model = cls(config, **extra)
        report = model._load(checkpoint, dtype=wanted, device=device, ignore_mismatched_sizes=ignore_mismatched_sizes)
        model.eval()
        return (model, report.as_info()) if output_loading_info else model

    def _load(
        self,
        checkpoint: Checkpoint,
        *,
        dtype: torch.dtype,
        device: str | torch.device | None,
        ignore_mismatched_sizes: bool,
    ) -> LoadingReport:
        """Fill the model from the checkpoint, initialise what it lacks, tie the weights.

        Returns what was found, missing or of another size.
        """
        expected = self.expected_tensors()
        found = {name: info.shape for name, info in checkpoint.tensors.items()}
        report = compare(expected=expected, found=found, config=self.config, bare=self.bare)
        judge(
            report=report,
            url=checkpoint.url,
            model=type(self).__name__,
            ignore_mismatched_sizes=ignore_mismatched_sizes,
        )
        fitting = [name for name, shape in expected.items() if found.get(name) == shape]
        fill(self, tensors=checkpoint.stream(fitting), bare=self.bare, dtype=dtype, device=device)
        fresh = [name for name in expected if name not in set(fitting)]
        fill_missing(self, names=fresh, bare=self.bare, dtype=dtype, device=device, config=self.config)
        self.tie_weights()
        return report

    def expected_tensors(self) -> dict[str, tuple[int, ...]]:
        """Neutral name -> shape of what this model reads from a checkpoint."""
        pooler = getattr(self, "pooler", None) is not None if self.bare else None
        return expected_tensors(config=self.config, head=type(self).head, pooler=pooler)

    def save_pretrained(
        self,
        url: str | os.PathLike[str],
        is_main_process: bool = True,
        state_dict: Mapping[str, Tensor] | None = None,
        save_function: Callable[..., Any] = torch.save,
        *,
        max_shard_size: int | str = "5GB",
        tokenizer_files: Mapping[str, bytes] | None = None,
        weights_format: WeightsFormat | Literal["pickle"] = "safetensors",
        safe_serialization: bool = True,
        **keywords: Any,
    ) -> None:
        """Write config.json and the weights to a folder at a path or URL; tied tensors are written once.

        is_main_process: False writes nothing. state_dict: values to write instead of the model's own, as accelerate gathers
        them. save_function: what writes a pickle, called as torch.save is.
        weights_format: "safetensors", another framework's (models.checkpoint_writer) or "pickle" (pytorch_model.bin);
        safe_serialization=False, the reference's word, means "pickle".
        """
        refuse_saving(keywords)
        if not is_main_process:
            return
        config = RobertaPreLayerNormConfig.from_dict(self.config.to_dict())
        config.architectures = [architecture(head=type(self).head, family=config.family)]
        config.dtype = str(self.dtype).removeprefix("torch.")
        if weights_format == "pickle" or not safe_serialization:
            self._save_pickle(url, config, tokenizer_files or {}, state=state_dict, save_function=save_function)
            return
        named: Mapping[str, Tensor] = neutral_parameters(self, bare=self.bare)
        if state_dict is not None:
            named = gathered(state_dict, names=self.expected_tensors(), bare=self.bare)
        tensors = {
            name.removeprefix(PREFIX) if self.bare else name: to_numpy(named[name]) for name in self.expected_tensors()
        }
        write_checkpoint(
            url=str(url),
            config=config,
            tensors=tensors,
            tokenizer_files=tokenizer_files,
            max_shard_size=max_shard_size,
            weights_format=weights_format,
        )

    def _save_pickle(
        self,
        url: str | os.PathLike[str],
        config: RobertaPreLayerNormConfig,
        files: Mapping[str, bytes],
        *,
        state: Mapping[str, Tensor] | None,
        save_function: Callable[..., Any],
    ) -> None:
        system, folder = open_address(url)
        system.makedirs(folder, exist_ok=True)
        write_pickle(
            system=system,
            path=f"{folder}/{PICKLE_NAME}",
            state=self.state_dict() if state is None else state,
            save=save_function,
        )
        for name, content in files.items():
            system.pipe_file(f"{folder}/{name}", content)
        config.save_pretrained(str(url))

    def tie_weights(self) -> None:
        """Make one parameter of lm_head.bias and decoder.bias, and of decoder.weight and the word table if tied."""
        lm_head = getattr(self, "lm_head", None)
        if lm_head is None:
            return
        lm_head.decoder.bias = lm_head.bias
        if self.config.tie_word_embeddings:
            words = self.get_input_embeddings().weight
            lm_head.decoder.weight = nn.Parameter(words.clone()) if self.config.torchscript else words

    def get_input_embeddings(self) -> nn.Embedding:
        """The word embeddings [V, H]."""
        return cast("nn.Embedding", self.base_model.get_submodule("embeddings.word_embeddings"))

    def set_input_embeddings(self, embeddings: nn.Embedding) -> None:
        """Put another word table in the place of this one."""
        owner = self.base_model.get_submodule("embeddings")
        owner.word_embeddings = embeddings
        self.tie_weights()

    def get_output_embeddings(self) -> nn.Linear | None:
        """The decoder [V, H] of a language model, None for other heads."""
        lm_head = getattr(self, "lm_head", None)
        return None if lm_head is None else cast("nn.Linear", lm_head.decoder)

    def set_output_embeddings(self, decoder: nn.Linear) -> None:
        """Put another decoder in the place of this one; its bias becomes the head's bias."""
        lm_head = self.get_submodule("lm_head")
        lm_head.decoder = decoder
        lm_head.bias = decoder.bias

    def resize_token_embeddings(
        self,
        new_num_tokens: int | None = None,
        pad_to_multiple_of: int | None = None,
        mean_resizing: bool = True,
    ) -> nn.Embedding:
        """Grow or cut the word table (and a language model's decoder and bias); config.vocab_size follows.

        Old rows stay, new ones start at the mean of the old, or with mean_resizing=False from N(0, initializer_range).
        Returns the table.
        """
        rows = self.config.vocab_size if new_num_tokens is None else new_num_tokens
        if pad_to_multiple_of is not None:
            rows = -(-rows // pad_to_multiple_of) * pad_to_multiple_of
        if rows == self.config.vocab_size:
            return self.get_input_embeddings()
        if rows <= self.config.pad_token_id:
            raise ValueError(f"a vocabulary of {rows} has no row for pad_token_id {self.config.pad_token_id}")
        with torch.no_grad():
            table = resized_embedding(self.get_input_embeddings(), rows=rows, config=self.config, mean=mean_resizing)
            if self.get_output_embeddings() is not None:
                resize_language_head(self.get_submodule("lm_head"), rows=rows, config=self.config, mean=mean_resizing)
        self.config.vocab_size = rows
        self.set_input_embeddings(table)
        return table

    def prune_heads(self, heads_to_prune: Mapping[int, Sequence[int]]) -> None:
        """Cut self-attention's heads, e.g. {0: [1, 2]}, numbered as in the unpruned model; the config keeps them."""
        encoder = cast("RobertaPreLayerNormEncoder", self.base_model.get_submodule("encoder"))
        prune(encoder, heads_to_prune=heads_to_prune, config=self.config)

    def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs: Mapping[str, Any] | None = None) -> None:
        """Compute layers again in the backward pass instead of keeping them; training then returns no cache.

        gradient_checkpointing_kwargs: only {"use_reentrant": False}, which is how it is done.
        """
        if gradient_checkpointing_kwargs and dict(gradient_checkpointing_kwargs) != {"use_reentrant": False}:
            raise ValueError(
                f"gradient_checkpointing_kwargs is {dict(gradient_checkpointing_kwargs)}; "
                "only {'use_reentrant': False} is supported"
            )
        cast("RobertaPreLayerNormEncoder", self.base_model.get_submodule("encoder")).gradient_checkpointing = True

    def gradient_checkpointing_disable(self) -> None:
        """Keep all activations again."""
        cast("RobertaPreLayerNormEncoder", self.base_model.get_submodule("encoder")).gradient_checkpointing = False

    @property
    def is_gradient_checkpointing(self) -> bool:
        """Whether layers are computed again in the backward pass."""
        return cast("RobertaPreLayerNormEncoder", self.base_model.get_submodule("encoder")).gradient_checkpointing

    def num_parameters(self, only_trainable: bool = False) -> int:
        """Parameters, tied ones counted once; only_trainable: without those that are frozen."""
        return sum(one.numel() for one in self.parameters() if one.requires_grad or not only_trainable)

    @property
    def dummy_inputs(self) -> dict[str, Tensor]:
        """Ids that any model of this class takes."""
        return {"input_ids": torch.tensor([[0, 3, 2]])}
