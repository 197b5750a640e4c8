"""Padded token ids in, scores of sequences, choices, tokens or answer spans out.

Legend: B batch, C choices, S sequence, H hidden size, L labels.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from models.checks import check_choices
from models.config import RobertaPreLayerNormConfig
from models.outputs import (
    MultipleChoiceModelOutput,
    QuestionAnsweringModelOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)
from models.roberta_flax.base import FlaxRobertaPreLayerNormModule
from models.roberta_flax.heads import FlaxRobertaPreLayerNormClassificationHead, classifier_dropout
from models.roberta_flax.layers import Array, Dropout, linear
from models.roberta_flax.losses import class_loss, sequence_loss, span_loss
from models.roberta_flax.pretrained import FlaxRobertaPreLayerNormPreTrainedModel


class FlaxRobertaPreLayerNormForSequenceClassificationModule(nn.Module):
    """Scores whole texts: logits [B, L]."""

    config: RobertaPreLayerNormConfig
    dtype: Any = jnp.float32
    gradient_checkpointing: bool = False

    def setup(self) -> None:
        config = self.config
        self.roberta_prelayernorm = FlaxRobertaPreLayerNormModule(
            config, dtype=self.dtype, add_pooling_layer=False, gradient_checkpointing=self.gradient_checkpointing
        )
        self.classifier = FlaxRobertaPreLayerNormClassificationHead(config, dtype=self.dtype)

    def __call__(
        self,
        input_ids: Array | None = None,
        attention_mask: Array | None = None,
        token_type_ids: Array | None = None,
        position_ids: Array | None = None,
        head_mask: Array | None = None,
        inputs_embeds: Array | None = None,
        labels: Array | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        deterministic: bool = True,
    ) -> SequenceClassifierOutput:
        """labels: class ids [B], numbers [B] or [B, L], or zeros and ones [B, L] (models.checks.loss_kind)."""
        encoded = self.roberta_prelayernorm(
            input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            head_mask=head_mask,
            inputs_embeds=inputs_embeds,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            deterministic=deterministic,
        )
        logits_BL = self.classifier(encoded.last_hidden_state[:, 0], deterministic=deterministic)
        problem_type = self.config.problem_type
        return SequenceClassifierOutput(
            loss=None if labels is None else sequence_loss(logits_BL, labels, problem_type=problem_type),
            logits=logits_BL,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )


class FlaxRobertaPreLayerNormForSequenceClassification(FlaxRobertaPreLayerNormPreTrainedModel):
    """FlaxRobertaPreLayerNormForSequenceClassificationModule with its parameters."""

    head = "sequence-classification"
    module_class = FlaxRobertaPreLayerNormForSequenceClassificationModule


class FlaxRobertaPreLayerNormForMultipleChoiceModule(nn.Module):
    """Scores the choices of each question: inputs [B, C, S], logits [B, C]."""

    config: RobertaPreLayerNormConfig
    dtype: Any = jnp.float32
    gradient_checkpointing: bool = False

    def setup(self) -> None:
        config = self.config
        self.roberta_prelayernorm = FlaxRobertaPreLayerNormModule(
            config, dtype=self.dtype, gradient_checkpointing=self.gradient_checkpointing
        )
        self.dropout = Dropout(config.hidden_dropout_prob)
        self.classifier = linear(config, 1, self.dtype)

    def __call__(
        self,
        input_ids: Array | None = None,
        token_type_ids: Array | None = None,
        attention_mask: Array | None = None,
        labels: Array | None = None,
        position_ids: Array | None = None,
        head_mask: Array | None = None,
        inputs_embeds: Array | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        deterministic: bool = True,
    ) -> MultipleChoiceModelOutput:
        """labels: the right choice's index [B]. The order of the arguments is unlike the other heads'."""
        given = input_ids if input_ids is not None else inputs_embeds
        encoded = self.roberta_prelayernorm(
            flatten_choices(input_ids),
            attention_mask=flatten_choices(attention_mask),
            token_type_ids=flatten_choices(token_type_ids),
            position_ids=flatten_choices(position_ids),
            head_mask=head_mask,
            inputs_embeds=flatten_choices(inputs_embeds),
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            deterministic=deterministic,
        )
        assert given is not None
        pooled_BH = self.dropout(encoded.pooler_output, deterministic=deterministic)
        logits_BC = self.classifier(pooled_BH).reshape(-1, given.shape[1])
        return MultipleChoiceModelOutput(
            loss=None if labels is None else class_loss(logits_BC, labels),
            logits=logits_BC,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )


class FlaxRobertaPreLayerNormForMultipleChoice(FlaxRobertaPreLayerNormPreTrainedModel):
    """FlaxRobertaPreLayerNormForMultipleChoiceModule with its parameters."""

    head = "multiple-choice"
    module_class = FlaxRobertaPreLayerNormForMultipleChoiceModule


class FlaxRobertaPreLayerNormForTokenClassificationModule(nn.Module):
    """Scores every token: logits [B, S, L]."""

    config: RobertaPreLayerNormConfig
    dtype: Any = jnp.float32
    gradient_checkpointing: bool = False

    def setup(self) -> None:
        config = self.config
        self.roberta_prelayernorm = FlaxRobertaPreLayerNormModule(
            config, dtype=self.dtype, add_pooling_layer=False, gradient_checkpointing=self.gradient_checkpointing
        )
        self.dropout = Dropout(classifier_dropout(config))
        self.classifier = linear(config, config.num_labels, self.dtype)

    def __call__(
        self,
        input_ids: Array | None = None,
        attention_mask: Array | None = None,
        token_type_ids: Array | None = None,
        position_ids: Array | None = None,
        head_mask: Array | None = None,
        inputs_embeds: Array | None = None,
        labels: Array | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        deterministic: bool = True,
    ) -> TokenClassifierOutput:
        """labels: class ids [B, S], -100 where nothing is scored."""
        encoded = self.roberta_prelayernorm(
            input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            head_mask=head_mask,
            inputs_embeds=inputs_embeds,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            deterministic=deterministic,
        )
        logits_BSL = self.classifier(self.dropout(encoded.last_hidden_state, deterministic=deterministic))
        return TokenClassifierOutput(
            loss=None if labels is None else class_loss(logits_BSL, labels),
            logits=logits_BSL,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )


class FlaxRobertaPreLayerNormForTokenClassification(FlaxRobertaPreLayerNormPreTrainedModel):
    """FlaxRobertaPreLayerNormForTokenClassificationModule with its parameters."""

    head = "token-classification"
    module_class = FlaxRobertaPreLayerNormForTokenClassificationModule


class FlaxRobertaPreLayerNormForQuestionAnsweringModule(nn.Module):
    """Scores every token as an answer's start and end: start_logits and end_logits [B, S]."""

    config: RobertaPreLayerNormConfig
    dtype: Any = jnp.float32
    gradient_checkpointing: bool = False

    def setup(self) -> None:
        config = self.config
        self.roberta_prelayernorm = FlaxRobertaPreLayerNormModule(
            config, dtype=self.dtype, add_pooling_layer=False, gradient_checkpointing=self.gradient_checkpointing
        )
        self.qa_outputs = linear(config, 2, self.dtype)

    def __call__(
        self,
        input_ids: Array | None = None,
        attention_mask: Array | None = None,
        token_type_ids: Array | None = None,
        position_ids: Array | None = None,
        head_mask: Array | None = None,
        inputs_embeds: Array | None = None,
        start_positions: Array | None = None,
        end_positions: Array | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        deterministic: bool = True,
    ) -> QuestionAnsweringModelOutput:
        """start_positions, end_positions: [B] or [B, 1]; the loss needs both, and ignores positions of S or beyond."""
        encoded = self.roberta_prelayernorm(
            input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            head_mask=head_mask,
            inputs_embeds=inputs_embeds,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            deterministic=deterministic,
        )
        start_BS, end_BS = jnp.moveaxis(self.qa_outputs(encoded.last_hidden_state), -1, 0)
        loss = None
        if start_positions is not None and end_positions is not None:
            loss = span_loss(start_BS, end_BS, start_positions, end_positions)
        return QuestionAnsweringModelOutput(
            loss=loss,
            start_logits=start_BS,
            end_logits=end_BS,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )


class FlaxRobertaPreLayerNormForQuestionAnswering(FlaxRobertaPreLayerNormPreTrainedModel):
    """FlaxRobertaPreLayerNormForQuestionAnsweringModule with its parameters."""

    head = "question-answering"
    module_class = FlaxRobertaPreLayerNormForQuestionAnsweringModule

    def check(self) -> None:
        """Refuse a config with other than two labels."""
        super().check()
        check_choices(labels=self.config.num_labels, head="question answering", needed=2)


def flatten_choices(values: Array | None) -> Array | None:
    """[B, C, …] -> [B x C, …]."""
    return None if values is None else values.reshape(-1, *values.shape[2:])
