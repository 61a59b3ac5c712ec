"""Which keys mattered to the scores of a sweep."""

import itertools

import pytest

from qa_core.sensitivity import group_labels, key_sensitivities

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
