"""Searchers: what is tried, and what never is."""

import json

import numpy as np
import pytest

from qa_core import searching
from qa_core.errors import ConfigError
from qa_core.search_space import (
    Point,
    Range,
    Space,
    Values,
    grid_points,
    same_point,
)
from qa_core.searching import (
    OptunaSearcher,
    Searcher,
    SearcherName,
    check_optuna,
    make_searcher,
)
from tests.test_search_space import MIXED


def no_problem(point: Point) -> str | None:
    """Every point can run."""
    return None


def room(point: Point) -> str | None:
    """A stride must leave room in a window."""
    length = point["length"]
    return "no room" if length is not None and point["stride"] >= length - 10 else None


@pytest.mark.parametrize("name", ["random", "optuna"])
def test_no_point_twice_and_none_that_cannot_run(name: SearcherName) -> None:
    """The same seed gives the same points, another seed others."""
    given_points = []
    for seed in (0, 0, 1):
        searcher = make_searcher(name, MIXED, problem=room, seed=seed)
        points = [searcher.suggest() for _ in range(30)]
        assert all(point is not None and room(point) is None for point in points)
        assert len({str(point) for point in points}) == 30
        given_points.append(points)
    assert given_points[0] == given_points[1] != given_points[2]


@pytest.mark.parametrize("name", ["grid", "random", "optuna"])
def test_a_space_that_can_be_counted_is_used_up(name: SearcherName) -> None:
    """Every possible point comes once, then none."""
    space: Space = {"length": Values((20, 40)), "stride": Values((8, 16, 24))}
    searcher = make_searcher(name, space, problem=room, seed=0)
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


def play(searcher: Searcher, count: int) -> list[tuple[Point, float | None]]:
    """Points of a searcher, each told before the next; every fourth one fails."""
    played: list[tuple[Point, float | None]] = []
    while len(played) < count and (point := searcher.suggest()) is not None:
        score = None if len(played) % 4 == 3 else 50.0 + point["stride"] - 30 * point["warmup"]
        searcher.tell(point, score)
        played.append((point, score))
    return played


FINITE: Space = {
    "length": Values((32, 64, 128, None)),
    "stride": Range(8, 64, step=8, is_whole=True),
    "warmup": Range(0.0, 0.3, step=0.1),
}


@pytest.mark.parametrize("name", ["grid", "random", "optuna"])
@pytest.mark.parametrize("given", [0, 1, 7, 25])
def test_a_searcher_that_adopts_goes_on_like_the_one_that_gave(
    name: SearcherName, given: int
) -> None:
    """The same points, fails and scores in the same order: the same points follow."""
    space = FINITE if name == "grid" else {**FINITE, **MIXED, "warmup": FINITE["warmup"]}
    first = make_searcher(name, space, problem=room, seed=3)
    again = make_searcher(name, space, problem=room, seed=3)
    history = play(first, given)
    assert len(history) == given
    for point, score in json.loads(json.dumps(history)):  # as the events of a sweep are kept
        again.adopt(point)
        again.tell(point, score)
    following = play(first, 5)
    assert len(following) == 5
    assert play(again, 5) == following


@pytest.mark.parametrize("name", ["grid", "random", "optuna"])
def test_points_that_still_run_are_adopted_too(name: SearcherName) -> None:
    """Three that were given and not yet scored are not given again."""
    first = make_searcher(name, FINITE, problem=room, seed=0)
    begun = [first.suggest() for _ in range(3)]
    again = make_searcher(name, FINITE, problem=room, seed=0)
    for point in begun:
        assert point is not None
        again.adopt(point)
    assert again.suggest() == first.suggest()


@pytest.mark.parametrize("name", ["grid", "random", "optuna"])
def test_a_point_of_another_searcher_is_adopted(name: SearcherName) -> None:
    """It is not given again, and all others are: a sweep can change its searcher on the way.

    A list of points used to be passed over to its end in search of it.
    """
    space: Space = {"length": Values((64, 128)), "stride": Values((8, 16, 24))}
    inside, outside = {"length": 128, "stride": 24}, {"length": 128, "stride": 16}
    searcher = make_searcher(name, space, problem=lambda p: "no" if p == outside else None, seed=0)
    for point in (inside, outside):
        searcher.adopt(point)
        searcher.tell(point, 1.0)
    rest = []
    while (found := searcher.suggest()) is not None:
        rest.append(found)
    assert len(rest) == 4
    expected = [p for p in grid_points(space) if p not in (inside, outside)]
    assert all(sum(same_point(point, one) for one in rest) == 1 for point in expected)


@pytest.mark.parametrize("name", ["random", "optuna"])
def test_one_possible_point_among_many_is_found(name: SearcherName) -> None:
    """Also where TPE asks for others a hundred times; it is given once."""
    for seed in range(6):
        searcher = make_searcher(
            name,
            {"x": Values(tuple(range(100)))},
            problem=lambda point: None if point["x"] == 77 else "impossible",
            seed=seed,
        )
        assert searcher.suggest() == {"x": 77}
        assert searcher.suggest() is None
        searcher.adopt({"x": 77})  # when there is nothing left, too
        searcher.tell({"x": 77}, 1.0)


@pytest.mark.parametrize("name", ["random", "optuna"])
@pytest.mark.parametrize(
    "domain",
    [
        Range(0.0, 0.3, step=0.1),
        Range(0.1, 0.7, step=0.1),
        Range(0.0, 1.0, step=0.3),
        Range(1, 10, step=4, is_whole=True),
        Range(-2, 3, step=1, is_whole=True),
    ],
)
@pytest.mark.filterwarnings("error")
def test_steps_are_used_up_exactly(name: SearcherName, domain: Range) -> None:
    """Every step once: 0.3 and 0.30000000000000004 were two points, one of them out of bounds."""
    searcher = make_searcher(name, {"x": domain}, problem=no_problem, seed=0)
    found = []
    while (point := searcher.suggest()) is not None:
        searcher.tell(point, float(point["x"]))
        found.append(point["x"])
    assert domain.finite is not None
    assert sorted(found) == list(domain.finite)
    assert {type(x) for x in found} == {type(x) for x in domain.finite}


@pytest.mark.parametrize("name", ["random", "optuna"])
def test_a_space_too_large_for_a_grid_is_searched(name: SearcherName) -> None:
    """It was refused, with the advice to search it as it was about to be."""
    space: Space = {key: Values(tuple(range(100))) for key in "abc"}
    assert make_searcher(name, space, problem=no_problem, seed=0).suggest() is not None
    with pytest.raises(ConfigError, match=r"a grid of 1000000 points.*searcher random"):
        make_searcher("grid", space, problem=no_problem, seed=0)


def test_tpe_finds_better_points_than_chance() -> None:
    """On three seeds out of three its later points score higher on the mean than drawn ones."""
    for seed in range(3):
        means = {}
        for name in ("random", "optuna"):
            searcher = make_searcher(
                name,  # type: ignore[arg-type]
                {"x": Range(0.0, 1.0)},
                problem=no_problem,
                seed=seed,
            )
            scores = []
            for _ in range(40):
                point = searcher.suggest()
                assert point is not None
                scores.append(-((point["x"] - 0.7) ** 2))
                searcher.tell(point, scores[-1])
            means[name] = np.mean(scores[20:])
        assert means["optuna"] > means["random"]


def test_the_first_score_of_a_point_counts() -> None:
    """A sweep that is continued with another scheduler tells the same points again."""
    searcher = OptunaSearcher({"x": Range(0.0, 1.0)}, problem=no_problem, seed=0)
    point = searcher.suggest()
    assert point is not None
    searcher.tell(point, 1.0)
    searcher.tell(point, 2.0)
    searcher.tell(point, None)
    assert searcher.study.best_value == 1.0
