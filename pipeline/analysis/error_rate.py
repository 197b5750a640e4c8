"""Reviewed rows in, the share of wrong answers among all answered rows out, with an interval.

random: the sample's share, and Wilson's interval (Wilson 1927; Brown, Cai and DasGupta 2001), on the sample's size corrected
for a finite population. stratified: the strata's shares weighed by their sizes, with the stratified variance (Cochran,
Sampling Techniques, 1977, section 5.6). uncertain: rows were drawn with unequal probability; Hájek's ratio of Horvitz-Thompson
totals, with the variance of independent inclusions (Duffield, Lund and Thorup 2007). The last two put Wilson's interval on the
effective sample size, that of a random sample with the same variance (Korn and Graubard 1998; Franco et al. 2019).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist
from typing import Literal, TypeAlias

from pipeline.errors import SpecError

Design: TypeAlias = Literal["random", "uncertain", "stratified"]

METHODS: Mapping[Design, str] = {
    "random": "share of a simple random sample; Wilson's interval",
    "stratified": "strata weighed by their sizes (Cochran 1977); Wilson's interval on the effective sample size",
    "uncertain": "Hájek's ratio of Horvitz-Thompson totals; Wilson's interval on the effective sample size",
}


@dataclass(frozen=True)
class Judgement:
    """A row that a person has judged. weight: how many rows it stands for, 1 / the probability of being drawn.
    stratum_rows: all rows of its stratum."""

    wrong: bool
    stratum: str
    stratum_rows: int
    weight: float


@dataclass(frozen=True)
class StratumRate:
    """One stratum: its rows in the output, those judged, and the wrong ones among these."""

    rows: int
    reviewed: int
    wrong: int


@dataclass(frozen=True)
class ErrorRate:
    """The estimated share of wrong answers and the interval that holds it with the stated confidence.

    effective: the size of a simple random sample that would know as much. not_covered: rows of strata where nothing was judged.
    """

    rate: float
    low: float
    high: float
    confidence: float
    method: str
    reviewed: int
    wrong: int
    effective: float
    strata: Mapping[str, StratumRate]
    not_covered: int = 0


def error_rate(
    judged: Sequence[Judgement],
    *,
    design: Design,
    strata: Mapping[str, int],
    population: int,
    confidence: float = 0.95,
) -> ErrorRate:
    """strata: rows of each known stratum. population: of all. Raises SpecError if nothing was judged."""
    if not judged:
        raise SpecError("no row was reviewed, so there is no error rate")
    groups: dict[str, list[Judgement]] = {}
    for one in judged:
        groups.setdefault(one.stratum, []).append(one)
    if design == "uncertain":
        rate, effective = _ratio(judged)
    else:
        rate, effective = _stratified(groups)
    low, high = wilson(rate, effective, confidence=confidence)
    return ErrorRate(
        rate=rate,
        low=low,
        high=high,
        confidence=confidence,
        method=METHODS[design],
        reviewed=len(judged),
        wrong=sum(one.wrong for one in judged),
        effective=effective,
        strata={
            name: StratumRate(rows, len(groups.get(name, ())), sum(one.wrong for one in groups.get(name, ())))
            for name, rows in sorted(strata.items())
        },
        not_covered=population - sum(strata[name] for name in groups),
    )


def wilson(rate: float, size: float, *, confidence: float) -> tuple[float, float]:
    """Wilson's score interval of a share observed in a sample of a size, which may be a fraction."""
    if size == float("inf"):
        return rate, rate
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    centre = (rate + z * z / (2 * size)) / (1 + z * z / size)
    half = z * sqrt(rate * (1 - rate) / size + (z / (2 * size)) ** 2) / (1 + z * z / size)
    return max(0.0, centre - half), min(1.0, centre + half)


def _stratified(groups: Mapping[str, Sequence[Judgement]]) -> tuple[float, float]:
    """(rate, effective size); one stratum is a simple random sample."""
    sizes = {name: max(rows[0].stratum_rows, len(rows)) for name, rows in groups.items()}
    total = sum(sizes.values())
    shares = {name: sum(one.wrong for one in rows) / len(rows) for name, rows in groups.items()}
    rate = sum(sizes[name] / total * share for name, share in shares.items())
    variance = unit = 0.0
    for name, rows in groups.items():
        count, size = len(rows), sizes[name]
        # A stratum without a wrong row, or with one row, would claim to know its share exactly: a pseudo-row at the common rate.
        share = (shares[name] * count + rate) / (count + 1)
        left = (size / total) ** 2 * (size - count) / max(size - 1, 1) / count
        variance += left * share * (1 - share)
        unit += left
    return rate, _effective(rate, variance, unit)


def _ratio(judged: Sequence[Judgement]) -> tuple[float, float]:
    """(rate, effective size) of rows with unequal weights."""
    total = sum(one.weight for one in judged)
    rate = sum(one.weight for one in judged if one.wrong) / total
    left = [one.weight * (one.weight - 1) / total**2 for one in judged]
    variance = sum(part * (one.wrong - rate) ** 2 for part, one in zip(left, judged, strict=True))
    return rate, _effective(rate, variance, sum(left))


def _effective(rate: float, variance: float, unit: float) -> float:
    """The size of a random sample with this variance; where no row, or every row, is wrong, by the weights alone (Kish 1965).

    unit: the factor of rate * (1 - rate) in the variance if the rate were the same everywhere. The lesser of both sizes counts,
    since few wrong rows make a poor estimate of the variance.
    """
    if unit <= 0:
        return float("inf")  # every row was judged
    by_weights = 1 / unit
    return min(by_weights, rate * (1 - rate) / variance) if variance > 0 else by_weights
