"""The masked language model: a score for every word of the vocabulary at every place.

Legend: B batch, S sequence, V vocabulary.
"""

import logging
from typing import Any

from torch import Tensor

from models.config import RobertaPreLayerNormConfig
from models.outputs import MaskedLMOutput
from models.roberta_torch.base import RobertaPreLayerNormModel
from models.roberta_torch.heads import RobertaPreLayerNormLMHead
from models.roberta_torch.losses import class_loss
from models.roberta_torch.pretrained import RobertaPreLayerNormPreTrainedModel

logger = logging.getLogger(__name__)


class RobertaPreLayerNormForMaskedLM(RobertaPreLayerNormPreTrainedModel):
    """Fills masks: logits [B, S, V]; labels [B, S] with -100 where nothing is scored."""

    head = "masked-lm"

    def __init__(self, config: RobertaPreLayerNormConfig) -> None:
        super().__init__(config)
        config = self.config
        if config.is_decoder:
            logger.warning("a masked LM with is_decoder=True sees no later tokens; set is_decoder=False to fill masks")
        self.roberta_prelayernorm = RobertaPreLayerNormModel(config, add_pooling_layer=False)
        self.lm_head = RobertaPreLayerNormLMHead(config)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> Any:
        """Arguments as RobertaPreLayerNormModel's; the loss is the mean cross entropy of labels that are not -100."""
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
            return_dict=True,
        )
        logits_BSV = self.lm_head(encoded.last_hidden_state)
        output = MaskedLMOutput(
            loss=None if labels is None else class_loss(logits_BSV, labels),
            logits=logits_BSV,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )
        return self.answer(output, return_dict=return_dict)
