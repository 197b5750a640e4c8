"""Hidden states of the asked positions and a head in, its answers out, on the device.

Whole vocabularies never leave the device, and are made for a slice of the positions at a time. Softmax in float32.
Legend: G asked positions, H hidden size, V vocabulary, L labels, K candidate ids, k answers, B sequences.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from models.boundary import Ask, Head, IntArray
from models.flat_tokens import LM_HEADS
from models.roberta_torch.classification import RobertaPreLayerNormForMultipleChoice
from models.roberta_torch.pretrained import RobertaPreLayerNormPreTrainedModel

LOGITS_AT_ONCE = 32_000_000  # vocabulary scores in memory at a time: 128 MB in float32


ToDevice = Callable[[IntArray], Tensor]


def answer_head(
    *,
    model: RobertaPreLayerNormPreTrainedModel,
    head: Head,
    ask: Ask,
    hidden_GH: Tensor,
    counts_B: Tensor | None,
    to_device: ToDevice,
) -> dict[str, Tensor]:
    """The head's answers for its asked positions, as the table in models.boundary says, still on the device.

    counts_B: for a mean, the positions of each sequence, which lie together in hidden_GH.
    """
    if head == "encoder":
        return {"hidden": hidden_GH if counts_B is None else _means(hidden_GH, counts_B)}
    if head in LM_HEADS:
        return _language(model, ask, hidden_GH, to_device)
    if head == "question-answering":
        logits_2G = model.get_submodule("qa_outputs")(hidden_GH).T.contiguous()
        return {"start_logits": logits_2G[0], "end_logits": logits_2G[1]}
    return {"logits": _logits(model, hidden_GH)}


def _means(hidden_GH: Tensor, counts_B: Tensor) -> Tensor:
    """Each run's mean, [B, H], added up in order: the same on every run, without atomics."""
    sum_BH = torch.segment_reduce(hidden_GH.float(), "sum", lengths=counts_B, axis=0, unsafe=True)
    return sum_BH / counts_B[:, None]


def _logits(model: RobertaPreLayerNormPreTrainedModel, hidden_GH: Tensor) -> Tensor:
    if isinstance(model, RobertaPreLayerNormForMultipleChoice):
        pooler = model.roberta_prelayernorm.pooler
        assert pooler is not None
        hidden_GH = pooler(hidden_GH)
    classifier = model.get_submodule("classifier")
    logits_GL: Tensor = classifier(hidden_GH)
    return logits_GL


def _language(
    model: RobertaPreLayerNormPreTrainedModel, ask: Ask, hidden_GH: Tensor, to_device: ToDevice
) -> dict[str, Tensor]:
    """The best ids with their probabilities, or the log-probability of gold ids.

    The vocabulary's logits are made for a slice of positions at a time: all at once they would be larger than the model.
    """
    lm_head = model.get_submodule("lm_head")
    vocabulary = model.config.vocab_size
    candidates_K = to_device(ask.candidates_K) if ask.candidates_K is not None else None
    gold_G = to_device(ask.gold_G) if ask.gold_G is not None else None
    choices = vocabulary if candidates_K is None else len(candidates_K)
    kept = min(choices, ask.top_k) if ask.top_k is not None else choices
    wants_ids = ask.top_k is not None or candidates_K is not None
    step = max(1, LOGITS_AT_ONCE // vocabulary)
    ids, probs, scores = [], [], []
    for first in range(0, max(len(hidden_GH), 1), step):
        logits_GV = lm_head(hidden_GH[first : first + step]).float()
        whole_G = torch.logsumexp(logits_GV, dim=-1)
        if gold_G is not None:
            gold_slice = gold_G[first : first + step]
            scores.append(logits_GV.gather(1, gold_slice[:, None])[:, 0] - whole_G)
        if wants_ids:
            ranked_GK = logits_GV if candidates_K is None else logits_GV[:, candidates_K]
            best_Gk, places_Gk = torch.topk(ranked_GK, kept, dim=-1)
            ids.append(places_Gk if candidates_K is None else candidates_K[places_Gk])
            probs.append(torch.exp(best_Gk - whole_G[:, None]))
    answers: dict[str, Tensor] = {}
    if wants_ids:
        answers["ids"] = torch.cat(ids).to(torch.int32)
        answers["probs"] = torch.cat(probs)
    if gold_G is not None:
        answers["log_probs"] = torch.cat(scores)
    return answers
