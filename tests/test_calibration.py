"""A temperature makes sure answers believable, and is measured where it was not fitted."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from qa_core import calibration
from qa_core.calibration import (
    GivenAnswers,
    answer_probability,
    calibrate,
    fit_temperature,
    given_answers,
    is_even,
    reliability,
)
from qa_core.errors import DataError
from qa_core.scoring import ExampleScores
from qa_core.slices import FACTS


def scores_of(right: Any, odds: Any, *, null_right: Any = None) -> ExampleScores:
    """Scores of examples q000, q001, …"""
    size = len(right)
    exact = np.asarray(right, float)
    return ExampleScores(
        ids=np.array([f"q{n:06d}" for n in range(size)], object),
        has_answer=np.ones(size, bool),
        is_text=np.ones(size, bool),
        exact=exact,
        f1=exact,
        null_exact=np.zeros(size) if null_right is None else np.asarray(null_right, float),
        null_odds=np.asarray(odds, float),
    )


def facts_with(candidate_scores: list[list[float]], null_rank: list[int]) -> pa.Table:
    """Facts of which only candidates matter here."""
    rows = [
        {"id": f"q{n:06d}", "candidate_scores": scores, "null_rank": rank}
        for n, (scores, rank) in enumerate(zip(candidate_scores, null_rank, strict=True))
    ]
    return pa.Table.from_pylist(rows, schema=FACTS)


def simulated(temperature: float, size: int = 4000) -> tuple[ExampleScores, pa.Table]:
    """Answers that are right as often as the softmax at `temperature` says."""
    random = np.random.default_rng(0)
    logits = -np.sort(-random.normal(0, 2, (size, 5)), axis=1)
    exponents = np.exp(logits)
    right = random.random(size) < exponents[:, 0] / exponents.sum(axis=1)
    facts = facts_with((logits * temperature).tolist(), [-1] * size)
    return scores_of(right, np.zeros(size)), facts


@pytest.mark.parametrize("temperature", [0.25, 1.0, 4.0])
def test_fitted_temperature_is_the_one_that_made_the_answers(temperature: float) -> None:
    """And the error of the other half falls to what chance leaves."""
    scores, facts = simulated(temperature)
    found = calibrate(scores, facts, null_threshold=None)
    assert found["temperature"] == pytest.approx(temperature, rel=0.15)
    assert found["after"]["error"] < 0.04
    if temperature != 1.0:
        assert found["before"]["error"] > 3 * found["after"]["error"]
    assert found["num_fitted"] + found["num_measured"] == len(scores.ids)
    assert sum(row["total"] for row in found["after"]["bins"]) == found["num_measured"]


def test_fit_is_the_minimum_of_the_cross_entropy() -> None:
    """Against a fine grid, computed example by example."""
    scores, facts = simulated(2.0, size=60)
    answers, _ = given_answers(scores, facts, null_threshold=None)

    def loss(temperature: float) -> float:
        total = 0.0
        for row in range(60):
            scaled = answers.scores[answers.splits[row] : answers.splits[row + 1]] / temperature
            share = np.exp(scaled[0]) / np.exp(scaled).sum()
            total -= np.log(share if answers.is_right[row] else 1 - share)
        return total

    grid = np.exp(np.linspace(-2, 2, 801))
    best = grid[int(np.argmin([loss(t) for t in grid]))]
    assert fit_temperature(answers) == pytest.approx(best, rel=0.01)


def test_probability_is_that_of_the_answer_given() -> None:
    """The null answer above the threshold, else the first span, before or behind it."""
    facts = facts_with([[2, 1, 0], [2, 1, 0], [2, 1, 0]], [0, 0, 2])
    scores = scores_of([1, 0, 1], [1.0, -1.0, -2.0], null_right=[0, 1, 1])
    answers, is_candidate = given_answers(scores, facts, null_threshold=0.0)
    share = np.exp([2, 1, 0]) / np.exp([2, 1, 0]).sum()
    assert is_candidate.all()
    assert answer_probability(answers) == pytest.approx([share[0], share[1], share[0]])
    assert answers.is_right.tolist() == [False, False, True]
    spans, _ = given_answers(scores, facts, null_threshold=None)
    assert answer_probability(spans) == pytest.approx([share[1], share[1], share[0]])
    halved = answer_probability(spans, temperature=2.0)
    assert halved[2] == pytest.approx(1 / (1 + np.exp(-0.5) + np.exp(-1)))


def test_answers_that_are_no_candidates_are_counted_out() -> None:
    """No span at all, or a null answer that was no candidate, has no probability."""
    lists: list[list[float]] = [[], [1.0], [3.0], [2.0, 1.0]] * 10
    facts = facts_with(lists, [-1, 0, -1, 1] * 10)
    scores = scores_of([0, 0, 1, 1] * 10, [0.0, 0.0, 5.0, 0.0] * 10)
    answers, is_candidate = given_answers(scores, facts, null_threshold=1.0)
    assert is_candidate.tolist() == [False, False, False, True] * 10
    assert answers.splits.tolist() == list(range(0, 22, 2))
    assert calibrate(scores, facts, null_threshold=1.0)["num_left_out"] == 30


def test_blocks_do_not_change_a_probability(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded without another result."""
    scores, facts = simulated(2.0, size=100)
    whole = calibrate(scores, facts, null_threshold=None)
    monkeypatch.setattr(calibration, "EXAMPLES_PER_BLOCK", 7)
    assert calibrate(scores, facts, null_threshold=None) == whole


def test_halves_follow_from_the_ids_alone() -> None:
    """About half each; other examples beside it never move one to the other half."""
    ids = np.array([f"q{n}" for n in range(2000)], object)
    even = is_even(ids)
    assert 900 < even.sum() < 1100
    assert is_even(ids[::-3]).tolist() == even[::-3].tolist()


def test_fewer_than_two_examples_in_a_half_leave_the_temperature_at_one() -> None:
    """Nothing can be said: no error of 0."""
    scores, facts = simulated(4.0, size=1)
    found = calibrate(scores, facts, null_threshold=None)
    assert (found["temperature"], found["num_fitted"] + found["num_measured"]) == (1.0, 1)
    assert not {"before", "after"} & found.keys()


def test_certain_answers_teach_nothing() -> None:
    """One candidate each: every temperature is as good, and 1 is kept."""
    splits, rows = np.arange(9), np.arange(8)
    alone = GivenAnswers(np.ones(8, np.float32), splits, rows, np.arange(8) % 2 == 0)
    assert fit_temperature(alone) == 1.0


def test_bins_and_error_of_a_case_worked_by_hand() -> None:
    """0.1 is in the second bin, 1.0 in the last; each bin counts by its size."""
    probability = np.array([0.05, 0.1, 1.0, 0.9])
    found = reliability(probability, np.array([False, True, True, False]))
    assert [(row["low"], row["high"], row["total"]) for row in found["bins"]] == [
        (0.0, 0.1, 1),
        (0.1, 0.2, 1),
        (0.9, 1.0, 2),
    ]
    assert found["bins"][2] == pytest.approx(
        {"low": 0.9, "high": 1.0, "total": 2, "confidence": 0.95, "accuracy": 0.5}
    )
    assert found["error"] == pytest.approx((0.05 + 0.9 + 2 * 0.45) / 4)


def test_rows_of_other_examples_are_refused() -> None:
    """Probabilities of one question beside the score of another."""
    scores, facts = simulated(1.0, size=10)
    with pytest.raises(DataError, match="another order"):
        calibrate(scores, facts[::-1], null_threshold=None)
