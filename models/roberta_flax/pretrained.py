"""A checkpoint folder in, a model of the wanted class out; and back. What all seven classes can do besides calling.

Legend: V vocabulary, H hidden size.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any, Self

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict

from models.checkpoint import Checkpoint
from models.checkpoint_writer import WeightsFormat, write_checkpoint
from models.config import RobertaPreLayerNormConfig
from models.loading import LoadingReport, compare, judge, override_config
from models.loading_options import LoadingOptions, refuse_device_map
from models.roberta_flax.callable_model import FlaxCallableModel
from models.roberta_flax.layers import Array
from models.roberta_flax.surgery import WORDS, prune, resize_vocabulary
from models.roberta_flax.weights import Params, fresh_params, nested, param_path, to_params, to_tensors
from models.saving_options import refuse_saving
from models.tensors import PREFIX, architecture


class FlaxRobertaPreLayerNormPreTrainedModel(FlaxCallableModel):
    """Base of the seven classes: loading, saving, embeddings, pruning and checkpointed gradients."""

    @classmethod
    def from_config(cls, config: RobertaPreLayerNormConfig, **arguments: Any) -> Self:
        """A fresh model; arguments as the constructor's."""
        return cls(config, **arguments)

    @classmethod
    def from_pretrained(
        cls,
        url: str | os.PathLike[str],
        *,
        config: Any = None,
        dtype: Any = None,
        seed: int = 0,
        ignore_mismatched_sizes: bool = False,
        output_loading_info: bool = False,
        add_pooling_layer: bool = True,
        torch_dtype: Any = None,
        _do_init: bool = True,
        **keywords: Any,
    ) -> Any:
        """The model of a checkpoint folder at a path or URL, or of the Hub's; with _do_init=False (model, params).

        config: instead of config.json, ours, transformers' or a path; keywords: single fields of it, e.g. num_labels=3, and
        those of the reference (models.loading_options).
        dtype: of the computation: "float32" (default), "bfloat16", "float16", or "auto" for the type that the folder is
        stored in; torch_dtype is its older name. Parameters are float32. seed: of tensors that are not in the folder.
        ignore_mismatched_sizes: start tensors of another size afresh instead of raising MismatchError.
        output_loading_info: add an info with missing_keys, unexpected_keys and mismatched_keys at the end.
        """
        options = LoadingOptions.take(refuse_device_map(keywords, instead="jax.default_device"))
        checkpoint = options.open(url, config=config)
        config = override_config(checkpoint.config if config is None else config, options.overrides)
        asked = dtype or torch_dtype or "float32"
        wanted = checkpoint.stored_dtype if isinstance(asked, str) and asked == "auto" else asked
        model = cls(config, seed=seed, dtype=wanted, _do_init=False, add_pooling_layer=add_pooling_layer)
        params, report = model._load(checkpoint, ignore_mismatched_sizes=ignore_mismatched_sizes)
        info = (report.as_info(),) if output_loading_info else ()
        if not _do_init:
            return (model, params, *info)
        model._do_init, model._params = True, params
        return (model, *info) if info else model

    def _load(self, checkpoint: Checkpoint, *, ignore_mismatched_sizes: bool) -> tuple[Params, LoadingReport]:
        """Fill the parameters from the checkpoint and initialise what it lacks.

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
        loaded = to_params(tensors=checkpoint.stream(fitting), bare=self.bare, dtype=jnp.float32)
        absent = [name for name in expected if name not in set(fitting)]
        fresh = fresh_params(shapes=expected, names=absent, bare=self.bare, key=self.key, config=self.config)
        return nested(loaded | fresh), report

    def save_pretrained(
        self,
        url: str | os.PathLike[str],
        params: Params | None = None,
        *,
        is_main_process: bool = True,
        max_shard_size: int | str = "5GB",
        tokenizer_files: Mapping[str, bytes] | None = None,
        weights_format: WeightsFormat = "safetensors",
        safe_serialization: bool = True,
        **keywords: Any,
    ) -> None:
        """Write config.json and the weights to a folder at a path or URL; tied tensors are written once.

        is_main_process: False writes nothing.
        weights_format: "safetensors" (torch's names), "msgpack" (flax_model.msgpack in the reference's layout) or
        another (models.checkpoint_writer); safe_serialization=False, the reference's word, means "msgpack".
        """
        refuse_saving(keywords)
        if not is_main_process:
            return
        found = to_tensors(
            params=self.params if params is None else params, names=self.expected_tensors(), bare=self.bare
        )
        tensors = {name.removeprefix(PREFIX) if self.bare else name: array for name, array in found.items()}
        config = RobertaPreLayerNormConfig.from_dict(self.config.to_dict())
        config.architectures = [architecture(head=type(self).head, family=config.family)]
        config.dtype = next(iter(tensors.values())).dtype.name
        write_checkpoint(
            url=str(url),
            config=config,
            tensors=tensors,
            tokenizer_files=tokenizer_files,
            max_shard_size=max_shard_size,
            weights_format=weights_format if safe_serialization else "msgpack",
        )

    def tie_weights(self) -> None:
        """Nothing to do: where the config ties them, decoder and word table are one array from the start."""

    def get_input_embeddings(self) -> Array:
        """The word table [V, H]."""
        return flatten_dict(self.params)[param_path(WORDS, bare=self.bare)]

    def set_input_embeddings(self, table_VH: Array) -> None:
        """Put another word table in the place of this one."""
        self._put(param_path(WORDS, bare=self.bare), table_VH)

    def get_output_embeddings(self) -> Array | None:
        """The decoder [V, H] of a language model, None for other heads."""
        if "lm_head" not in self.params:
            return None
        if self.config.tie_word_embeddings:
            return self.get_input_embeddings()
        return self.params["lm_head"]["decoder"]["kernel"].T

    def set_output_embeddings(self, decoder_VH: Array) -> None:
        """Put another decoder in the place of an untied one; a tied one is set by set_input_embeddings."""
        if self.config.tie_word_embeddings or "lm_head" not in self.params:
            raise ValueError(
                f"{type(self).__name__} has no decoder of its own; call set_input_embeddings, or build a language "
                "model with tie_word_embeddings=False"
            )
        self._put(("lm_head", "decoder", "kernel"), decoder_VH.T)

    def _put(self, path: tuple[str, ...], values: Array) -> None:
        flat = flatten_dict(self.params)
        if values.shape != flat[path].shape:
            raise ValueError(f"'{'/'.join(path)}' is {flat[path].shape}, {values.shape} was given; resize it first")
        self._params = nested({**flat, path: jnp.asarray(values)})

    def resize_token_embeddings(
        self,
        new_num_tokens: int | None = None,
        pad_to_multiple_of: int | None = None,
        mean_resizing: bool = True,
    ) -> Array:
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
        self._params = resize_vocabulary(
            self.params,
            rows=rows,
            bare=self.bare,
            config=self.config,
            key=jax.random.fold_in(self.key, rows),
            mean=mean_resizing,
        )
        self.config.vocab_size = rows
        return self.get_input_embeddings()

    def prune_heads(self, heads_to_prune: Mapping[int, Sequence[int]]) -> None:
        """Cut self-attention's heads, e.g. {0: [1, 2]}, numbered as in the unpruned model; the config keeps them."""
        self._params = prune(self.params, heads_to_prune=heads_to_prune, bare=self.bare, config=self.config)

    def gradient_checkpointing_enable(self) -> None:
        """Compute layers again in the backward pass instead of keeping them; training then returns no cache."""
        self.is_gradient_checkpointing = True

    def gradient_checkpointing_disable(self) -> None:
        """Keep all activations again."""
        self.is_gradient_checkpointing = False
