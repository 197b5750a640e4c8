"""RoBERTa-PreLayerNorm in Flax: the seven classes with their linen modules, and the flat model behind the boundary."""

from models.roberta_flax.base import FlaxRobertaPreLayerNormModel, FlaxRobertaPreLayerNormModule
from models.roberta_flax.causal_lm import FlaxRobertaPreLayerNormForCausalLM, FlaxRobertaPreLayerNormForCausalLMModule
from models.roberta_flax.classification import (
    FlaxRobertaPreLayerNormForMultipleChoice,
    FlaxRobertaPreLayerNormForMultipleChoiceModule,
    FlaxRobertaPreLayerNormForQuestionAnswering,
    FlaxRobertaPreLayerNormForQuestionAnsweringModule,
    FlaxRobertaPreLayerNormForSequenceClassification,
    FlaxRobertaPreLayerNormForSequenceClassificationModule,
    FlaxRobertaPreLayerNormForTokenClassification,
    FlaxRobertaPreLayerNormForTokenClassificationModule,
)
from models.roberta_flax.masked_lm import FlaxRobertaPreLayerNormForMaskedLM, FlaxRobertaPreLayerNormForMaskedLMModule
from models.roberta_flax.pretrained import FlaxRobertaPreLayerNormPreTrainedModel

__all__ = [
    "FlaxRobertaPreLayerNormForCausalLM",
    "FlaxRobertaPreLayerNormForCausalLMModule",
    "FlaxRobertaPreLayerNormForMaskedLM",
    "FlaxRobertaPreLayerNormForMaskedLMModule",
    "FlaxRobertaPreLayerNormForMultipleChoice",
    "FlaxRobertaPreLayerNormForMultipleChoiceModule",
    "FlaxRobertaPreLayerNormForQuestionAnswering",
    "FlaxRobertaPreLayerNormForQuestionAnsweringModule",
    "FlaxRobertaPreLayerNormForSequenceClassification",
    "FlaxRobertaPreLayerNormForSequenceClassificationModule",
    "FlaxRobertaPreLayerNormForTokenClassification",
    "FlaxRobertaPreLayerNormForTokenClassificationModule",
    "FlaxRobertaPreLayerNormModel",
    "FlaxRobertaPreLayerNormModule",
    "FlaxRobertaPreLayerNormPreTrainedModel",
]
