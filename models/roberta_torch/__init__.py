"""RoBERTa-PreLayerNorm in PyTorch: the seven classes, and the flat model behind the boundary."""

from models.roberta_torch.base import RobertaPreLayerNormModel
from models.roberta_torch.causal_lm import RobertaPreLayerNormForCausalLM
from models.roberta_torch.classification import (
    RobertaPreLayerNormForMultipleChoice,
    RobertaPreLayerNormForQuestionAnswering,
    RobertaPreLayerNormForSequenceClassification,
    RobertaPreLayerNormForTokenClassification,
)
from models.roberta_torch.masked_lm import RobertaPreLayerNormForMaskedLM
from models.roberta_torch.pretrained import RobertaPreLayerNormPreTrainedModel

__all__ = [
    "RobertaPreLayerNormForCausalLM",
    "RobertaPreLayerNormForMaskedLM",
    "RobertaPreLayerNormForMultipleChoice",
    "RobertaPreLayerNormForQuestionAnswering",
    "RobertaPreLayerNormForSequenceClassification",
    "RobertaPreLayerNormForTokenClassification",
    "RobertaPreLayerNormModel",
    "RobertaPreLayerNormPreTrainedModel",
]
