"""Evaluates PromQL expressions against a scrape and returns what they miss in it."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

TYPE = re.compile(r"^# TYPE (\S+) (\S+)$", re.MULTILINE)
SAMPLE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? \S+$", re.MULTILINE)
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
VARIABLES = {"$__rate_interval": "1m", "$task": ".*"}
"""What Grafana puts in, with every task chosen."""
CUMULATIVE = ("counter", "histogram")
SUFFIXES = re.compile(r"_(bucket|sum|count)$")

Labels = Mapping[str, str]


@dataclass
class Scraped:
    """All series that were seen, by name, and each metric's type."""

    series: dict[str, set[frozenset[tuple[str, str]]]] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)

    def take(self, text: str) -> None:
        """What one endpoint said at one time."""
        self.types.update(TYPE.findall(text))
        for name, labels in SAMPLE.findall(text):
            self.series.setdefault(name, set()).add(frozenset(LABEL.findall(labels)))

    def of(self, name: str) -> list[Labels]:
        """The labels of each series of a name."""
        return [dict(labels) for labels in self.series.get(name, ())]

    def type_of(self, name: str) -> str:
        """counter, gauge, histogram; unknown for a name that was not seen."""
        return self.types.get(name) or self.types.get(SUFFIXES.sub("", name)) or "unknown"


def unanswered(expression: str, scraped: Scraped) -> list[str]:
    """What is wrong with an expression, given what was scraped: names, matchers, labels and types that do not fit."""
    import promql_parser

    for variable, value in VARIABLES.items():
        expression = expression.replace(variable, value)
    return list(_faults(promql_parser.parse(expression), scraped, grouped=()))


def _faults(node: Any, scraped: Scraped, *, grouped: tuple[str, ...]) -> Iterator[str]:
    """grouped: labels that the series below this node must have."""
    match type(node).__name__:
        case "BinaryExpr":
            yield from _faults(node.lhs, scraped, grouped=grouped)
            yield from _faults(node.rhs, scraped, grouped=grouped)
        case "ParenExpr" | "UnaryExpr":
            yield from _faults(node.expr, scraped, grouped=grouped)
        case "AggregateExpr":
            labels = tuple(node.modifier.labels) if node.modifier else ()
            yield from _faults(node.expr, scraped, grouped=(*grouped, *labels))
        case "Call":
            for argument in node.args:
                yield from _faults(argument, scraped, grouped=grouped)
                yield from _of_wrong_type(node.func.name, argument, scraped)
        case "MatrixSelector":
            yield from _missing(node.vector_selector, scraped, grouped)
        case "VectorSelector":
            yield from _missing(node, scraped, grouped)
        case "NumberLiteral":
            pass
        case other:
            yield f"this check knows no {other}"


def _missing(selector: Any, scraped: Scraped, grouped: tuple[str, ...]) -> Iterator[str]:
    found = [labels for labels in scraped.of(selector.name) if _matches(selector, labels)]
    if not found:
        yield f"no series is {selector.prettify()}"
    for label in grouped:
        if any(label not in labels for labels in found):
            yield f"{selector.name} has no label {label}"


def _matches(selector: Any, labels: Labels) -> bool:
    """As Prometheus does: regular expressions hold for the whole value, and a label that is absent is empty."""
    for matcher in selector.matchers.matchers:
        value = labels.get(matcher.name, "")
        operator = str(matcher.op).rpartition(".")[2]
        same = bool(re.fullmatch(matcher.value, value)) if "Re" in operator else value == matcher.value
        if same == operator.startswith("Not"):
            return False
    return True


def _of_wrong_type(function: str, argument: Any, scraped: Scraped) -> Iterator[str]:
    """Rates are of what only grows; quantiles are of buckets."""
    if function == "rate" and scraped.type_of(name := argument.vector_selector.name) not in CUMULATIVE:
        yield f"rate({name}), which is a {scraped.type_of(name)}"
    grouped = argument.modifier.labels if type(argument).__name__ == "AggregateExpr" else None
    if function == "histogram_quantile" and grouped is not None and "le" not in grouped:
        yield "histogram_quantile of what is not grouped by le"
