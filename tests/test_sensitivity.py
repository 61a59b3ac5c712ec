"""Which keys mattered to the scores of a sweep."""

import itertools

import numpy as np
import pytest

from qa_core.sensitivity import group_labels, key_sensitivities, sorted_labels

GRID = [{"a": a, "b": b} for a, b in itertools.product((1, 2, 3), ("x", "y"))]


def test_a_key_that_decides_alone_has_all_of_the_variance() -> None:
    """The other has none; the means are by value, in order."""
    first, second = key_sensitivities(GRID, [10.0 * point["a"] for point in GRID])
    assert (first["key"], second["key"]) == ("a", "b")
    assert first["share"] == pytest.approx(1)
    assert second["share"] == pytest.approx(0)
    assert first["range"] == 20
    assert [(one["value"], one["mean"], one["num_trials"]) for one in first["means"]] == [
        ("1", 10, 2),
        ("2", 20, 2),
        ("3", 30, 2),
    ]
    assert first["chance"] == pytest.approx(2 / 5)


def test_shares_of_a_grid_add_up() -> None:
    """Where effects add, to 1; with an interaction, to less."""
    added = key_sensitivities(GRID, [p["a"] + 4 * (p["b"] == "x") for p in GRID])
    assert sum(row["share"] for row in added) == pytest.approx(1)
    assert added[0]["key"] == "b"
    crossed = key_sensitivities(GRID, [p["a"] * (p["b"] == "x") for p in GRID])
    assert 0 < sum(row["share"] for row in crossed) < 0.99


def test_many_numbers_are_put_into_thirds() -> None:
    """Equal numbers stay together; a few numbers, and what is no number, are told apart."""
    labels = group_labels([0.1 * number for number in range(9)])
    assert labels == ["0 to 0.2"] * 3 + ["0.3 to 0.5"] * 3 + ["0.6 to 0.8"] * 3
    assert len(set(group_labels([1, 1, 1, 1, 2, 3, 4, 5, 6, 7]))) >= 2
    assert group_labels([1, 1, 1, 1, 2, 3, 4, 5, 6, 7])[:4] == ["1 to 1"] * 4
    assert group_labels([None, True, "b"]) == ["None", "True", "b"]


def test_too_few_trials_or_values_tell_nothing() -> None:
    """Two trials, a key of one value; equal scores have no variance to share."""
    assert key_sensitivities(GRID[:2], [1.0, 2.0]) == []
    assert key_sensitivities([{"a": 1}] * 4, [1.0, 2.0, 3.0, 4.0]) == []
    assert [row["share"] for row in key_sensitivities(GRID, [5.0] * 6)] == [0.0, 0.0]


@pytest.mark.parametrize("score", [0.1, 12.34, 33.3, 55.55, 70.1, 81.3])
def test_equal_scores_leave_no_variance_to_rounding(score: float) -> None:
    """The mean of equal numbers is not always that number; the shares were 1, and even 4."""
    rows = key_sensitivities(GRID, [score] * 6)
    assert [row["share"] for row in rows] == [0.0, 0.0]
    assert [row["range"] for row in rows] == pytest.approx([0, 0])


@pytest.mark.parametrize("seed", range(10))
def test_shares_lie_between_0_and_1_and_groups_hold_every_trial(seed: int) -> None:
    """Whatever the values; the means of the groups, weighed, are the mean of all."""
    random = np.random.default_rng(seed)
    points = [
        {"rate": float(random.random()), "size": int(random.integers(1, 9)), "kind": kind}
        for kind in random.choice(["a", "b", "c"], 30).tolist()
    ]
    scores = random.normal(60, 5, 30)
    rows = key_sensitivities(points, scores.tolist())
    assert sorted(row["key"] for row in rows) == ["kind", "rate", "size"]
    assert [row["share"] for row in rows] == sorted((r["share"] for r in rows), reverse=True)
    for row in rows:
        assert 0 <= row["share"] <= 1
        assert len(row["means"]) == 3
        assert row["chance"] == pytest.approx(2 / 29)
        assert sum(one["num_trials"] for one in row["means"]) == 30
        whole = sum(one["mean"] * one["num_trials"] for one in row["means"]) / 30
        assert whole == pytest.approx(scores.mean())


def test_a_key_that_does_nothing_has_the_share_told_as_chance() -> None:
    """On the mean over many searches of random scores."""
    random = np.random.default_rng(0)
    rows = []
    for _ in range(300):
        points = [{"rate": float(value)} for value in random.random(12)]
        rows += key_sensitivities(points, random.normal(size=12).tolist())
    assert len(rows) == 300
    assert np.mean([row["share"] for row in rows]) == pytest.approx(rows[0]["chance"], abs=0.03)


def test_a_key_with_interactions_alone_has_no_share() -> None:
    """Of a full grid where a value is good with one partner and bad with the other."""
    grid = [{"a": a, "b": b} for a, b in itertools.product((0, 1), (0, 1))]
    rows = key_sensitivities(grid, [10.0 * (p["a"] == p["b"]) for p in grid])
    assert [row["share"] for row in rows] == pytest.approx([0, 0])


@pytest.mark.parametrize("often", [0, 6])
def test_a_number_tried_most_often_is_told_apart(often: int) -> None:
    """Where a search settles at a bound: its trials and the others are two groups, not one.

    All were one group where the upper bound was tried in more than two thirds, and the key
    had no row.
    """
    values = [1, 2, 3, 4, 5] + [often] * 20
    labels = group_labels(values)
    assert len(set(labels)) == 2
    assert set(labels[5:]) == {f"{often} to {often}"}
    assert set(labels[:5]) == {"1 to 5"}


@pytest.mark.parametrize("seed", range(20))
def test_thirds_keep_equals_together_and_the_order(seed: int) -> None:
    """Groups do not overlap, and there are two or three."""
    random = np.random.default_rng(seed)
    values = random.permutation([*range(6), *random.integers(0, 12, seed)]).tolist()
    labels = group_labels(values)
    groups = [[v for v, one in zip(values, labels, strict=True) if one == g] for g in set(labels)]
    groups.sort(key=min)
    assert 2 <= len(groups) <= 3
    assert all(max(one) < min(other) for one, other in itertools.pairwise(groups))
    assert [f"{min(g)} to {max(g)}" for g in groups] == sorted_labels(labels)


def test_means_are_listed_in_the_order_of_their_numbers() -> None:
    """128 after 64, 1e-05 before 0.001; what is no number last, by name."""
    assert sorted_labels(["64", "128", "None", "8", "64"]) == ["8", "64", "128", "None"]
    assert sorted_labels(["0.001", "1e-05"]) == ["1e-05", "0.001"]
    assert sorted_labels(["linear", "cosine"]) == ["cosine", "linear"]
    assert sorted_labels(["-1 to 2", "-3 to -2", "3 to 5"]) == ["-3 to -2", "-1 to 2", "3 to 5"]
