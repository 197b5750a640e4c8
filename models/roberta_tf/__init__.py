"""RoBERTa-PreLayerNorm in TensorFlow: the seven classes, and the flat model behind the boundary."""

import os

# Keras 3 speaks several frameworks; it must be told before its first import.
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        f"Keras runs on '{keras.backend.backend()}' here, these classes need TensorFlow; "
        "set KERAS_BACKEND=tensorflow before Keras is imported"
    )

from models.roberta_tf.base import TFRobertaPreLayerNormModel
from models.roberta_tf.causal_lm import TFRobertaPreLayerNormForCausalLM
from models.roberta_tf.classification import (
    TFRobertaPreLayerNormForMultipleChoice,
    TFRobertaPreLayerNormForQuestionAnswering,
    TFRobertaPreLayerNormForSequenceClassification,
    TFRobertaPreLayerNormForTokenClassification,
)
from models.roberta_tf.masked_lm import TFRobertaPreLayerNormForMaskedLM
from models.roberta_tf.pretrained import TFRobertaPreLayerNormPreTrainedModel

__all__ = [
    "TFRobertaPreLayerNormForCausalLM",
    "TFRobertaPreLayerNormForMaskedLM",
    "TFRobertaPreLayerNormForMultipleChoice",
    "TFRobertaPreLayerNormForQuestionAnswering",
    "TFRobertaPreLayerNormForSequenceClassification",
    "TFRobertaPreLayerNormForTokenClassification",
    "TFRobertaPreLayerNormModel",
    "TFRobertaPreLayerNormPreTrainedModel",
]
