"""intervals: how much a mean over examples would change with other examples of the same kind.

The percentile bootstrap: the mean of each of many resamples, drawn with replacement and as large
as the data; 95 % of these means lie in the interval. Two systems are compared example by example
(paired), which takes out how hard the examples are.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PERCENTILES = (2.5, 97.5)
COUNTS_PER_CHUNK = 2**20  # drawn at once: 8 MiB


@dataclass(frozen=True)
class PairedDifference:
    """The mean of values - others, and its 95 % interval."""

    difference: float
    low: float
    high: float

    @property
    def is_distinguishable(self) -> bool:
        """Whether the interval leaves out 0: another sample would hardly turn the sign around."""
        return not self.low <= 0.0 <= self.high


def standard_error(values: NDArray[np.float64]) -> float | None:
    """How far the mean of `values`, (examples,), is from that of endless examples, about.

    None of fewer than two, whose spread is not known.
    """
    if len(values) < 2:
        return None
    return float(np.std(values, ddof=1) / np.sqrt(len(values)))


def bootstrap_interval(
    values: NDArray[np.float64], *, seed: int = 0, num_resamples: int = 1000
) -> tuple[float, float]:
    """The 95 % interval of the mean of `values`, (examples,); at least one.

    The order of the values does not matter. The time goes with the number of distinct values
    (scores of answers have few), not with the number of examples.
    """
    distinct, counts = np.unique(np.asarray(values, np.float64), return_counts=True)
    random = np.random.default_rng(seed)
    per_chunk = max(1, COUNTS_PER_CHUNK // len(distinct))
    means = np.empty(num_resamples)
    for first in range(0, num_resamples, per_chunk):
        size = min(per_chunk, num_resamples - first)
        # How often each value is drawn is all that a resample's mean needs to know.
        drawn = random.multinomial(len(values), counts / len(values), size)  # (size, distinct)
        means[first : first + size] = (drawn * distinct).sum(axis=1) / len(values)
    low, high = np.percentile(means, PERCENTILES)
    return float(low), float(high)


def compare_paired(
    values: NDArray[np.float64],
    others: NDArray[np.float64],
    *,
    seed: int = 0,
    num_resamples: int = 1000,
) -> PairedDifference:
    """The difference of two means over the same examples: row for row, (examples,) each."""
    differences = np.asarray(values, np.float64) - np.asarray(others, np.float64)
    low, high = bootstrap_interval(differences, seed=seed, num_resamples=num_resamples)
    return PairedDifference(float(differences.mean()), low, high)
