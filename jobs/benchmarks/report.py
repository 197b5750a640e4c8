"""Formats measurements as a Markdown table and a plot, and names the machine."""

import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from jobs.benchmarks.classes import processor
from jobs.benchmarks.rounds import Measured

BARS = "#4878a8", "#b0b0b0"
"""Colours: ours, others."""
PACKAGES = ("torch", "jax", "tensorflow", "transformers", "sentence-transformers", "onnxruntime", "openvino")

USUAL = ("pipeline", "sentence-transformers")
"""What the name of the usual way has in it."""


def table(measured: Sequence[Measured], rates: dict[tuple[str, str], float]) -> str:
    """Markdown, slowest first: tokens a second, ratios to the usual way, and the share of bare products' rate.

    The usual way is transformers' pipeline, or sentence-transformers for vectors.
    """
    way = next((word for word in USUAL if any(word in one.name for one in measured)), USUAL[0])
    rows = [f"| variant | type | tokens/s | x {way}, batch 32 | x its best | share of the GEMM rate | off by |"]
    rows.append("| --- | --- | --- | --- | --- | --- | --- |")
    tried = [one for one in measured if way in one.name]
    usual = {one.dtype: one.rate for one in tried if one.name.endswith(", batch 32")}
    best: dict[str, float] = {}
    for one in tried:
        best[one.dtype] = max(best.get(one.dtype, 0.0), one.rate)
    first = "float32" if "float32" in usual else next(iter(usual), "")
    for one in sorted(measured, key=lambda one: one.rate):
        peak = rates.get((one.framework, one.dtype))
        cells = [
            one.name,
            one.dtype,
            f"{one.rate:,.0f}",
            f"{one.rate / usual[first]:.2f}" if first else "",
            f"{one.rate / best[first]:.2f}" if first else "",
            f"{one.flops / peak:.2f}" if peak else "",
            f"{one.off:.1e}",
        ]
        rows.append("| " + " | ".join(cells) + " |")
    shown = [f"{framework} {dtype} {rate / 1e9:,.0f} GFLOP/s" for (framework, dtype), rate in rates.items()]
    return "\n".join([*rows, "", "Bare products in the same rounds: " + ", ".join(shown) + "."])


def draw(measured: Sequence[Measured], file: Path, *, title: str) -> None:
    """Horizontal bars of tokens a second, ours coloured; byte for byte the same for the same speeds."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    # Words stay words, which can be searched for.
    mpl.rcParams.update({"svg.hashsalt": "preln", "svg.fonttype": "none"})
    shown = sorted(measured, key=lambda one: one.rate)
    names = [f"{one.name} ({one.dtype})" for one in shown]
    figure, axes = plt.subplots(figsize=(8, 0.36 * len(shown) + 1.2), layout="constrained")
    colours = [BARS[0] if one.name.startswith("preln") else BARS[1] for one in shown]
    bars = axes.barh(names, [one.rate for one in shown], color=colours)
    axes.bar_label(bars, labels=[f"{one.rate:,.0f}" for one in shown], padding=3, fontsize=8)
    axes.set(xlabel="real tokens a second", title=title)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.12)
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)


def machine(device: str) -> str:
    """Processor or GPU, and the versions of what ran on it."""
    parts = [processor(), f"Python {platform.python_version()}"]
    if device == "cuda":
        import torch

        parts.insert(0, torch.cuda.get_device_name())
    for name in PACKAGES:
        try:
            parts.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return ", ".join(parts)
