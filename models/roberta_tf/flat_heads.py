"""Hidden states of the asked positions and a head in, its NumPy answers out.

Whole vocabularies never leave the device, and are made for a slice of the positions at a time. Softmax in float32.
Legend: G asked positions, H hidden size, V vocabulary, L labels, K candidate ids, k answers, B sequences.
"""

from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow import Tensor

from models.boundary import Answers, Ask, FloatArray, Head, IntArray
from models.flat_tokens import LM_HEADS

LOGITS_AT_ONCE = 32_000_000  # vocabulary scores in memory at a time: 128 MB in float32


def answer_head(*, model: Any, head: Head, ask: Ask, hidden_GH: Tensor, sequence_G: Tensor | None) -> Answers:
    """The head's answers for its asked positions, as the table in models.boundary says."""
    if head == "encoder":
        return _encoder(hidden_GH, sequence_G)
    if head in LM_HEADS:
        return _language(model, ask, hidden_GH)
    if head == "question-answering":
        return _span(model, hidden_GH)
    if head == "multiple-choice":
        hidden_GH = model.base_model.pooler(hidden_GH)
    return {"logits": _float_array(model.classifier(hidden_GH))}


def _encoder(hidden_GH: Tensor, sequence_G: Tensor | None) -> Answers:
    if sequence_G is None:
        return {"hidden": _float_array(hidden_GH)}
    sequences = tf.reduce_max(sequence_G) + 1
    sum_BH = tf.math.unsorted_segment_sum(tf.cast(hidden_GH, tf.float32), sequence_G, sequences)
    count_B = tf.math.bincount(sequence_G, dtype=tf.float32)
    return {"hidden": _float_array(sum_BH / count_B[:, None])}


def _span(model: Any, hidden_GH: Tensor) -> Answers:
    logits_G2 = _float_array(model.qa_outputs(hidden_GH))
    return {"start_logits": logits_G2[:, 0].copy(), "end_logits": logits_G2[:, 1].copy()}


def _language(model: Any, ask: Ask, hidden_GH: Tensor) -> Answers:
    """The best ids with their probabilities, or the log-probability of gold ids.

    The vocabulary's logits are made for a slice of positions at a time: all at once they would be larger than the model.
    """
    lm_head = model.lm_head
    vocabulary = model.config.vocab_size
    candidates_K = _indices(ask.candidates_K) if ask.candidates_K is not None else None
    gold_G = _indices(ask.gold_G) if ask.gold_G is not None else None
    choices = vocabulary if candidates_K is None else len(candidates_K)
    kept = min(choices, ask.top_k) if ask.top_k is not None else choices
    wants_ids = ask.top_k is not None or candidates_K is not None
    step = max(1, LOGITS_AT_ONCE // vocabulary)
    ids, probs, scores = [], [], []
    for first in range(0, max(len(hidden_GH), 1), step):
        logits_GV = tf.cast(lm_head(hidden_GH[first : first + step]), tf.float32)
        whole_G = tf.reduce_logsumexp(logits_GV, axis=-1)
        if gold_G is not None:
            gold_slice = gold_G[first : first + step]
            scores.append(tf.gather(logits_GV, gold_slice, batch_dims=1) - whole_G)
        if wants_ids:
            ranked_GK = logits_GV if candidates_K is None else tf.gather(logits_GV, candidates_K, axis=1)
            best_Gk, places_Gk = tf.math.top_k(ranked_GK, kept)
            ids.append(places_Gk if candidates_K is None else tf.gather(candidates_K, places_Gk))
            probs.append(tf.exp(best_Gk - whole_G[:, None]))
    answers: Answers = {}
    if wants_ids:
        answers["ids"] = tf.concat(ids, axis=0).numpy().astype(np.int32)
        answers["probs"] = _float_array(tf.concat(probs, axis=0))
    if gold_G is not None:
        answers["log_probs"] = _float_array(tf.concat(scores, axis=0))
    return answers


def _indices(values: IntArray) -> Tensor:
    return tf.constant(np.ascontiguousarray(values, dtype=np.int32))


def _float_array(tensor: Tensor) -> FloatArray:
    array: FloatArray = tf.cast(tensor, tf.float32).numpy()
    return array
