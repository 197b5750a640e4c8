"""The field's usual scores, in NumPy, each with its source.

None as an answer (a row with an error) is wrong wherever it is counted.

Legend: L labels.
"""

import re
import string
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Numbers: TypeAlias = dict[str, float]
Span: TypeAlias = tuple[str, int, int]
"""An entity's type, its first word, and the word behind its last."""
UNANSWERED = "(no answer)"


@dataclass(frozen=True, eq=False)
class Confusion:
    """counts_LL[true, answered], by label."""

    labels: tuple[str, ...]
    counts_LL: npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Measured:
    """numbers: by name, in the order to be shown. by_label: the same for each label or type. accuracy_at: by coverage."""

    numbers: Numbers
    by_label: dict[str, Numbers] = field(default_factory=dict)
    confusion: Confusion | None = None
    accuracy_at: dict[float, float] = field(default_factory=dict)


def classification(gold: Sequence[str], answered: Sequence[str | None]) -> Measured:
    """Accuracy, and F1 averaged over the labels that occur in either, each weighing the same (scikit-learn's macro)."""
    given = [UNANSWERED if answer is None else answer for answer in answered]
    labels = tuple(sorted({*gold, *given}))
    place = {label: index for index, label in enumerate(labels)}
    counts_LL = np.zeros((len(labels), len(labels)), np.int64)
    np.add.at(counts_LL, ([place[label] for label in gold], [place[label] for label in given]), 1)
    right_L = counts_LL.diagonal()
    true_L, given_L = counts_LL.sum(axis=1), counts_LL.sum(axis=0)
    by_label = {
        label: _rates(int(right_L[index]), int(given_L[index]), int(true_L[index])) for label, index in place.items()
    }
    return Measured(
        numbers={
            "accuracy": float(right_L.sum() / len(gold)),
            "macro_f1": float(np.mean([rates["f1"] for rates in by_label.values()])),
        },
        by_label={label: rates for label, rates in by_label.items() if label != UNANSWERED},
        confusion=Confusion(labels=labels, counts_LL=counts_LL),
    )


def several_labels(gold: Sequence[set[str]], answered: Sequence[set[str] | None]) -> Measured:
    """Rows with exactly the true labels, and F1 over all labels together (micro) and averaged over them (macro)."""
    given = [answer or set() for answer in answered]
    labels = sorted(set().union(*gold, *given))
    by_label = {
        label: _rates(
            sum(label in true and label in found for true, found in zip(gold, given, strict=True)),
            sum(label in found for found in given),
            sum(label in true for true in gold),
        )
        for label in labels
    }
    right = sum(len(true & found) for true, found in zip(gold, given, strict=True))
    whole = _rates(right, sum(map(len, given)), sum(map(len, gold)))
    exact = [found is not None and true == found for true, found in zip(gold, answered, strict=True)]
    return Measured(
        numbers={
            "exact_match": float(np.mean(exact)),
            "micro_f1": whole["f1"],
            "macro_f1": float(np.mean([rates["f1"] for rates in by_label.values()])) if by_label else 0.0,
        },
        by_label=by_label,
    )


def _rates(right: int, given: int, true: int) -> Numbers:
    precision, recall = right / given if given else 0.0, right / true if true else 0.0
    total = given + true
    return {"precision": precision, "recall": recall, "f1": 2 * right / total if total else 0.0, "support": float(true)}


def entities(gold: Sequence[Sequence[str]], answered: Sequence[Sequence[str] | None]) -> Measured:
    """Precision, recall and F1 of whole entities, type and both borders right (seqeval's default mode, as conlleval)."""
    true: Counter[str] = Counter()
    given: Counter[str] = Counter()
    right: Counter[str] = Counter()
    words = same = 0
    for tags, found in zip(gold, answered, strict=True):
        predicted = ["O"] * len(tags) if found is None else list(found)
        wanted, got = set(spans(tags)), set(spans(predicted))
        true.update(kind for kind, _, _ in wanted)
        given.update(kind for kind, _, _ in got)
        right.update(kind for kind, _, _ in wanted & got)
        words += len(tags)
        same += 0 if found is None else sum(one == other for one, other in zip(tags, predicted, strict=True))
    kinds = sorted({*true, *given})
    whole = _rates(right.total(), given.total(), true.total())
    return Measured(
        numbers={
            "f1": whole["f1"],
            "precision": whole["precision"],
            "recall": whole["recall"],
            "word_accuracy": same / max(1, words),
        },
        by_label={kind: _rates(right[kind], given[kind], true[kind]) for kind in kinds},
    )


def spans(tags: Sequence[str]) -> Iterator[Span]:
    """The entities of a sentence's tags (IOB1, IOB2, IOE, IOBES): a type's I- without a beginning begins one too."""
    kind, first, before = "", 0, "O"
    for place, tag in enumerate([*tags, "O"]):
        letter, _, name = tag.partition("-")
        name = name or ("" if letter == "O" else "_")
        if kind and (letter in ("B", "S", "O", "U") or before in ("E", "S", "L", "U") or name != kind):
            yield kind, first, place
            kind = ""
        if letter != "O" and not kind:
            kind, first = name, place
        before = letter


def answers(gold: Sequence[Sequence[str]], answered: Sequence[str | None]) -> Measured:
    """Exact match and F1 over words, the best of each question's true answers (SQuAD 1.1's evaluation)."""
    exact, overlap = 0.0, 0.0
    for truths, answer in zip(gold, answered, strict=True):
        predicted = answer or ""
        exact += max(float(plain(predicted) == plain(truth)) for truth in truths or [""])
        overlap += max(_overlap(predicted, truth) for truth in truths or [""])
    return Measured(numbers={"exact_match": exact / len(gold), "f1": overlap / len(gold)})


def plain(text: str) -> str:
    """Lower case without punctuation, articles and doubled spaces."""
    bare = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())


def _overlap(predicted: str, truth: str) -> float:
    given, wanted = plain(predicted).split(), plain(truth).split()
    if not given or not wanted:
        return float(given == wanted)
    return 2 * (Counter(given) & Counter(wanted)).total() / (len(given) + len(wanted))


def guesses(gold: Sequence[Sequence[int]], answered: Sequence[Sequence[Sequence[int]] | None]) -> Measured:
    """How many hidden tokens were guessed by the first fill, and by any; masks of rows without answers count as wrong."""
    first = any_fill = asked = 0
    for truths, masks in zip(gold, answered, strict=True):
        asked += len(truths)
        for truth, fills in zip(truths, masks or [], strict=False):
            first += fills[0] == truth
            any_fill += truth in fills
    return Measured(
        numbers={"mask_accuracy": first / asked, "mask_accuracy_of_top_5": any_fill / asked, "masks": float(asked)}
    )


def perplexity(log_probabilities: Sequence[float], tokens: Sequence[int]) -> Measured:
    """exp of the mean negative log probability of a token, over all texts together."""
    count = sum(tokens)
    return Measured(
        numbers={"perplexity": float(np.exp(-sum(log_probabilities) / max(1, count))), "tokens": float(count)}
    )
