"""search: which point of the space to try next.

Points that cannot run are never given out, and none twice. What a searcher gives follows from the
space, the seed and what it was told before, in that order: a search that is interrupted goes on as
it was by `adopt`ing the points it gave and being told their scores again.
"""

import importlib.util
import json
import math
from collections.abc import Callable, Iterator
from typing import Any, Literal, Protocol

import numpy as np

from qa_core.errors import ConfigError
from qa_core.search_space import (
    LARGEST_GRID,
    Domain,
    Point,
    Space,
    Values,
    draw_point,
    grid_points,
    same_point,
)

TRIES = 1000  # points drawn for one that can run and is new, before the space counts as used up

# Why a point cannot run; None where it can.
Problem = Callable[[Point], str | None]
SearcherName = Literal["grid", "random", "optuna"]


class Searcher(Protocol):
    """Gives points to try."""

    def suggest(self) -> Point | None:
        """The next point; None when there is none left."""

    def adopt(self, point: Point) -> None:
        """Count `point` as given, as the next one."""

    def tell(self, point: Point, score: float | None) -> None:
        """What a given point came to; None where it failed."""


def make_searcher(name: SearcherName, space: Space, *, problem: Problem, seed: int) -> Searcher:
    """The searcher of that name; raises `ConfigError` where no point of the space can run."""
    check_possible(space, problem=problem, seed=seed)
    match name:
        case "grid":
            return ListSearcher(point for point in grid_points(space) if problem(point) is None)
        case "random":
            return ListSearcher(random_points(space, problem=problem, seed=seed))
        case "optuna":
            return OptunaSearcher(space, problem=problem, seed=seed)


def check_possible(space: Space, *, problem: Problem, seed: int) -> None:
    """Raise `ConfigError` where no point, or none of many drawn, can run."""
    sizes = [None if domain.finite is None else len(domain.finite) for domain in space.values()]
    if None not in sizes and math.prod(filter(None, sizes)) <= LARGEST_GRID:
        points = list(grid_points(space))
    else:
        random = np.random.default_rng(seed)
        points = [draw_point(space, random) for _ in range(TRIES)]
    first = None
    for point in points:
        found = problem(point)
        if found is None:
            return
        first = first or found
    raise ConfigError(
        f"no point of the search space can run; the first of {len(points)}: {first}",
        where="search space",
        expected="one possible combination at least",
    )


class ListSearcher:
    """Gives points one after another, whatever their scores."""

    def __init__(self, points: Iterator[Point]) -> None:
        self.points = points
        self.adopted: set[str] = set()

    def suggest(self) -> Point | None:
        """The next of the points that was not adopted."""
        return next((point for point in self.points if _key(point) not in self.adopted), None)

    def adopt(self, point: Point) -> None:
        """Pass over this point when its turn comes."""
        self.adopted.add(_key(point))

    def tell(self, point: Point, score: float | None) -> None:
        """Nothing follows from a score."""


def random_points(space: Space, *, problem: Problem, seed: int) -> Iterator[Point]:
    """Points drawn at random, each once, until `TRIES` in a row cannot run or were given."""
    random = np.random.default_rng(seed)
    given: set[str] = set()
    while True:
        for _ in range(TRIES):
            point = draw_point(space, random)
            if _key(point) not in given and problem(point) is None:
                break
        else:
            return
        given.add(_key(point))
        yield point


class OptunaSearcher:
    """Optuna's tree-structured Parzen estimator (TPE), the higher a score the better."""

    def __init__(self, space: Space, *, problem: Problem, seed: int) -> None:
        check_optuna()
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.space, self.problem = space, problem
        self.distributions = {key: _distribution(domain) for key, domain in space.items()}
        sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        self.study = optuna.create_study(direction="maximize", sampler=sampler)
        self.fallback = random_points(space, problem=problem, seed=seed)
        self.asked: dict[str, Any] = {}  # by point, trials of the study

    def suggest(self) -> Point | None:
        """What TPE asks for; where it insists on points that were tried, one drawn at random."""
        for _ in range(TRIES // 10):
            trial, point = self._ask()
            if _key(point) not in self.asked and self.problem(point) is None:
                self.asked[_key(point)] = trial
                return point
            self._fail(trial)
        for point in self.fallback:
            if _key(point) not in self.asked:
                self._force(point)
                return point
        return None

    def adopt(self, point: Point) -> None:
        """Take the point as asked for: TPE's own next one where it is the same."""
        if (found := self.suggest()) is None or not same_point(found, point):
            if found is not None:
                self._fail(self.asked.pop(_key(found)))
            self._force(point)

    def tell(self, point: Point, score: float | None) -> None:
        """Report the score of a point that was given."""
        trial = self.asked[_key(point)]
        if score is None:
            self._fail(trial)
        else:  # the first score counts, where a sweep is continued with another scheduler
            self.study.tell(trial, score, skip_if_finished=True)

    def _ask(self) -> tuple[Any, Point]:
        trial = self.study.ask(self.distributions)
        return trial, {key: _value(self.space[key], trial.params[key]) for key in self.space}

    def _force(self, point: Point) -> None:
        self.study.enqueue_trial({key: _parameter(self.space[key], v) for key, v in point.items()})
        self.asked[_key(point)] = self._ask()[0]

    def _fail(self, trial: Any) -> None:
        from optuna.trial import TrialState

        self.study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)


def check_optuna() -> None:
    """Raise `ConfigError` where Optuna is not installed."""
    if importlib.util.find_spec("optuna") is None:
        raise ConfigError(
            "optuna is not installed",
            where="tune.searcher",
            expected="the package optuna, or another searcher",
            remedy="pip install 'ray-extractive-qa[optuna]', or --tune.searcher random",
        )


def _distribution(domain: Domain) -> Any:
    """The domain as Optuna has it; values by their place, for they may be of any kind."""
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    if isinstance(domain, Values):
        return CategoricalDistribution(range(len(domain.values)))
    high = domain.high if domain.finite is None else domain.finite[-1]  # Optuna warns of a rest
    if domain.is_whole:
        step = 1 if domain.step is None else int(domain.step)
        return IntDistribution(int(domain.low), int(high), log=domain.is_log, step=step)
    return FloatDistribution(domain.low, high, log=domain.is_log, step=domain.step)


def _value(domain: Domain, parameter: Any) -> Any:
    if isinstance(domain, Values):
        return domain.values[parameter]
    if domain.finite is None or domain.step is None:
        return parameter
    return domain.finite[round((parameter - domain.low) / domain.step)]  # to the last digit


def _parameter(domain: Domain, value: Any) -> Any:
    if not isinstance(domain, Values):
        return value
    return next(place for place, one in enumerate(domain.values) if _key(one) == _key(value))


def _key(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
