"""Draws a run's learning curve as SVG, if matplotlib is installed."""

import importlib.util
import io
from collections.abc import Mapping, Sequence
from typing import Any


def draw_curve(history: Sequence[Mapping[str, Any]]) -> bytes | None:
    """Losses of training and evaluation over the steps; byte for byte the same for the same history."""
    if importlib.util.find_spec("matplotlib") is None or not history:
        return None
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    mpl.rcParams["svg.hashsalt"] = "preln"
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    steps = [entry["step"] for entry in history]
    axes.plot(steps, [entry["train_loss"] for entry in history], label="training", color="#b0b0b0")
    for task in history[0]["evaluation"]:
        axes.plot(steps, [entry["evaluation"][task]["loss"] for entry in history], marker=".", label=task)
    axes.set(xlabel="step", ylabel="loss", title="Learning curve")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None})
    plt.close(figure)
    return drawn.getvalue()
