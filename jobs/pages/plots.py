"""Numbers in, inline SVG out, in the page's own colours: `currentColor` and CSS variables, legible in light, dark and print.

A plot has no text of the data in it: categories are tables in the page, with bars in CSS.
"""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

INK, SERIES = "#010203", ("#0a0b01", "#0a0b02", "#0a0b03")
"""Placeholders that become `currentColor` and `var(--series-1)`, `var(--series-2)`, …"""
SIZE = (6.4, 2.2)
SETTINGS: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "preln",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
}


def histogram(counts: Sequence[float], edges: Sequence[float], *, name: str, xlabel: str, ylabel: str = "rows") -> Any:
    """Bars over bins. name: unique on its page. counts: one less than edges."""
    with _figure(name=name, xlabel=xlabel, ylabel=ylabel) as (axes, drawn):
        widths = [stop - start for start, stop in pairwise(edges)]
        axes.bar(edges[:-1], counts, width=widths, align="edge", color=SERIES[0])
    return drawn[0]


def lines(x: Sequence[float], series: Mapping[str, Sequence[float]], *, name: str, xlabel: str, ylabel: str) -> Any:
    """Up to three lines over x, from zero. name: unique on its page."""
    with _figure(name=name, xlabel=xlabel, ylabel=ylabel) as (axes, drawn):
        for color, (label, values) in zip(SERIES, series.items(), strict=False):
            axes.plot(x, values, color=color, label=label)
        axes.set_ylim(bottom=0)
        if len(series) > 1:
            axes.legend(frameon=False)
    return drawn[0]


@contextmanager
def _figure(*, name: str, xlabel: str, ylabel: str) -> Iterator[tuple[Any, list[Any]]]:
    """(axes to draw on, list that has the SVG afterwards)."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    drawn: list[Any] = []
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=SIZE, layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        axes.patch.set_visible(False)
        yield axes, drawn
        axes.set(xlabel=xlabel, ylabel=ylabel)
        content = io.BytesIO()
        figure.savefig(content, format="svg", transparent=True, metadata={"Date": None})
    drawn.append(_inline(content.getvalue().decode(), name=name, title=f"{ylabel} by {xlabel}"))


def _inline(svg: str, *, name: str, title: str) -> Any:
    """An SVG file as an element of a page: without prologue, metadata and namespaces, with ids of its own."""
    from markupsafe import Markup, escape

    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg).replace("xlink:href", "href")
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(href="|url\()#', rf"\g<1>#{name}-", svg)
    svg = svg.replace(INK, "currentColor")
    for index, color in enumerate(SERIES, start=1):
        svg = svg.replace(color, f"var(--series-{index})")
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{escape(title)}" ', 1)
    return Markup(svg)  # noqa: S704  # numbers and our own words only
