"""Spaces and searchers: what is tried, and what never is."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qa_core import searching
from qa_core.errors import ConfigError
from qa_core.search_space import (
    Point,
    Range,
    Space,
    Values,
    check_range,
    draw_point,
    grid_points,
    point_name,
    same_point,
)
from qa_core.searching import check_optuna, make_searcher

MIXED: Space = {
    "length": Values((64, 128, 256, None)),
    "stride": Range(8, 64, step=8, is_whole=True),
    "rate": Range(1e-5, 1e-3, is_log=True),
    "epochs": Range(1, 4, is_whole=True),
    "batch": Range(4, 64, is_log=True, is_whole=True),
    "warmup": Range(0.0, 0.2, step=0.05),
    "decay": Range(0.7, 1.0),
}


def no_problem(point: Point) -> str | None:
    """Every point can run."""
    return None


def room(point: Point) -> str | None:
    """A stride must leave room in a window."""
    length = point["length"]
    return "no room" if length is not None and point["stride"] >= length - 10 else None


@given(seed=st.integers(0, 10**6))
def test_drawn_values_lie_in_their_domains(seed: int) -> None:
    """Within the bounds, on the steps, and whole where they should be."""
    point = draw_point(MIXED, np.random.default_rng(seed))
    assert point["length"] in (64, 128, 256, None)
    assert point["stride"] in range(8, 65, 8)
    assert 1e-5 <= point["rate"] <= 1e-3
    assert point["epochs"] in (1, 2, 3, 4)
    assert isinstance(point["batch"], int)
    assert 4 <= point["batch"] <= 64
    assert round(point["warmup"] / 0.05, 6) in (0, 1, 2, 3, 4)
    assert 0.7 <= point["decay"] <= 1.0


def test_a_grid_has_every_combination_once() -> None:
    """Steps included: the last value is the upper bound where a step ends there."""
    space: Space = {"a": Values((1, 2)), "b": Range(0.0, 0.3, step=0.1)}
    points = list(grid_points(space))
    assert len(points) == 8
    assert [round(point["b"], 6) for point in points[:4]] == [0.0, 0.1, 0.2, 0.3]
    assert len({str(point) for point in points}) == 8


def test_a_grid_without_end_or_too_large_is_refused() -> None:
    """With the key, or the size."""
    with pytest.raises(ConfigError, match="rate: a grid of endlessly many"):
        grid_points({"rate": Range(0.0, 1.0)})
    with pytest.raises(ConfigError, match="a grid of 1000000 points"):
        grid_points({name: Values(tuple(range(100))) for name in "abc"})


@pytest.mark.parametrize(
    ("domain", "message"),
    [
        (Range(2.0, 1.0), "from 2 to 1 is upside down"),
        (Range(0.0, 1.0, is_log=True), "loguniform from 0"),
        (Range(0.0, 1.0, step=0.0), "a step of 0"),
        (Range(0.0, 1.0, step=2.0), "a step of 2"),
    ],
)
def test_a_range_that_holds_nothing_is_refused(domain: Range, message: str) -> None:
    """With its bounds."""
    with pytest.raises(ConfigError, match=message):
        check_range("key", domain)
    check_range("key", Range(1.0, 1.0))


def test_points_are_compared_with_their_types() -> None:
    """True is not 1; names of points are short."""
    assert same_point({"a": 1}, {"a": 1})
    assert not same_point({"a": 1}, {"a": True})
    assert not same_point({"a": 1}, {"b": 1})
    assert point_name({"x.y": 0.00003, "z": None}) == "y 3e-05, z None"


@pytest.mark.parametrize("name", ["random", "optuna"])
def test_no_point_twice_and_none_that_cannot_run(name: str) -> None:
    """The same seed gives the same points, another seed others."""
    given_points = []
    for seed in (0, 0, 1):
        searcher = make_searcher(name, MIXED, problem=room, seed=seed)  # type: ignore[arg-type]
        points = [searcher.suggest() for _ in range(30)]
        assert all(point is not None and room(point) is None for point in points)
        assert len({str(point) for point in points}) == 30
        given_points.append(points)
    assert given_points[0] == given_points[1] != given_points[2]


@pytest.mark.parametrize("name", ["grid", "random", "optuna"])
def test_a_space_that_can_be_counted_is_used_up(name: str) -> None:
    """Every possible point comes once, then none."""
    space: Space = {"length": Values((20, 40)), "stride": Values((8, 16, 24))}
    searcher = make_searcher(name, space, problem=room, seed=0)  # type: ignore[arg-type]
    points = []
    while (point := searcher.suggest()) is not None:
        points.append(point)
        searcher.tell(point, 1.0 if len(points) % 2 else None)
    expected = [point for point in grid_points(space) if room(point) is None]
    assert len(points) == len(expected) == 4
    assert all(point in points for point in expected)
    assert searcher.suggest() is None


@pytest.mark.parametrize("space", [{"stride": Values((70, 80))}, {"stride": Range(70.0, 80.0)}])
def test_a_space_without_a_possible_point_is_refused(space: Space) -> None:
    """With the first reason."""
    with pytest.raises(ConfigError, match=r"no point of the search space.*no room"):
        make_searcher("random", space, problem=lambda point: room({"length": 64, **point}), seed=0)


def test_tpe_learns_where_the_scores_are_high() -> None:
    """After thirty scores most of its points are near the best."""
    searcher = make_searcher("optuna", {"x": Range(0.0, 1.0)}, problem=no_problem, seed=0)
    points = []
    for _ in range(60):
        point = searcher.suggest()
        assert point is not None
        searcher.tell(point, -((point["x"] - 0.3) ** 2))
        points.append(point["x"])
    assert np.median(np.abs(np.array(points[40:]) - 0.3)) < 0.1


def test_optuna_that_is_not_installed_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that installs it."""
    monkeypatch.setattr(searching.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"optuna is not installed.*\[optuna\]"):
        check_optuna()
