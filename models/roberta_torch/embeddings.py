"""Token ids, or vectors in their place, in; word, type and position embeddings summed and normalised out.

Legend: B batch, S sequence, H hidden size. P stands for pad_token_id.
"""

import torch
from torch import Tensor, nn

from models.checks import check_length, check_range
from models.config import RobertaPreLayerNormConfig
from models.roberta_torch.norms import embeddings_norm


class RobertaPreLayerNormEmbeddings(nn.Module):
    """word + token type + position, then LayerNorm and dropout. Relative positions: the table stays, unused."""

    def __init__(self, config: RobertaPreLayerNormConfig) -> None:
        super().__init__()
        self.config = config
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
        self.position_embeddings = nn.Embedding(
            config.max_position_embeddings, config.hidden_size, padding_idx=config.pad_token_id
        )
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = embeddings_norm(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(
        self,
        *,
        input_ids_BS: Tensor | None = None,
        token_type_ids_BS: Tensor | None = None,
        position_ids_BS: Tensor | None = None,
        inputs_embeds_BSH: Tensor | None = None,
        past_tokens_B: Tensor | None = None,
    ) -> Tensor:
        """[B, S, H]. past_tokens_B: real tokens of each row before these ones."""
        if inputs_embeds_BSH is None:
            assert input_ids_BS is not None
            self._check_values("input_ids", input_ids_BS, self.config.vocab_size, "vocab_size")
            inputs_embeds_BSH = self.word_embeddings(input_ids_BS)
        if position_ids_BS is None:
            position_ids_BS = self.default_positions(input_ids_BS, inputs_embeds_BSH, past_tokens_B)
        else:
            limit = self.config.max_position_embeddings
            self._check_values("position_ids", position_ids_BS, limit, "max_position_embeddings")
        if token_type_ids_BS is None:
            token_type_ids_BS = torch.zeros_like(position_ids_BS)
        else:
            self._check_values("token_type_ids", token_type_ids_BS, self.config.type_vocab_size, "type_vocab_size")
        return self.embed(inputs_embeds_BSH, token_type_ids_BS, position_ids_BS)

    def embed(self, words_BSH: Tensor, token_type_ids_BS: Tensor, position_ids_BS: Tensor) -> Tensor:
        """The sum of the three, normalised; also of flat tokens [T, H]."""
        hidden_BSH = words_BSH + self.token_type_embeddings(token_type_ids_BS)
        if self.config.position_embedding_type == "absolute":
            hidden_BSH = hidden_BSH + self.position_embeddings(position_ids_BS)
        embedded_BSH: Tensor = self.dropout(self.LayerNorm(hidden_BSH))
        return embedded_BSH

    def default_positions(
        self, input_ids_BS: Tensor | None, inputs_embeds_BSH: Tensor, past_tokens_B: Tensor | None
    ) -> Tensor:
        """From ids: real tokens count on from P + 1, pads get P. From vectors: P + 1 … for everybody. Past is added."""
        padding_index = self.config.pad_token_id
        batch, length = inputs_embeds_BSH.shape[:2]
        if input_ids_BS is None:
            positions_BS = torch.arange(1, length + 1, device=inputs_embeds_BSH.device).expand(batch, length)
            real_BS = torch.ones_like(positions_BS)
        else:
            real_BS = (input_ids_BS != padding_index).long()
            positions_BS = torch.cumsum(real_BS, dim=1)
        if past_tokens_B is not None:
            positions_BS = positions_BS + past_tokens_B[:, None]
        # Only a row with more slots than positions can run over: no need to look at the values of others.
        if readable(positions_BS) and (length > self.config.max_tokens or past_tokens_B is not None):
            check_length(tokens=int((positions_BS * real_BS).max()), config=self.config)
        return positions_BS * real_BS + padding_index

    def _check_values(self, name: str, values: Tensor, size: int, limit: str) -> None:
        if readable(values) and values.numel():
            low, high = torch.aminmax(values)
            check_range(name=name, low=int(low), high=int(high), size=size, limit=limit)


def readable(values: Tensor) -> bool:
    """Whether Python may look at the values: not while tracing, compiling, exporting or capturing a CUDA graph."""
    if torch._C._get_tracing_state() is not None or torch.compiler.is_compiling() or values.is_meta:
        return False
    if torch._C._functorch.is_functorch_wrapped_tensor(values):
        return False
    return not (values.is_cuda and torch.cuda.is_current_stream_capturing())
