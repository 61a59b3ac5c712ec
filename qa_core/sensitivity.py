"""sensitivity: which of the searched keys mattered to the scores of a sweep.

Trials are grouped by a key's value (numbers with many values by thirds), and the spread of the
groups' means is set beside the spread of all scores: the correlation ratio, the share of the
variance that the key alone accounts for. In a full grid the shares of keys add up to at most 1;
in a random search a key has a share by chance, larger with fewer trials, which is told beside it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qa_core.search_space import Point, show_value

MOST_GROUPS = 5  # values of a number that are told apart; more are put into thirds
LEAST_TRIALS = 3


def key_sensitivities(points: Sequence[Point], scores: Sequence[float]) -> list[dict[str, Any]]:
    """For each key, the most telling first: share of the variance, range of means, the means.

    A row: `key`, `share` (0 to 1; correlation ratio), `chance` (the share expected of a key that
    does nothing), `range` (best minus worst mean, points of the score), `means` (list of `value`,
    `mean`, `num_trials`). Keys with one value, and fewer than three trials, give no row.
    """
    values = np.asarray(scores, np.float64)
    total = float(((values - values.mean()) ** 2).sum()) if len(values) else 0.0
    if len(values) < LEAST_TRIALS:
        return []
    rows = []
    for key in points[0]:
        labels = group_labels([point[key] for point in points])
        groups = {
            label: values[[one == label for one in labels]] for label in sorted_labels(labels)
        }
        if len(groups) < 2:
            continue
        between = sum(len(g) * (g.mean() - values.mean()) ** 2 for g in groups.values())
        means = [float(group.mean()) for group in groups.values()]
        rows.append(
            {
                "key": key,
                "share": float(between / total) if np.ptp(values) else 0.0,
                "chance": (len(groups) - 1) / (len(values) - 1),
                "range": max(means) - min(means),
                "means": [
                    {"value": label, "mean": mean, "num_trials": len(group)}
                    for (label, group), mean in zip(groups.items(), means, strict=True)
                ],
            }
        )
    return sorted(rows, key=lambda row: -row["share"])


def group_labels(values: Sequence[Any]) -> list[str]:
    """What each value is counted as: itself, or of many different numbers its third.

    >>> group_labels([1, 2, 3, 4, 5, 6])
    ['1 to 2', '1 to 2', '3 to 4', '3 to 4', '5 to 6', '5 to 6']
    """
    distinct = list(dict.fromkeys(map(repr, values)))
    is_numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    if len(distinct) <= MOST_GROUPS or not is_numeric:
        return [show_value(value) for value in values]
    numbers: NDArray[np.float64] = np.asarray(values, np.float64)
    order = np.argsort(np.argsort(numbers, kind="stable"), kind="stable")
    middle = np.array([np.median(order[numbers == one]) for one in numbers])  # equals stay together
    third = middle * 3 // len(numbers)
    names = {}
    for place in np.unique(third):
        inside = [value for value, one in zip(values, third, strict=True) if one == place]
        names[place] = f"{show_value(min(inside))} to {show_value(max(inside))}"
    return [names[place] for place in third]


def sorted_labels(labels: Sequence[str]) -> list[str]:
    """Distinct labels by the number they begin with, others after them by name."""

    def place(label: str) -> tuple[bool, float, str]:
        try:
            return False, float(label.partition(" ")[0]), label
        except ValueError:
            return True, 0.0, label

    return sorted(set(labels), key=place)
