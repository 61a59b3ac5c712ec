"""analyse: what stands behind the official figures, and whether two runs differ.

Everything is taken by id, so that nothing depends on how the examples were split.
"""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from qa_core.calibration import calibrate
from qa_core.errors import DataError
from qa_core.intervals import bootstrap_interval, compare_paired, standard_error
from qa_core.scoring import IDS_SHOWN, ExampleScores, GivenScores, given_scores
from qa_core.slices import TOP_N, check_same_ids, slice_given
from qa_core.thresholds import precision_recall

DISTINGUISHABLE = "distinguishable at this size"
NOT_DISTINGUISHABLE = "not distinguishable at this size"


def analyse(
    scores: ExampleScores, facts: pa.Table, *, null_threshold: float | None, seed: int = 0
) -> dict[str, Any]:
    """Figures of the answers given after `null_threshold`, JSON-ready, 0 to 100 unless said.

    `intervals`: 95 % of `exact` and `f1`, [low, high]. `slices`: `qa_core.slices.slice_scores`.
    `calibration`: `qa_core.calibration.calibrate` (0 to 1). `top_n`: `n`, and `exact` and `f1`
    of the best of the first n candidates, before any threshold. `precision_recall`, where
    there are questions without an answer and with one: `qa_core.thresholds.precision_recall`.

    `facts` may come in any order. Raises `DataError` where they are of other examples.
    """
    if not len(scores.ids):
        raise DataError("there are no examples to analyse", "analysing", "at least one example")
    facts = facts.sort_by("id")
    check_same_ids(scores, facts)
    given = given_scores(scores, null_threshold=null_threshold)
    figures = analyse_given(given, facts, seed=seed) | {
        "calibration": calibrate(scores, facts, null_threshold=null_threshold),
        "top_n": _top_scores(facts),
    }
    if scores.has_answer.any() and not scores.has_answer.all():
        figures["precision_recall"] = precision_recall(scores)
    return figures


def analyse_given(given: GivenScores, facts: pa.Table, *, seed: int = 0) -> dict[str, Any]:
    """`intervals` and `slices` of answers as they were given; rows by the same ids.

    `facts`: `qa_core.slices.TEXT_FACTS`, or more.
    """
    return {
        "intervals": {
            name: [100 * end for end in bootstrap_interval(getattr(given, name), seed=seed)]
            for name in ("exact", "f1")
        },
        "slices": slice_given(given, facts),
    }


def score_errors(scores: ExampleScores, *, null_threshold: float | None) -> dict[str, float | None]:
    """`exact_error` and `f1_error`: standard errors of the means over the examples, 0 to 100.

    None of fewer than two examples.
    """
    given = given_scores(scores, null_threshold=null_threshold)
    errors = {name: standard_error(getattr(given, name)) for name in ("exact", "f1")}
    return {f"{name}_error": None if e is None else 100 * e for name, e in errors.items()}


def compare_scores(scores: GivenScores, other: GivenScores, *, seed: int = 0) -> dict[str, Any]:
    """Whether two runs over the same examples differ by more than chance.

    `total`, and for `exact` and `f1` the `difference` of the means (this run's - the other's, 0 to
    100), its 95 % interval `low` to `high`, and the `verdict` in words. `given_scores` makes the
    argument from decoded answers, `score_given` from predictions. Rows may come in any order.

    Raises `DataError` naming ids that only one of them has.
    """
    first, second = (_sorted(part) for part in (scores, other))
    _check_same_examples(first, second)
    found: dict[str, Any] = {"total": len(first.ids)}
    for name in ("exact", "f1"):
        paired = compare_paired(getattr(first, name), getattr(second, name), seed=seed)
        found[name] = {
            "ours": 100 * float(getattr(first, name).mean()),
            "other": 100 * float(getattr(second, name).mean()),
            "difference": 100 * paired.difference,
            "low": 100 * paired.low,
            "high": 100 * paired.high,
            "verdict": DISTINGUISHABLE if paired.is_distinguishable else NOT_DISTINGUISHABLE,
        }
    return found


def _top_scores(facts: pa.Table) -> list[dict[str, Any]]:
    exact_rank = facts["exact_rank"].to_numpy()
    best = pc.list_flatten(facts["top_f1"]).to_numpy().astype(np.float64)
    top_f1 = best.reshape(-1, len(TOP_N))  # (examples, len(TOP_N))
    return [
        {
            "n": n,
            "exact": 100 * float(((exact_rank >= 0) & (exact_rank < n)).mean()),
            "f1": 100 * float(top_f1[:, column].mean()),
        }
        for column, n in enumerate(TOP_N)
    ]


def _sorted(scores: GivenScores) -> GivenScores:
    return scores.take(np.argsort(scores.ids, kind="stable"))


def _check_same_examples(first: GivenScores, second: GivenScores) -> None:
    if not len(first.ids):
        raise DataError("there are no examples to compare", "comparing", "at least one example")
    if first.ids.tolist() == second.ids.tolist():
        return
    ids, others = set(first.ids), set(second.ids)
    parts = (("this run", sorted(ids - others)), ("the other", sorted(others - ids)))
    listed = [f"{len(n)} only in {run} ({', '.join(n[:IDS_SHOWN])})" for run, n in parts if n]
    raise DataError(
        "ids differ: " + (" and ".join(listed) or "some are repeated"),
        where="comparing",
        expected="two runs over the same examples",
        remedy="score both on the same data",
    )
