"""Padded token ids in, scores of sequences, choices, tokens or answer spans out.

Legend: B batch, C choices, S sequence, H hidden size, L labels.
"""

from typing import Any

from torch import Tensor, nn

from models.checks import check_choices
from models.config import RobertaPreLayerNormConfig
from models.outputs import (
    MultipleChoiceModelOutput,
    QuestionAnsweringModelOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)
from models.roberta_torch.base import RobertaPreLayerNormModel
from models.roberta_torch.heads import RobertaPreLayerNormClassificationHead, classifier_dropout
from models.roberta_torch.losses import class_loss, sequence_loss, span_loss
from models.roberta_torch.pretrained import RobertaPreLayerNormPreTrainedModel


class RobertaPreLayerNormForSequenceClassification(RobertaPreLayerNormPreTrainedModel):
    """Scores whole texts: logits [B, L]."""

    head = "sequence-classification"

    def __init__(self, config: RobertaPreLayerNormConfig) -> None:
        super().__init__(config)
        config = self.config
        self.num_labels = config.num_labels
        self.roberta_prelayernorm = RobertaPreLayerNormModel(config, add_pooling_layer=False)
        self.classifier = RobertaPreLayerNormClassificationHead(config)
        self.post_init()

    def forward(
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
    ) -> Any:
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
            return_dict=True,
        )
        logits_BL = self.classifier(encoded.last_hidden_state[:, 0])
        problem_type = self.config.problem_type
        output = SequenceClassifierOutput(
            loss=None if labels is None else sequence_loss(logits_BL, labels, problem_type=problem_type),
            logits=logits_BL,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )
        return self.answer(output, return_dict=return_dict)


class RobertaPreLayerNormForMultipleChoice(RobertaPreLayerNormPreTrainedModel):
    """Scores the choices of each question: inputs [B, C, S], logits [B, C]."""

    head = "multiple-choice"

    def __init__(self, config: RobertaPreLayerNormConfig) -> None:
        super().__init__(config)
        config = self.config
        self.roberta_prelayernorm = RobertaPreLayerNormModel(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.classifier = nn.Linear(config.hidden_size, 1)
        self.post_init()

    def forward(
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
    ) -> Any:
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
            return_dict=True,
        )
        assert given is not None
        logits_BC = self.classifier(self.dropout(encoded.pooler_output)).view(-1, given.shape[1])
        output = MultipleChoiceModelOutput(
            loss=None if labels is None else class_loss(logits_BC, labels),
            logits=logits_BC,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )
        return self.answer(output, return_dict=return_dict)


class RobertaPreLayerNormForTokenClassification(RobertaPreLayerNormPreTrainedModel):
    """Scores every token: logits [B, S, L]."""

    head = "token-classification"

    def __init__(self, config: RobertaPreLayerNormConfig) -> None:
        super().__init__(config)
        config = self.config
        self.num_labels = config.num_labels
        self.roberta_prelayernorm = RobertaPreLayerNormModel(config, add_pooling_layer=False)
        self.dropout = nn.Dropout(classifier_dropout(config))
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def forward(
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
    ) -> Any:
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
            return_dict=True,
        )
        logits_BSL = self.classifier(self.dropout(encoded.last_hidden_state))
        output = TokenClassifierOutput(
            loss=None if labels is None else class_loss(logits_BSL, labels),
            logits=logits_BSL,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )
        return self.answer(output, return_dict=return_dict)


class RobertaPreLayerNormForQuestionAnswering(RobertaPreLayerNormPreTrainedModel):
    """Scores every token as an answer's start and end: start_logits and end_logits [B, S]."""

    head = "question-answering"

    def __init__(self, config: RobertaPreLayerNormConfig) -> None:
        super().__init__(config)
        config = self.config
        check_choices(labels=config.num_labels, head="question answering", needed=2)
        self.num_labels = config.num_labels
        self.roberta_prelayernorm = RobertaPreLayerNormModel(config, add_pooling_layer=False)
        self.qa_outputs = nn.Linear(config.hidden_size, 2)
        self.post_init()

    def forward(
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
    ) -> Any:
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
            return_dict=True,
        )
        start_BS, end_BS = self.qa_outputs(encoded.last_hidden_state).unbind(-1)
        loss = None
        if start_positions is not None and end_positions is not None:
            loss = span_loss(start_BS, end_BS, start_positions, end_positions)
        output = QuestionAnsweringModelOutput(
            loss=loss,
            start_logits=start_BS.contiguous(),
            end_logits=end_BS.contiguous(),
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )
        return self.answer(output, return_dict=return_dict)


def flatten_choices(values: Tensor | None) -> Tensor | None:
    """[B, C, …] -> [B x C, …]."""
    return None if values is None else values.flatten(0, 1)
