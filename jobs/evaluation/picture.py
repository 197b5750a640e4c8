"""Draws a confusion matrix as SVG, if matplotlib is installed.

Legend: L labels.
"""

import importlib.util
import io

import numpy as np

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

    mpl.rcParams["svg.hashsalt"] = "preln"
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
