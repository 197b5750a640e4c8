"""The masked language model: a score for every word of the vocabulary at every place.

Legend: B batch, S sequence, V vocabulary, H hidden size.
"""

import logging
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from models.config import RobertaPreLayerNormConfig
from models.outputs import MaskedLMOutput
from models.roberta_flax.base import FlaxRobertaPreLayerNormModule
from models.roberta_flax.heads import FlaxRobertaPreLayerNormLMHead
from models.roberta_flax.layers import Array
from models.roberta_flax.losses import class_loss
from models.roberta_flax.pretrained import FlaxRobertaPreLayerNormPreTrainedModel

logger = logging.getLogger(__name__)


class FlaxRobertaPreLayerNormForMaskedLMModule(nn.Module):
    """Fills masks: logits [B, S, V]; labels [B, S] with -100 where nothing is scored."""

    config: RobertaPreLayerNormConfig
    dtype: Any = jnp.float32
    gradient_checkpointing: bool = False

    def setup(self) -> None:
        self.roberta_prelayernorm = FlaxRobertaPreLayerNormModule(
            self.config,
            dtype=self.dtype,
            add_pooling_layer=False,
            gradient_checkpointing=self.gradient_checkpointing,
        )
        self.lm_head = FlaxRobertaPreLayerNormLMHead(self.config, dtype=self.dtype)

    def __call__(
        self,
        input_ids: Array | None = None,
        attention_mask: Array | None = None,
        token_type_ids: Array | None = None,
        position_ids: Array | None = None,
        head_mask: Array | None = None,
        inputs_embeds: Array | None = None,
        encoder_hidden_states: Array | None = None,
        encoder_attention_mask: Array | None = None,
        labels: Array | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        deterministic: bool = True,
    ) -> MaskedLMOutput:
        """Arguments as the bare module's; the loss is the mean cross entropy of labels that are not -100."""
        encoded = self.roberta_prelayernorm(
            input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            head_mask=head_mask,
            inputs_embeds=inputs_embeds,
            encoder_hidden_states=encoder_hidden_states,
            encoder_attention_mask=encoder_attention_mask,
            use_cache=False,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            deterministic=deterministic,
        )
        logits_BSV = self.scores(encoded.last_hidden_state)
        return MaskedLMOutput(
            loss=None if labels is None else class_loss(logits_BSV, labels),
            logits=logits_BSV,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )

    def scores(self, hidden_BSH: Array) -> Array:
        """[…, H] -> logits […, V]."""
        return self.lm_head(hidden_BSH, self.roberta_prelayernorm.words())


class FlaxRobertaPreLayerNormForMaskedLM(FlaxRobertaPreLayerNormPreTrainedModel):
    """FlaxRobertaPreLayerNormForMaskedLMModule with its parameters."""

    head = "masked-lm"
    module_class = FlaxRobertaPreLayerNormForMaskedLMModule

    def check(self) -> None:
        """Say what the config does that a masked LM rarely wants."""
        super().check()
        if self.config.is_decoder:
            logger.warning("a masked LM with is_decoder=True sees no later tokens; set is_decoder=False to fill masks")
