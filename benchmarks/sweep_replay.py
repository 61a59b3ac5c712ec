"""Searchers and schedulers on the recorded scores of a grid that was trained to all ends.

A replay trains nothing: a leg takes as long as its tokens, two run at a time, and its score is the
recorded one. So a search can be repeated with many orders and seeds.
"""

import heapq
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qa_core.halving import Leg, Sweep, SweepRules, rung_tokens
from qa_core.search_space import Point, Space, Values
from qa_core.searching import ListSearcher, OptunaSearcher, Searcher

WORKERS = 2
KEYS = ("features.", "train.", "decoding.", "model.", "data.")


@dataclass(frozen=True)
class Recorded:
    """A trial as it was recorded: its end, and scores after so many tokens on the way."""

    point: Point
    total_tokens: int
    f1: float
    curve: tuple[tuple[int, float], ...]

    def score(self, leg: Leg) -> float:
        """The score at the end of a leg."""
        if leg.is_final:
            return self.f1
        return next(score for tokens, score in self.curve if tokens >= leg.until_tokens)


@dataclass(frozen=True)
class Found:
    """What a search came to."""

    f1: float
    num_tokens: int


def replay_all(rows: Sequence[dict[str, Any]], *, num_seeds: int, close: float) -> dict[str, Any]:
    """How often each way finds a trial within `close` of the best, at what share of the tokens."""
    trials = [read_trial(row) for row in rows]
    best = max(trial.f1 for trial in trials)
    whole = sum(trial.total_tokens for trial in trials)
    figures: dict[str, Any] = {
        "replay_trials": len(trials),
        "replay_best_f1": best,
        "replay_worst_f1": min(trial.f1 for trial in trials),
        "replay_close": sum(trial.f1 >= best - close for trial in trials),
        "replay_seeds": num_seeds,
    }
    half = -(-len(trials) // 2)
    for name, way in ways(trials, half).items():
        found = [way(seed) for seed in range(num_seeds)]
        share = float(np.mean([one.num_tokens for one in found])) / whole
        figures[f"{name}_found"] = float(np.mean([one.f1 >= best - close for one in found]))
        figures[f"{name}_loss"] = float(np.mean([best - one.f1 for one in found]))
        figures[f"{name}_tokens_share"] = share
        equal = [random_search(trials, share * whole, seed) for seed in range(num_seeds)]
        figures[f"{name}_random_equal_cost_found"] = float(
            np.mean([one.f1 >= best - close for one in equal])
        )
        figures[f"{name}_random_equal_cost_loss"] = float(np.mean([best - one.f1 for one in equal]))
    return figures


def ways(trials: Sequence[Recorded], half: int) -> dict[str, Callable[[int], Found]]:
    """The searches that are compared, by name, from a seed."""

    def sweep(factor: int, rungs: int, count: int | None = None) -> Callable[[int], Found]:
        return lambda seed: replay(trials, shuffled(trials, seed), factor, rungs, count)

    def optuna(factor: int, rungs: int) -> Callable[[int], Found]:
        return lambda seed: replay(trials, tpe(trials, seed), factor, rungs, half)

    return {
        "asha_4_rungs_2": sweep(4, 2),
        "asha_4_rungs_1": sweep(4, 1),
        "asha_2_rungs_4": sweep(2, 4),
        "asha_2_rungs_2": sweep(2, 2),
        "stopping_asha_4_rungs_2": lambda seed: replay_stopping(trials, 4, 2, seed),
        "random_half": sweep(1, 1, half),
        "random_half_asha_4_rungs_2": sweep(4, 2, half),
        "optuna_half": optuna(1, 1),
        "optuna_half_asha_4_rungs_2": optuna(4, 2),
    }


def read_trial(row: dict[str, Any]) -> Recorded:
    """A row of results.parquet."""
    point = {key: value for key, value in row.items() if key.startswith(KEYS)}
    curve = tuple((one["num_tokens"], one["f1"]) for one in row["rungs"])
    return Recorded(point, row["total_tokens"], row["f1"], curve)


def shuffled(trials: Sequence[Recorded], seed: int) -> Searcher:
    """The points in a random order."""
    points = [trial.point for trial in trials]
    random.Random(seed).shuffle(points)
    return ListSearcher(iter(points))


def tpe(trials: Sequence[Recorded], seed: int) -> Searcher:
    """Optuna over the values that were recorded."""
    values: dict[str, list[Any]] = {}
    for trial in trials:
        for key, value in trial.point.items():
            if value not in values.setdefault(key, []):
                values[key].append(value)
    space: Space = {key: Values(tuple(known)) for key, known in values.items()}
    points = [trial.point for trial in trials]
    return OptunaSearcher(
        space, problem=lambda point: None if point in points else "not recorded", seed=seed
    )


def replay(
    trials: Sequence[Recorded],
    searcher: Searcher,
    factor: int,
    num_rungs: int,
    count: int | None,
) -> Found:
    """A sweep of `WORKERS` at a time over recorded trials."""
    longest = max(trial.total_tokens for trial in trials)
    spacing = factor if factor > 1 else 2

    def recorded(point: Point) -> Recorded:
        return next(trial for trial in trials if trial.point == point)

    rungs = rung_tokens(longest, reduction_factor=spacing, num_rungs=num_rungs)
    sweep = Sweep(
        SweepRules(rungs if factor > 1 else (), factor, count, train_default=False),
        searcher,
        count_tokens=lambda point: recorded(point).total_tokens,
        default={},
    )
    running: list[tuple[int, int, Leg]] = []  # (time of its end, number, leg)
    now = number = 0
    while True:
        while len(running) < WORKERS and (leg := sweep.next_leg()) is not None:
            cost = leg.until_tokens - sweep.trials[leg.trial].num_tokens
            heapq.heappush(running, (now + cost, number, leg))
            number += 1
        if not running:
            break
        now, _, leg = heapq.heappop(running)
        score = recorded(sweep.trials[leg.trial].point).score(leg)
        sweep.record_score(leg.trial, score=score, num_tokens=leg.until_tokens)
    return Found(sweep.ranking()[0].score or 0.0, sweep.num_tokens)


def replay_stopping(trials: Sequence[Recorded], factor: int, num_rungs: int, seed: int) -> Found:
    """The stopping variant, as Ray Tune's ASHA scheduler has it: the first to come goes on.

    A trial stops at a rung where its score is below the best 1 / factor of those before it.
    """
    order = list(trials)
    random.Random(seed).shuffle(order)
    longest = max(trial.total_tokens for trial in trials)
    rungs = rung_tokens(longest, reduction_factor=factor, num_rungs=num_rungs)
    been: dict[int, list[float]] = {rung: [] for rung in rungs}
    queue = iter(order)
    running: list[tuple[int, int, Recorded, int]] = []  # time, number, trial, rung reached
    spent, best, number = 0, 0.0, 0

    def begin(trial: Recorded, rung: int, now: int) -> None:
        nonlocal number, spent
        start = min(rungs[rung - 1], trial.total_tokens) if rung else 0
        goal = rungs[rung] if rung < len(rungs) else trial.total_tokens
        cost = min(goal, trial.total_tokens) - start
        spent += cost
        number += 1
        heapq.heappush(running, (now + cost, number, trial, rung))

    for trial, _ in zip(queue, range(WORKERS), strict=False):
        begin(trial, 0, 0)
    while running:
        now, _, trial, rung = heapq.heappop(running)
        is_end = rung == len(rungs) or trial.total_tokens <= rungs[rung]
        goes_on = False
        if is_end:
            best = max(best, trial.f1)
        else:
            score = trial.score(Leg(0, rungs[rung], is_final=False))
            known = been[rungs[rung]]
            goes_on = not known or score >= float(np.percentile(known, 100 * (1 - 1 / factor)))
            known.append(score)
        if goes_on:
            begin(trial, rung + 1, now)
        elif (following := next(queue, None)) is not None:
            begin(following, 0, now)
    return Found(best, spent)


def random_search(trials: Sequence[Recorded], num_tokens: float, seed: int) -> Found:
    """As many whole trainings in a random order as so many tokens pay for, one at least."""
    order = list(trials)
    random.Random(seed).shuffle(order)
    best, spent = order[0].f1, order[0].total_tokens
    for trial in order[1:]:
        if spent + trial.total_tokens > num_tokens:
            break
        best, spent = max(best, trial.f1), spent + trial.total_tokens
    return Found(best, spent)
