"""thresholds: precision and recall of answering, as the threshold on null odds goes up.

Precision is the score (F1, or exact match) of the questions that get an answer; recall is the
score that the answerable ones among them bring, of what all answerable ones could. A threshold
lies only where the odds change. Average precisions are those of SQuAD v2.0's script.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qa_core.scoring import ExampleScores

MAX_POINTS = 200  # of the curve: more cannot be seen


def precision_recall(scores: ExampleScores) -> dict[str, Any]:
    """`pr_exact_ap`, `pr_f1_ap`, `pr_oracle_ap` (0 to 100) and at most 200 `points`.

    Each point has the `threshold` (null_odds up to it get an answer), the F1's `precision` and
    `recall`, and `f1` and `exact` of the whole set, null answers included; all 0 to 100. {}
    without an answerable question.
    """
    if not scores.has_answer.any():
        return {}
    order = np.argsort(scores.null_odds, kind="stable")
    odds = scores.null_odds[order]
    places = np.flatnonzero(np.append(odds[1:] != odds[:-1], True))  # (thresholds,)
    gains = {"exact": scores.exact, "f1": scores.f1, "oracle": np.ones(len(odds))}
    curves = {
        name: _curve(gain[order], scores.has_answer[order], places) for name, gain in gains.items()
    }
    averages: dict[str, Any] = {
        f"pr_{name}_ap": _average_precision(*curve) for name, curve in curves.items()
    }
    shown = np.unique(np.linspace(0, len(places) - 1, MAX_POINTS).round().astype(np.int64))
    precision, recall = (100 * values[shown] for values in curves["f1"])
    columns = {
        "threshold": odds[places[shown]],
        "precision": precision,
        "recall": recall,
        **{
            name: _whole_set(gains[name][order], scores.null_exact[order])[places[shown]]
            for name in ("f1", "exact")
        },
    }
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    return averages | {"points": [dict(zip(columns, row, strict=True)) for row in rows]}


def _curve(
    gain: NDArray[np.float64], has_answer: NDArray[np.bool_], places: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Precision and recall (0 to 1) after each of `places`; rows by rising odds."""
    found = np.cumsum(np.where(has_answer, gain, 0.0))[places]
    return found / (places + 1), found / int(has_answer.sum())


def _average_precision(precision: NDArray[np.float64], recall: NDArray[np.float64]) -> float:
    steps = precision * np.diff(recall, prepend=0.0)  # (thresholds,)
    return 100.0 * float(np.cumsum(steps)[-1])  # added one by one, as the script does


def _whole_set(gain: NDArray[np.float64], null_exact: NDArray[np.float64]) -> NDArray[np.float64]:
    """The score of all examples (0 to 100) where the first get an answer, the others none."""
    total = null_exact.sum() + np.cumsum(gain - null_exact)  # (examples,)
    return np.asarray(100.0 * total / len(gain), np.float64)
