"""What transformers and sentence-transformers need beside their masked LMs to answer for one mask a text.

Legend: B a batch, S its longest text, H hidden size, V vocabulary, k answers a mask.
"""

from typing import Any

import torch

from jobs.benchmarks.ours import TOP_K
from models.tokenizer import load_tokenizer


def best(logits_BV: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(ids [B, k], probabilities [B, k]), best first."""
    probs_Bk, ids_Bk = logits_BV.float().softmax(-1).topk(TOP_K)
    return ids_Bk, probs_Bk


class AtMask(torch.nn.Module):
    """transformers' masked LM, its head called for the masks alone instead of for every token, as its own class does."""

    def __init__(self, model: Any, folder: str) -> None:
        super().__init__()
        self.config, self._encoder, self._head = model.config, model.base_model, model.lm_head
        self._mask_id = load_tokenizer(folder).mask_id

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids [B, k] and probabilities [B, k] of the one mask in each text [B, S]."""
        hidden_BSH = self._encoder(input_ids=input_ids, attention_mask=attention_mask)[0]
        return best(self._head(hidden_BSH[input_ids == self._mask_id]))


class PickMask(torch.nn.Module):
    """What follows sentence-transformers' masked LM: keeps the masks' answers, ids before probabilities [B, 2k], as the
    texts' "vectors". Ids are exact in float32. Its input is padded [B, S, V] or packed [1, T, V]."""

    def __init__(self, mask_id: int) -> None:
        super().__init__()
        self._mask_id = mask_id

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        """The features with `sentence_embedding`."""
        logits_BV = features["token_embeddings"][features["input_ids"] == self._mask_id]
        ids_Bk, probs_Bk = best(logits_BV)
        return {**features, "sentence_embedding": torch.cat([ids_Bk.float(), probs_Bk], dim=-1)}


def sentence_modules(folder: str, model_options: dict[str, Any]) -> list[torch.nn.Module]:
    """sentence-transformers' masked LM, which has the logits of every token, and what keeps the masks'."""
    from sentence_transformers.base.modules import Transformer

    transformer = Transformer(folder, transformer_task="fill-mask", model_kwargs=model_options)
    return [transformer, PickMask(load_tokenizer(folder).mask_id)]
