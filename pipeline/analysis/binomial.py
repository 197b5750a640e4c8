"""Counts of a random sample in, bounds on the share in the whole out: exact, after Clopper and Pearson (1934)."""

import math

STEPS = 60
"""Halvings of [0, 1]: more than a float64 resolves."""


def upper_bound(*, wrong: int, sampled: int, confidence: float = 0.95) -> float:
    """The largest share of wrong rows at which `wrong` or fewer of a sample still come up with probability 1 - confidence.

    One-sided; exact for sampling with replacement, and on the safe side without.
    """
    if wrong >= sampled:
        return 1.0
    low, high = wrong / sampled, 1.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if at_most(wrong, sampled, middle) > 1 - confidence else (low, middle)
    return high


def at_most(wrong: int, sampled: int, share: float) -> float:
    """The probability of `wrong` or fewer wrong rows in a sample where this share of all rows is wrong; 0 < share < 1 or = 1."""
    if share >= 1.0:
        return 0.0
    if share <= 0.0:
        return 1.0
    log_share, log_rest = math.log(share), math.log1p(-share)
    whole = math.lgamma(sampled + 1)
    return math.fsum(
        math.exp(whole - math.lgamma(k + 1) - math.lgamma(sampled - k + 1) + k * log_share + (sampled - k) * log_rest)
        for k in range(wrong + 1)
    )
