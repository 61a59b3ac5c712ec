"""The curve over the null threshold is the official one, and its points are the scores."""

import numpy as np
import pytest

from qa_core.scoring import ExampleScores, find_null_threshold, summarize_scores
from qa_core.thresholds import MAX_POINTS, precision_recall
from tests.reference import reference_average_precision


def random_scores(seed: int, size: int, *, levels: int) -> ExampleScores:
    """Scores of which `levels` different odds make some tie; F1 at least the exact match."""
    random = np.random.default_rng(seed)
    has_answer = random.random(size) < 0.6
    exact = np.where(has_answer, random.random(size) < 0.5, 0.0)
    return ExampleScores(
        ids=np.array([f"q{n:06d}" for n in range(size)], object),
        has_answer=has_answer,
        is_text=np.ones(size, bool),
        exact=exact,
        f1=np.where(has_answer, np.maximum(exact, random.random(size).round(1)), 0.0),
        null_exact=(~has_answer).astype(float),
        null_odds=random.integers(0, levels, size) / 4.0,
    )


@pytest.mark.parametrize("seed", range(10))
def test_average_precisions_equal_the_official_rules(seed: int) -> None:
    """To the last digit, also where odds tie."""
    scores = random_scores(seed, 40, levels=12)
    found = precision_recall(scores)
    gold = {n: ["x"] if has else [] for n, has in zip(scores.ids, scores.has_answer, strict=True)}
    odds = dict(zip(scores.ids, scores.null_odds.tolist(), strict=True))
    raw = {"exact": scores.exact, "f1": scores.f1, "oracle": scores.has_answer.astype(float)}
    for name, values in raw.items():
        by_id = dict(zip(scores.ids, values.tolist(), strict=True))
        expected = reference_average_precision(by_id, gold, odds)
        assert found[f"pr_{name}_ap"] == expected
    assert found["pr_exact_ap"] < found["pr_f1_ap"] < found["pr_oracle_ap"]


def test_a_case_worked_by_hand() -> None:
    """Right at -3, wrong at -1, unanswerable at 0, right at 2; three have an answer.

    Exact: 1 x 1/3 + 2/4 x 1/3. Oracle: 1 x 2/3 + 3/4 x 1/3.
    """
    scores = ExampleScores(
        ids=np.array(["q0", "q1", "q2", "q3"], object),
        has_answer=np.array([True, True, False, True]),
        is_text=np.ones(4, bool),
        exact=np.array([1.0, 0.0, 0.0, 1.0]),
        f1=np.array([1.0, 0.5, 0.0, 1.0]),
        null_exact=np.array([0.0, 0.0, 1.0, 0.0]),
        null_odds=np.array([-3.0, -1.0, 0.0, 2.0]),
    )
    found = precision_recall(scores)
    assert found["pr_exact_ap"] == pytest.approx(50)
    assert found["pr_oracle_ap"] == pytest.approx(100 * (2 / 3 + 1 / 4))
    rounded = [{k: round(v, 2) for k, v in point.items()} for point in found["points"]]
    assert rounded == [
        {"threshold": -3, "precision": 100, "recall": 33.33, "f1": 50, "exact": 50},
        {"threshold": -1, "precision": 75, "recall": 50, "f1": 62.5, "exact": 50},
        {"threshold": 0, "precision": 50, "recall": 50, "f1": 37.5, "exact": 25},
        {"threshold": 2, "precision": 62.5, "recall": 83.33, "f1": 62.5, "exact": 50},
    ]


def test_points_are_the_scores_at_their_thresholds() -> None:
    """What a person reads off the curve is what the threshold gives when it is applied."""
    scores = random_scores(0, 60, levels=20)
    points = precision_recall(scores)["points"]
    assert len(points) == len(np.unique(scores.null_odds))
    for point in points:
        summary = summarize_scores(scores, null_threshold=point["threshold"])
        assert point["exact"] == pytest.approx(summary["exact"])
        assert point["f1"] == pytest.approx(summary["f1"])
    best = summarize_scores(scores, null_threshold=find_null_threshold(scores))["f1"]
    assert max(point["f1"] for point in points) <= best + 1e-9


def test_long_curves_are_thinned_and_keep_their_ends() -> None:
    """A few hundred points for a page, whatever the data's size; the averages take them all."""
    scores = random_scores(0, 2000, levels=10**6)
    points = precision_recall(scores)["points"]
    assert len(points) == MAX_POINTS
    ends = (scores.null_odds.min(), scores.null_odds.max())
    assert (points[0]["threshold"], points[-1]["threshold"]) == ends
    assert np.all(np.diff([point["recall"] for point in points]) >= 0)


def test_without_an_answerable_question_there_is_no_curve() -> None:
    """Recall of nothing is not 0."""
    scores = random_scores(0, 5, levels=3)
    nothing = ExampleScores(**{**vars(scores), "has_answer": np.zeros(5, bool)})
    assert precision_recall(nothing) == {}
