"""Draws a confusion matrix, or a reliability diagram, as SVG, if matplotlib is installed.

Legend: L labels.
"""

import importlib.util
import io

import numpy as np

from jobs.evaluation.confidence import Bin
from jobs.evaluation.scores import Confusion

NAMED = 40
"""Labels above which a picture names only the most confused ones."""


def draw_confusion(confusion: Confusion) -> bytes | None:
    """Shares of each true label's rows, labels with the most mistakes first where there are many of them."""
    if importlib.util.find_spec("matplotlib") is None:
        return None
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    mpl.rcParams.update({"svg.hashsalt": "preln", "text.parse_math": False})  # a label is no formula
    counts_LL = confusion.counts_LL
    wrong_L = counts_LL.sum(axis=0) + counts_LL.sum(axis=1) - 2 * counts_LL.diagonal()
    kept = np.sort(np.argsort(-wrong_L, kind="stable")[:NAMED])
    shown_LL = counts_LL[np.ix_(kept, kept)] / np.maximum(1, counts_LL.sum(axis=1)[kept, None])
    names = [confusion.labels[index] for index in kept]
    size = 2.5 + 0.22 * len(names)
    figure, axes = plt.subplots(figsize=(size, size), layout="constrained")
    axes.imshow(shown_LL, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
    axes.set_yticks(range(len(names)), names, fontsize=7)
    part = "" if len(names) == len(confusion.labels) else f" ({len(names)} most confused of {len(confusion.labels)})"
    axes.set(xlabel="answered", ylabel="true", title=f"Shares of each true label{part}")
    drawn = io.BytesIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None})
    plt.close(figure)
    return drawn.getvalue()


def draw_reliability(bins: tuple[list[Bin], list[Bin]]) -> bytes | None:
    """Accuracy against score, before and after a calibration; what the scores say is the diagonal."""
    if importlib.util.find_spec("matplotlib") is None:
        return None
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    mpl.rcParams["svg.hashsalt"] = "preln"
    figure, axes = plt.subplots(figsize=(4.5, 4.5), layout="constrained")
    axes.plot([0, 1], [0, 1], color="grey", linewidth=1, linestyle="--")
    for part, name, colour in zip(bins, ("before", "after"), ("tab:orange", "tab:blue"), strict=True):
        most = max(one.rows for one in part)
        axes.plot([one.score for one in part], [one.accuracy for one in part], color=colour, linewidth=1)
        sizes = [8 + 120 * one.rows / most for one in part]
        axes.scatter(
            [one.score for one in part], [one.accuracy for one in part], s=sizes, color=colour, alpha=0.6, label=name
        )
    axes.set(xlabel="score", ylabel="share that is right", xlim=(0, 1), ylim=(0, 1), title="Reliability (size: rows)")
    axes.legend(loc="upper left")
    drawn = io.BytesIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None})
    plt.close(figure)
    return drawn.getvalue()
