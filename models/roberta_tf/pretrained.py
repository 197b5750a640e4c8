"""A checkpoint folder in, a model of the wanted class out; and back. What all seven classes can do besides call().

Legend: V vocabulary, H hidden size.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import tensorflow as tf
from tensorflow import Tensor

from models.boundary import Head
from models.checkpoint import Checkpoint
from models.checkpoint_writer import WeightsFormat, write_checkpoint
from models.checks import check_config
from models.config import RobertaPreLayerNormConfig
from models.families import check_class_family
from models.foreign_config import as_config
from models.loading import LoadingReport, compare, judge, override_config
from models.loading_options import LoadingOptions, refuse_device_map
from models.outputs import ModelOutput
from models.roberta_tf.heads import TFRobertaPreLayerNormDecoder
from models.roberta_tf.keras_model import KerasModel
from models.roberta_tf.layers import BUILDING, Embedding, building
from models.roberta_tf.surgery import prune, resize_embedding, resize_language_head
from models.roberta_tf.weights import dtype_name, fill, initialise, neutral_variables, to_numpy
from models.saving_options import refuse_saving
from models.tensors import PREFIX, architecture, expected_tensors


class TFRobertaPreLayerNormPreTrainedModel(KerasModel):
    """Base of the seven classes: building, loading, saving, embeddings, pruning and checkpointed gradients."""

    config_class = RobertaPreLayerNormConfig
    base_model_prefix = "roberta_prelayernorm"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    head: ClassVar[Head] = "encoder"

    def __init__(self, config: RobertaPreLayerNormConfig, *, name: str | None = None) -> None:
        config = as_config(config)
        check_class_family(config.model_type, class_name=type(self).__name__)
        check_config(config)
        super().__init__(config, name=name)

    def post_init(self) -> None:
        """Start the variables afresh (the base model has done its own) and tie what is one tensor."""
        if BUILDING.get().started:
            names = [name for name in self.expected_tensors() if self.bare or not name.startswith(PREFIX)]
            initialise(self, names=names, config=self.config)
        self.tie_weights()

    def answer(self, output: ModelOutput, *, return_dict: bool | None) -> Any:
        """The output as it is, or as a tuple where the call or the config says so."""
        named = self.config.use_return_dict if return_dict is None else return_dict
        return output if named else output.to_tuple()

    @property
    def bare(self) -> bool:
        """Whether this is the model without a head, whose names have no prefix."""
        return type(self).head == "encoder"

    @property
    def base_model(self) -> Any:
        """The model without the head."""
        return self if self.bare else getattr(self, self.base_model_prefix)

    @classmethod
    def from_config(cls, config: RobertaPreLayerNormConfig | Mapping[str, Any], custom_objects: Any = None) -> Self:
        """A fresh model; of Keras's get_config() too."""
        del custom_objects
        if isinstance(config, Mapping) and "config" in config:
            return cls(RobertaPreLayerNormConfig.from_dict(config["config"]), name=config.get("name"))
        return cls(as_config(config))

    @classmethod
    def from_pretrained(
        cls,
        url: str | os.PathLike[str],
        *,
        config: Any = None,
        dtype: Any = None,
        device: str | None = None,
        ignore_mismatched_sizes: bool = False,
        output_loading_info: bool = False,
        allow_pickle: bool = False,
        add_pooling_layer: bool = True,
        torch_dtype: Any = None,
        **keywords: Any,
    ) -> Any:
        """The model of a checkpoint folder at a path or URL, or of a model of the Hub's, whichever framework wrote it.

        config: instead of config.json, ours, transformers' or a path; keywords: single fields of it, e.g. num_labels=3, and
        those of the reference (models.loading_options).
        dtype: "float32", "bfloat16", "float16", or "auto" for the type that the folder is stored in; by default what
        Keras's global policy says; torch_dtype is its older name. device: TensorFlow's name, e.g. "/CPU:0".
        ignore_mismatched_sizes: start tensors of another size afresh instead of raising MismatchError.
        output_loading_info: return (model, info) with missing_keys, unexpected_keys and mismatched_keys.
        allow_pickle: refused: only PyTorch reads its pickles.
        """
        if allow_pickle:
            raise ValueError(f"{url}: only PyTorch reads its pickles; run `preln convert --allow-pickle` on it first")
        options = LoadingOptions.take(refuse_device_map(keywords, instead="device='/GPU:0'"))
        checkpoint = options.open(url, config=config)
        config = override_config(checkpoint.config if config is None else config, options.overrides)
        asked = dtype or torch_dtype
        wanted = None if asked is None else dtype_name(checkpoint.stored_dtype if asked == "auto" else asked)
        extra: dict[str, Any] = {} if cls.head != "encoder" else {"add_pooling_layer": add_pooling_layer}
        with building(dtype=wanted, started=False), tf.device(device):
            model = cls(config, **extra)
            report = model._load(checkpoint, ignore_mismatched_sizes=ignore_mismatched_sizes)
        return (model, report.as_info()) if output_loading_info else model

    def _load(self, checkpoint: Checkpoint, *, ignore_mismatched_sizes: bool) -> LoadingReport:
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
        fill(self, tensors=checkpoint.stream(fitting))
        fresh = [name for name in expected if name not in set(fitting)]
        initialise(self, names=fresh, config=self.config)
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
        *,
        max_shard_size: int | str = "5GB",
        tokenizer_files: Mapping[str, bytes] | None = None,
        weights_format: WeightsFormat = "safetensors",
        safe_serialization: bool = True,
        **keywords: Any,
    ) -> None:
        """Write config.json and the weights to a folder at a path or URL; tied tensors are written once.

        is_main_process: False writes nothing.
        weights_format: "safetensors" (torch's names), "h5" (tf_model.h5), or others of models.checkpoint_writer;
        safe_serialization=False, the reference's word, means "h5".
        """
        refuse_saving(keywords)
        if not is_main_process:
            return
        config = RobertaPreLayerNormConfig.from_dict(self.config.to_dict())
        config.architectures = [architecture(head=type(self).head, family=config.family)]
        config.dtype = self.dtype
        tensors = {
            name.removeprefix(PREFIX) if self.bare else name: to_numpy(self, name) for name in self.expected_tensors()
        }
        write_checkpoint(
            url=str(url),
            config=config,
            tensors=tensors,
            tokenizer_files=tokenizer_files,
            max_shard_size=max_shard_size,
            weights_format=weights_format if safe_serialization else "h5",
        )

    def tie_weights(self) -> None:
        """Make one variable of the decoder's weight and the word table if they are tied."""
        lm_head = getattr(self, "lm_head", None)
        if lm_head is not None and lm_head.decoder.tied:
            lm_head.decoder.tie(self.get_input_embeddings().weight)

    def get_input_embeddings(self) -> Embedding:
        """The word embeddings [V, H]."""
        table: Embedding = self.base_model.embeddings.word_embeddings
        return table

    def set_input_embeddings(self, embeddings: Embedding) -> None:
        """Put another word table in the place of this one."""
        self.base_model.embeddings.word_embeddings = embeddings
        self.tie_weights()

    def get_output_embeddings(self) -> TFRobertaPreLayerNormDecoder | None:
        """The decoder [V, H] of a language model, None for other heads."""
        lm_head = getattr(self, "lm_head", None)
        return None if lm_head is None else lm_head.decoder

    def set_output_embeddings(self, decoder: TFRobertaPreLayerNormDecoder) -> None:
        """Put another decoder in the place of this one; the bias stays the head's."""
        self.lm_head.decoder = decoder

    def resize_token_embeddings(
        self,
        new_num_tokens: int | None = None,
        pad_to_multiple_of: int | None = None,
        mean_resizing: bool = True,
    ) -> Embedding:
        """Grow or cut the word table (and a language model's decoder and bias); config.vocab_size follows.

        Old rows stay, new ones start at the mean of the old, or with mean_resizing=False from N(0, initializer_range).
        Returns the table. Compile the model again.
        """
        rows = self.config.vocab_size if new_num_tokens is None else new_num_tokens
        if pad_to_multiple_of is not None:
            rows = -(-rows // pad_to_multiple_of) * pad_to_multiple_of
        if rows == self.config.vocab_size:
            return self.get_input_embeddings()
        if rows <= self.config.pad_token_id:
            raise ValueError(f"a vocabulary of {rows} has no row for pad_token_id {self.config.pad_token_id}")
        resize_embedding(self.get_input_embeddings(), rows=rows, config=self.config, mean=mean_resizing)
        if self.get_output_embeddings() is not None:
            resize_language_head(self.lm_head, rows=rows, config=self.config, mean=mean_resizing)
        self.config.vocab_size = rows
        self.tie_weights()
        return self.get_input_embeddings()

    def prune_heads(self, heads_to_prune: Mapping[int, Sequence[int]]) -> None:
        """Cut self-attention's heads, e.g. {0: [1, 2]}, numbered as in the unpruned model; the config keeps them."""
        prune(self.base_model.encoder, heads_to_prune=heads_to_prune, config=self.config)

    def gradient_checkpointing_enable(self) -> None:
        """Compute layers again in the backward pass instead of keeping them; training then returns no cache."""
        self.base_model.encoder.gradient_checkpointing = True

    def gradient_checkpointing_disable(self) -> None:
        """Keep all activations again."""
        self.base_model.encoder.gradient_checkpointing = False

    @property
    def is_gradient_checkpointing(self) -> bool:
        """Whether layers are computed again in the backward pass."""
        return bool(self.base_model.encoder.gradient_checkpointing)

    def num_parameters(self) -> int:
        """Parameters, tied ones counted once."""
        return sum(int(variable.shape.num_elements()) for variable in neutral_variables(self).values())

    @property
    def dummy_inputs(self) -> dict[str, Tensor]:
        """Ids that any model of this class takes."""
        return {"input_ids": tf.constant([[0, 3, 2]])}
