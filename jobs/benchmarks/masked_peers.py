"""What transformers and sentence-transformers need beside their masked LMs to answer for one mask a text.

Classes are made inside functions: importing this module imports no framework.
Legend: B a batch, S its longest text, H hidden size, V vocabulary, k answers a mask.
"""

from typing import TYPE_CHECKING, Any

from jobs.benchmarks.ours import TOP_K
from models.tokenizer import load_tokenizer

if TYPE_CHECKING:
    import torch


def best(logits_BV: "torch.Tensor") -> "tuple[torch.Tensor, torch.Tensor]":
    """(ids [B, k], probabilities [B, k]), best first."""
    probs_Bk, ids_Bk = logits_BV.float().softmax(-1).topk(TOP_K)
    return ids_Bk, probs_Bk


def at_mask(model: Any, folder: str) -> Any:
    """transformers' masked LM, its head called for the masks alone instead of for every token, as its own class does.

    It takes ids and a mask [B, S], one `<mask>` a text, and returns ids [B, k] and probabilities [B, k].
    """
    import torch

    mask_id = load_tokenizer(folder).mask_id

    class AtMask(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.config, self.encoder, self.head = model.config, model.base_model, model.lm_head

        def forward(self, input_ids: Any, attention_mask: Any) -> tuple[Any, Any]:
            hidden_BSH = self.encoder(input_ids=input_ids, attention_mask=attention_mask)[0]
            return best(self.head(hidden_BSH[input_ids == mask_id]))

    return AtMask().eval()


def sentence_modules(folder: str, model_options: dict[str, Any]) -> list[Any]:
    """sentence-transformers' masked LM, which has the logits of every token, and what keeps those of the masks.

    The "vectors" of texts are then ids before probabilities [B, 2k]; ids are exact in float32.
    """
    import torch
    from sentence_transformers.base.modules import Transformer

    mask_id = load_tokenizer(folder).mask_id

    class PickMask(torch.nn.Module):
        def forward(self, features: dict[str, Any]) -> dict[str, Any]:
            # Padded [B, S, V] or packed [1, T, V].
            ids_Bk, probs_Bk = best(features["token_embeddings"][features["input_ids"] == mask_id])
            return {**features, "sentence_embedding": torch.cat([ids_Bk.float(), probs_Bk], dim=-1)}

    return [Transformer(folder, transformer_task="fill-mask", model_kwargs=model_options), PickMask()]
