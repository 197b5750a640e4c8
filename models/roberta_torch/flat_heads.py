"""Hidden states of the asked positions and a head in, its NumPy answers out.

Whole vocabularies never leave the device, and are made for a slice of the positions at a time. Softmax in float32.
Legend: G asked positions, H hidden size, V vocabulary, L labels, K candidate ids, k answers, B sequences.
"""

import numpy as np
import torch
from torch import Tensor

from models.boundary import Answers, Ask, FloatArray, Head, IntArray
from models.flat_tokens import LM_HEADS
from models.roberta_torch.classification import RobertaPreLayerNormForMultipleChoice
from models.roberta_torch.pretrained import RobertaPreLayerNormPreTrainedModel

LOGITS_AT_ONCE = 32_000_000  # vocabulary scores in memory at a time: 128 MB in float32


def answer_head(
    *, model: RobertaPreLayerNormPreTrainedModel, head: Head, ask: Ask, hidden_GH: Tensor, sequence_G: Tensor | None
) -> Answers:
    """The head's answers for its asked positions, as the table in models.boundary says."""
    if head == "encoder":
        return _encoder(hidden_GH, sequence_G)
    if head in LM_HEADS:
        return _language(model, ask, hidden_GH)
    if head == "question-answering":
        return _span(model, hidden_GH)
    return {"logits": _float_array(_logits(model, hidden_GH))}


def _encoder(hidden_GH: Tensor, sequence_G: Tensor | None) -> Answers:
    if sequence_G is None:
        return {"hidden": _float_array(hidden_GH)}
    sequences = int(sequence_G.max()) + 1
    sum_BH = torch.zeros(sequences, hidden_GH.shape[1], device=hidden_GH.device)
    sum_BH.index_add_(0, sequence_G, hidden_GH.float())
    count_B = torch.bincount(sequence_G, minlength=sequences)
    return {"hidden": _float_array(sum_BH / count_B[:, None])}


def _logits(model: RobertaPreLayerNormPreTrainedModel, hidden_GH: Tensor) -> Tensor:
    if isinstance(model, RobertaPreLayerNormForMultipleChoice):
        pooler = model.roberta_prelayernorm.pooler
        assert pooler is not None
        hidden_GH = pooler(hidden_GH)
    classifier = model.get_submodule("classifier")
    logits_GL: Tensor = classifier(hidden_GH)
    return logits_GL


def _span(model: RobertaPreLayerNormPreTrainedModel, hidden_GH: Tensor) -> Answers:
    logits_G2 = _float_array(model.get_submodule("qa_outputs")(hidden_GH))
    return {"start_logits": logits_G2[:, 0].copy(), "end_logits": logits_G2[:, 1].copy()}


def _language(model: RobertaPreLayerNormPreTrainedModel, ask: Ask, hidden_GH: Tensor) -> Answers:
    """The best ids with their probabilities, or the log-probability of gold ids.

    The vocabulary's logits are made for a slice of positions at a time: all at once they would be larger than the model.
    """
    lm_head = model.get_submodule("lm_head")
    vocabulary = model.config.vocab_size
    candidates_K = _indices(ask.candidates_K, hidden_GH) if ask.candidates_K is not None else None
    gold_G = _indices(ask.gold_G, hidden_GH) if ask.gold_G is not None else None
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
    answers: Answers = {}
    if wants_ids:
        answers["ids"] = torch.cat(ids).cpu().numpy().astype(np.int32)
        answers["probs"] = _float_array(torch.cat(probs))
    if gold_G is not None:
        answers["log_probs"] = _float_array(torch.cat(scores))
    return answers


def _indices(values: IntArray, like: Tensor) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.int64)).to(like.device)


def _float_array(tensor: Tensor) -> FloatArray:
    array: FloatArray = tensor.float().cpu().numpy()
    return array
