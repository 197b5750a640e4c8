"""A checkpoint folder in, a model of the wanted class out; and back. What all seven classes can do besides forward().

Legend: V vocabulary, H hidden size.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Self, cast

import torch
from torch import Tensor, nn

from models.boundary import Head
from models.checkpoint import Checkpoint
from models.checkpoint_writer import write_checkpoint
from models.checks import check_config
from models.config import RobertaPreLayerNormConfig
from models.loading import LoadingReport, compare, judge
from models.outputs import ModelOutput
from models.roberta_torch.weights import fill, fill_missing, initialise, neutral_parameters, to_numpy, torch_dtype
from models.tensors import ARCHITECTURES, PREFIX, expected_tensors


class RobertaPreLayerNormPreTrainedModel(nn.Module):
    """Base of the seven classes: building, loading, saving, embeddings, pruning and checkpointed gradients."""

    config_class = RobertaPreLayerNormConfig
    base_model_prefix = "roberta_prelayernorm"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    head: ClassVar[Head] = "encoder"

    def __init__(self, config: RobertaPreLayerNormConfig) -> None:
        super().__init__()
        check_config(config)
        self.config = config

    def post_init(self) -> None:
        """Start the parameters afresh and tie what is one tensor."""
        initialise(self, self.config)
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
    def from_config(cls, config: RobertaPreLayerNormConfig) -> Self:
        """A fresh model."""
        return cls(config)

    @classmethod
    def from_pretrained(
        cls,
        url: str,
        *,
        config: RobertaPreLayerNormConfig | None = None,
        dtype: str | torch.dtype | None = None,
        device: str | None = None,
        ignore_mismatched_sizes: bool = False,
        output_loading_info: bool = False,
        add_pooling_layer: bool = True,
        **overrides: Any,
    ) -> Any:
        """The model of a checkpoint folder at a path or URL, in evaluation mode.

        config: instead of config.json; overrides: single fields of it, e.g. num_labels=3.
        dtype: "float32" (default), "bfloat16", "float16", or "auto" for the type that the folder is stored in.
        ignore_mismatched_sizes: start tensors of another size afresh instead of raising MismatchError.
        output_loading_info: return (model, info) with missing_keys, unexpected_keys and mismatched_keys.
        """
        checkpoint = Checkpoint.open(url)
        if config is None:
            config = RobertaPreLayerNormConfig.from_dict(checkpoint.config.to_dict(), **overrides)
        wanted = torch_dtype(checkpoint.stored_dtype if dtype == "auto" else dtype or "float32")
        extra = {} if cls.head != "encoder" else {"add_pooling_layer": add_pooling_layer}
        with torch.device("meta"):
            model = cls(config, **extra)
        report = model._load(checkpoint, dtype=wanted, device=device, ignore_mismatched_sizes=ignore_mismatched_sizes)
        model.eval()
        return (model, report.as_info()) if output_loading_info else model

    def _load(
        self, checkpoint: Checkpoint, *, dtype: torch.dtype, device: str | None, ignore_mismatched_sizes: bool
    ) -> LoadingReport:
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
        url: str,
        *,
        max_shard_size: int | str = "5GB",
        tokenizer_files: Mapping[str, bytes] | None = None,
    ) -> None:
        """Write config.json and safetensors weights to a folder at a path or URL; tied tensors are written once."""
        config = RobertaPreLayerNormConfig.from_dict(self.config.to_dict())
        config.architectures = [ARCHITECTURES[type(self).head]]
        config.dtype = str(self.dtype).removeprefix("torch.")
        named = neutral_parameters(self, bare=self.bare)
        tensors = {
            name.removeprefix(PREFIX) if self.bare else name: to_numpy(named[name]) for name in self.expected_tensors()
        }
        write_checkpoint(
            url=url, config=config, tensors=tensors, tokenizer_files=tokenizer_files, max_shard_size=max_shard_size
        )

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

    def num_parameters(self) -> int:
        """Parameters, tied ones counted once."""
        return sum(parameter.numel() for parameter in self.parameters())

    @property
    def dummy_inputs(self) -> dict[str, Tensor]:
        """Ids that any model of this class takes."""
        return {"input_ids": torch.tensor([[0, 3, 2]])}
