"""Padded token ids in, scores of sequences, choices, tokens or answer spans out.

Legend: B batch, C choices, S sequence, H hidden size, L labels, X any leading axes.
"""

from collections.abc import Mapping
from typing import Any

import tensorflow as tf
from tensorflow import Tensor

from models.checks import check_choices
from models.config import RobertaPreLayerNormConfig
from models.outputs import (
    ModelOutput,
    MultipleChoiceModelOutput,
    QuestionAnsweringModelOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)
from models.roberta_tf.base import TFRobertaPreLayerNormModel
from models.roberta_tf.heads import TFRobertaPreLayerNormClassificationHead, classifier_dropout
from models.roberta_tf.layers import Dense, Dropout, sizes
from models.roberta_tf.losses import class_loss, sequence_loss, span_loss
from models.roberta_tf.pretrained import TFRobertaPreLayerNormPreTrainedModel


class TFRobertaPreLayerNormForSequenceClassification(TFRobertaPreLayerNormPreTrainedModel):
    """Scores whole texts: logits [B, L]."""

    head = "sequence-classification"

    def __init__(self, config: RobertaPreLayerNormConfig, *, name: str | None = None) -> None:
        super().__init__(config, name=name)
        config = self.config
        self.num_labels = config.num_labels
        self.roberta_prelayernorm = TFRobertaPreLayerNormModel(config, add_pooling_layer=False)
        self.classifier = TFRobertaPreLayerNormClassificationHead(config)
        self.post_init()

    def call(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        training: bool = False,
    ) -> Any:
        """labels: class ids [B], numbers [B] or [B, L], or zeros and ones [B, L] (models.checks.loss_kind)."""
        encoded = self.roberta_prelayernorm.call(
            input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            head_mask=head_mask,
            inputs_embeds=inputs_embeds,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
            training=training,
        )
        logits_BL = self.classifier(encoded.last_hidden_state[:, 0], self.seeds(training))
        problem_type = self.config.problem_type
        output = SequenceClassifierOutput(
            loss=None if labels is None else sequence_loss(logits_BL, labels, problem_type=problem_type),
            logits=logits_BL,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )
        return self.answer(output, return_dict=return_dict)

    def loss_of(self, output: ModelOutput, labels: Tensor) -> Tensor:
        """The loss of labels given beside the inputs."""
        return sequence_loss(output.logits, labels, problem_type=self.config.problem_type)


class TFRobertaPreLayerNormForMultipleChoice(TFRobertaPreLayerNormPreTrainedModel):
    """Scores the choices of each question: inputs [B, C, S], logits [B, C]."""

    head = "multiple-choice"

    def __init__(self, config: RobertaPreLayerNormConfig, *, name: str | None = None) -> None:
        super().__init__(config, name=name)
        config = self.config
        self.roberta_prelayernorm = TFRobertaPreLayerNormModel(config)
        self.dropout = Dropout(config.hidden_dropout_prob)
        self.classifier = Dense(config.hidden_size, 1)
        self.post_init()

    def call(
        self,
        input_ids: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        training: bool = False,
    ) -> Any:
        """labels: the right choice's index [B]. The order of the arguments is unlike the other heads'."""
        given = input_ids if input_ids is not None else inputs_embeds
        encoded = self.roberta_prelayernorm.call(
            flatten_choices(input_ids),
            attention_mask=flatten_choices(attention_mask),
            token_type_ids=flatten_choices(token_type_ids),
            position_ids=flatten_choices(position_ids),
            head_mask=head_mask,
            inputs_embeds=flatten_choices(inputs_embeds),
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
            training=training,
        )
        assert given is not None
        pooled_XH = self.dropout(encoded.pooler_output, self.seeds(training))
        logits_BC = tf.reshape(self.classifier(pooled_XH), (-1, sizes(given)[1]))
        output = MultipleChoiceModelOutput(
            loss=None if labels is None else class_loss(logits_BC, labels),
            logits=logits_BC,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )
        return self.answer(output, return_dict=return_dict)

    def loss_of(self, output: ModelOutput, labels: Tensor) -> Tensor:
        """The loss of labels given beside the inputs."""
        return class_loss(output.logits, labels)


class TFRobertaPreLayerNormForTokenClassification(TFRobertaPreLayerNormPreTrainedModel):
    """Scores every token: logits [B, S, L]."""

    head = "token-classification"

    def __init__(self, config: RobertaPreLayerNormConfig, *, name: str | None = None) -> None:
        super().__init__(config, name=name)
        config = self.config
        self.num_labels = config.num_labels
        self.roberta_prelayernorm = TFRobertaPreLayerNormModel(config, add_pooling_layer=False)
        self.dropout = Dropout(classifier_dropout(config))
        self.classifier = Dense(config.hidden_size, config.num_labels)
        self.post_init()

    def call(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        training: bool = False,
    ) -> Any:
        """labels: class ids [B, S], -100 where nothing is scored."""
        encoded = self.roberta_prelayernorm.call(
            input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            head_mask=head_mask,
            inputs_embeds=inputs_embeds,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
            training=training,
        )
        logits_BSL = self.classifier(self.dropout(encoded.last_hidden_state, self.seeds(training)))
        output = TokenClassifierOutput(
            loss=None if labels is None else class_loss(logits_BSL, labels),
            logits=logits_BSL,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )
        return self.answer(output, return_dict=return_dict)

    def loss_of(self, output: ModelOutput, labels: Tensor) -> Tensor:
        """The loss of labels given beside the inputs."""
        return class_loss(output.logits, labels)


class TFRobertaPreLayerNormForQuestionAnswering(TFRobertaPreLayerNormPreTrainedModel):
    """Scores every token as an answer's start and end: start_logits and end_logits [B, S]."""

    head = "question-answering"

    def __init__(self, config: RobertaPreLayerNormConfig, *, name: str | None = None) -> None:
        super().__init__(config, name=name)
        config = self.config
        check_choices(labels=config.num_labels, head="question answering", needed=2)
        self.roberta_prelayernorm = TFRobertaPreLayerNormModel(config, add_pooling_layer=False)
        self.qa_outputs = Dense(config.hidden_size, 2)
        self.post_init()

    def call(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        training: bool = False,
    ) -> Any:
        """start_positions, end_positions: [B] or [B, 1]; the loss needs both, and ignores positions of S or beyond."""
        encoded = self.roberta_prelayernorm.call(
            input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            head_mask=head_mask,
            inputs_embeds=inputs_embeds,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
            training=training,
        )
        start_BS, end_BS = tf.unstack(self.qa_outputs(encoded.last_hidden_state), axis=-1)
        loss = None
        if start_positions is not None and end_positions is not None:
            loss = span_loss(start_BS, end_BS, start_positions, end_positions)
        output = QuestionAnsweringModelOutput(
            loss=loss,
            start_logits=start_BS,
            end_logits=end_BS,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )
        return self.answer(output, return_dict=return_dict)

    def loss_of(self, output: ModelOutput, labels: Any) -> Tensor:
        """The loss of (start_positions, end_positions), or a mapping of them, given beside the inputs."""
        if isinstance(labels, Mapping):
            labels = (labels["start_positions"], labels["end_positions"])
        start_positions, end_positions = labels
        return span_loss(output.start_logits, output.end_logits, start_positions, end_positions)


def flatten_choices(values: Tensor | None) -> Tensor | None:
    """[B, C, …] -> [B x C, …]."""
    return None if values is None else tf.reshape(values, (-1, *sizes(values)[2:]))
