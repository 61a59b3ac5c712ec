"""Successive halving: what a sweep trains next, in simulated sweeps that train nothing."""

import heapq
import json
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from qa_core.errors import DataError
from qa_core.halving import Event, Leg, Sweep, SweepRules, rung_tokens
from qa_core.search_space import Point, Range, Space, Values
from qa_core.searching import ListSearcher, OptunaSearcher, Searcher, make_searcher

SPACE: Space = {"length": Values((64, 128, 256)), "stride": Values((8, 16, 32))}
TOTALS = {64: 1600, 128: 1300, 256: 1000}
DEFAULT = {"length": 128, "stride": 48}


def quality(point: Point) -> float:
    """How good a setting is, whatever it was trained on."""
    return point["length"] / 10 + point["stride"] / 100


def points() -> Iterator[Point]:
    """The grid in a mixed order."""
    grid = [{"length": a, "stride": b} for a in TOTALS for b in (8, 16, 32)]
    random.Random(3).shuffle(grid)
    return iter(grid)


def count_tokens(point: Point) -> int:
    """Tokens of a whole training."""
    return TOTALS[point["length"]]


def make_sweep(
    rules: SweepRules | None = None,
    searcher: Searcher | None = None,
    *,
    count: Callable[[Point], int] = count_tokens,
    events: Sequence[Event] = (),
) -> Sweep:
    """A sweep of the grid, as the arguments have it."""
    rules = rules or SweepRules((100, 400), 4, train_default=False)
    searcher = searcher or ListSearcher(points())
    return Sweep(rules, searcher, count_tokens=count, default=DEFAULT, events=events)


def simulate(
    sweep: Sweep,
    *,
    num_workers: int = 1,
    seed: int = 0,
    until: int = 10**6,
    noise: float = 0.0,
    watch: Callable[[Leg], None] = lambda leg: None,
) -> list[Leg]:
    """Run a sweep on so many workers, at most `until` legs; the legs in the order of their ends.

    A leg takes a random time; its score is the quality of its point, with noise.
    """
    choose = random.Random(seed)
    running = [(choose.random(), t.leg) for t in sweep.running() if t.leg]
    running = [(when, number, leg) for number, (when, leg) in enumerate(running)]
    ended: list[Leg] = []
    number, now = len(running), 0.0
    while len(ended) < until:
        while len(running) < num_workers and (leg := sweep.next_leg()) is not None:
            watch(leg)
            running.append((now + choose.random(), number, leg))
            number += 1
        heapq.heapify(running)
        if not running:
            break
        now, _, leg = heapq.heappop(running)
        score = quality(sweep.trials[leg.trial].point) + choose.gauss(0, noise)
        sweep.record_score(leg.trial, score=score, num_tokens=leg.until_tokens)
        ended.append(leg)
    return ended


def finals(sweep: Sweep) -> dict[int, float | None]:
    """The complete trials and their scores."""
    return {t.number: t.score for t in sweep.trials if t.status == "complete"}


@pytest.mark.parametrize("num_workers", [1, 2, 5])
@pytest.mark.parametrize("seed", range(8))
def test_the_best_is_found_whatever_order_legs_end_in(num_workers: int, seed: int) -> None:
    """Without noise the complete trial is the best of all, and little is trained."""
    sweep = make_sweep()
    legs = simulate(sweep, num_workers=num_workers, seed=seed)
    best = sweep.ranking()[0]
    assert best.point == {"length": 256, "stride": 32}
    assert best.status == "complete"
    assert len(sweep.trials) == 9
    assert sweep.num_tokens < 0.3 * sum(map(count_tokens, points()))
    ends = [(leg.trial, leg.until_tokens) for leg in legs]
    assert len(set(ends)) == len(ends)
    assert {leg.until_tokens for leg in legs} <= {100, 400, *TOTALS.values()}


@pytest.mark.parametrize("seed", range(20))
def test_only_the_best_part_of_a_rung_goes_on(seed: int) -> None:
    """At the time of its promotion a trial is among the best quarter of those at its rung."""
    sweep = make_sweep()
    seen = []

    def watch(leg: Leg) -> None:
        trial = sweep.trials[leg.trial]
        if not trial.rung:
            return
        been = [t for t in sweep.trials if trial.rung in t.rung_scores]
        better = sum(t.rung_scores[trial.rung] > trial.rung_scores[trial.rung] for t in been)
        is_last = not [t for t in sweep.running() if t is not trial]
        seen.append(trial.number)
        assert better < max(len(been) // 4, 1 if is_last else 0)

    simulate(sweep, num_workers=3, seed=seed, noise=5, watch=watch)
    assert len(seen) >= 2
    assert finals(sweep)


@pytest.mark.parametrize("num_workers", [1, 3])
def test_all_are_compared_before_one_goes_on(num_workers: int) -> None:
    """Without a budget at most the best two of nine go on, and one of these to its end."""
    sweep = make_sweep()
    legs = simulate(sweep, num_workers=num_workers, noise=5)
    assert [leg.until_tokens for leg in legs].count(400) == 2
    assert [trial.rung for trial in sweep.trials].count(1) == 7
    assert len(finals(sweep)) == 1


def test_with_a_deadline_trials_go_on_as_soon_as_they_can() -> None:
    """So that something is complete early: the first goes on when four were compared."""
    sweep = make_sweep(SweepRules((100, 400), 4, train_default=False, has_deadline=True))
    legs = simulate(sweep, until=5)
    assert [leg.until_tokens for leg in legs] == [100, 100, 100, 100, 400]


def test_no_trial_goes_on_before_four_were_compared() -> None:
    """The first to come has no advantage over those that come later."""
    sweep = make_sweep()
    simulate(sweep, until=3)
    assert [trial.rung for trial in sweep.trials] == [1, 1, 1]
    assert sweep.next_leg() == Leg(3, 100, is_final=False)


def test_without_halving_every_trial_is_trained_to_its_end() -> None:
    """Scored at the rungs on its way; the searcher is told of ends alone."""
    told = []

    class Listening(ListSearcher):
        def tell(self, point: Point, score: float | None) -> None:
            told.append((point["length"], score))

    sweep = make_sweep(SweepRules((100, 400), 1, train_default=False), Listening(points()))
    simulate(sweep, num_workers=2)
    assert len(finals(sweep)) == len(told) == 9
    assert all(sorted(trial.rung_scores) == [1, 2, 3] for trial in sweep.trials)
    assert sweep.num_tokens == sum(map(count_tokens, points()))
    assert sweep.next_leg() is None


def test_rungs_are_a_factor_apart() -> None:
    """Below the longest training; those of no tokens are left out."""
    assert rung_tokens(1000, reduction_factor=10, num_rungs=2) == (10, 100)
    assert rung_tokens(1000, reduction_factor=10, num_rungs=5) == (1, 10, 100)


def test_a_short_training_ends_at_its_own_end() -> None:
    """Where a rung is beyond it, it is complete."""
    sweep = make_sweep(SweepRules((100, 1200), 4, train_default=False))
    simulate(sweep)
    best = sweep.ranking()[0]
    assert best.num_tokens == best.total_tokens == 1000
    assert best.status == "complete"


def test_the_default_setting_is_trained_to_its_end_beside_the_search() -> None:
    """It neither counts as a trial of the search nor wins it."""
    sweep = make_sweep(SweepRules((100, 400), 4))
    simulate(sweep, num_workers=2)
    default = sweep.default_trial()
    assert default is not None
    assert (default.kind, default.status) == ("default", "complete")
    assert default not in sweep.ranking()
    assert sum(trial.kind == "search" for trial in sweep.trials) == 9
    assert sweep.ranking()[0].status == "complete"


@pytest.mark.parametrize("default", [{"length": 64, "stride": 8}, {"length": 256, "stride": 32}])
def test_a_default_setting_in_the_grid_is_trained_once(default: Point) -> None:
    """To its end, wherever it stands; the best is trained to its end all the same."""
    sweep = Sweep(
        SweepRules((100, 400), 4),
        ListSearcher(points()),
        count_tokens=count_tokens,
        default=default,
    )
    legs = simulate(sweep, num_workers=2)
    assert len(sweep.trials) == 9
    trial = sweep.default_trial()
    assert trial is not None
    assert trial.status == "complete"
    assert sweep.ranking()[0].point == {"length": 256, "stride": 32}
    assert sweep.ranking()[0].status == "complete"
    assert len({(leg.trial, leg.until_tokens) for leg in legs}) == len(legs)


def test_the_winner_is_trained_with_more_seeds_after_the_search() -> None:
    """Two more for three in all, to their end, of the winner's point."""
    sweep = make_sweep(SweepRules((100, 400), 4, train_default=False, num_seeds=3))
    legs = simulate(sweep, num_workers=2)
    seeds = [trial for trial in sweep.trials if trial.kind == "seed"]
    assert [trial.seed for trial in seeds] == [1, 2]
    assert {trial.number for trial in seeds} == {leg.trial for leg in legs[-2:]}
    assert all(trial.point == sweep.ranking()[0].point for trial in seeds)
    assert all(trial.status == "complete" for trial in seeds)


@pytest.mark.parametrize("num_workers", [1, 3])
@pytest.mark.parametrize("budget", [50, 350, 1000, 2500, 10**6])
def test_a_budget_of_tokens_is_kept(budget: int, num_workers: int) -> None:
    """What runs is counted too; nothing is begun that would go beyond."""
    sweep = make_sweep(SweepRules((100, 400), 4, max_tokens=budget, num_seeds=2))
    simulate(sweep, num_workers=num_workers)
    assert sweep.num_tokens <= budget
    assert sweep.is_stopped == (budget < 10**6)
    assert sweep.next_leg() is None
    assert bool(sweep.ranking()) == (budget >= 100)


def test_a_number_of_trials_is_kept() -> None:
    """Of the search."""
    sweep = make_sweep(SweepRules((100, 400), 4, num_trials=5, num_seeds=2))
    simulate(sweep)
    kinds = [trial.kind for trial in sweep.trials]
    assert [kinds.count(kind) for kind in ("search", "default", "seed")] == [5, 1, 1]


def test_what_cannot_be_trained_fails_with_its_cause() -> None:
    """And is told to the searcher; the others are trained."""
    told = []

    class Listening(ListSearcher):
        def tell(self, point: Point, score: float | None) -> None:
            told.append(score)

    def count(point: Point) -> int:
        if point["stride"] == 16:
            raise DataError("broken", "file.json")
        return count_tokens(point)

    sweep = make_sweep(searcher=Listening(points()), count=count)
    simulate(sweep)
    failed = [trial for trial in sweep.trials if trial.status == "failed"]
    assert [trial.cause for trial in failed] == ["file.json: broken"] * 3
    assert told.count(None) == 3
    assert sweep.ranking()[0].point == {"length": 256, "stride": 32}


def test_a_trial_that_fails_at_a_rung_is_out_of_the_comparison() -> None:
    """The best one fails on its way; the next best wins."""
    sweep = make_sweep()
    while (leg := sweep.next_leg()) is not None:
        trial = sweep.trials[leg.trial]
        if trial.point == {"length": 256, "stride": 32} and trial.rung:
            sweep.record_failure(leg.trial, "diverged")
        else:
            score = quality(trial.point)
            sweep.record_score(leg.trial, score=score, num_tokens=leg.until_tokens)
    assert finals(sweep)
    winner = sweep.ranking()[0]
    assert winner.point == {"length": 256, "stride": 16}
    assert winner.status == "complete"


def test_a_leg_cut_short_is_no_score_of_its_rung() -> None:
    """It is trained on from where it was, before anything new."""
    sweep = make_sweep()
    leg = sweep.next_leg()
    assert leg == Leg(0, 100, is_final=False)
    sweep.record_score(0, score=99.0, num_tokens=60)
    assert sweep.trials[0].rung == 0
    assert sweep.trials[0].score == 99.0
    assert sweep.next_leg() == leg
    simulate(sweep)
    assert sweep.ranking()[0].status == "complete"


def test_tokens_trained_in_vain_count() -> None:
    """Attempts that were begun again."""
    sweep = make_sweep()
    sweep.next_leg()
    sweep.record_spare(70, 0)
    sweep.record_score(0, score=1.0, num_tokens=100)
    assert sweep.num_tokens == 170
    assert make_sweep(events=sweep.events).num_tokens == 170


def searchers() -> dict[str, Callable[[], Searcher]]:
    """Fresh searchers of every kind over one space."""
    space: Space = {**SPACE, "rate": Range(1e-5, 1e-3, is_log=True)}

    def problem(point: Point) -> str | None:
        return "too large" if point["stride"] * 4 > point["length"] else None

    return {
        "grid": lambda: make_searcher("grid", SPACE, problem=problem, seed=0),
        "random": lambda: make_searcher("random", space, problem=problem, seed=0),
        "optuna": lambda: make_searcher("optuna", space, problem=problem, seed=0),
    }


@pytest.mark.parametrize("kind", ["grid", "random", "optuna"])
def test_a_sweep_continued_at_any_event_ends_alike(kind: str) -> None:
    """With one worker: the same events as if it had not been interrupted, for every prefix."""
    rules = SweepRules((100, 400), 4, num_trials=8, num_seeds=2)
    make = searchers()[kind]
    alone = make_sweep(rules, make())
    simulate(alone)
    assert len(alone.events) > 20
    for length in range(len(alone.events)):
        again = make_sweep(rules, make(), events=alone.events[:length])
        simulate(again)
        assert again.events == alone.events
    assert make_sweep(rules, make(), events=alone.events).next_leg() is None


@pytest.mark.parametrize("kind", ["grid", "random", "optuna"])
@pytest.mark.parametrize("seed", range(5))
def test_an_interrupted_sweep_of_many_workers_trains_nothing_twice(kind: str, seed: int) -> None:
    """Whatever was running is finished, and no leg is scored a second time."""
    rules = SweepRules((100, 400), 4, num_trials=8)
    make = searchers()[kind]
    first = make_sweep(rules, make())
    simulate(first, num_workers=3, seed=seed, until=6, noise=3)
    first.next_leg()
    again = make_sweep(rules, make(), events=first.events)
    assert [t.leg for t in again.running()] == [t.leg for t in first.running()]
    simulate(again, num_workers=3, seed=seed, noise=3)
    assert again.events[: len(first.events)] == first.events
    scores = [(e["trial"], e["num_tokens"]) for e in again.events if e["event"] == "score"]
    assert len(set(scores)) == len(scores)
    assert finals(again)
    assert not again.running()


def test_a_searcher_told_another_history_goes_on() -> None:
    """Optuna adopts points that it would not have asked for itself."""
    space = {"rate": Range(0.0, 1.0)}
    searcher = OptunaSearcher(space, problem=lambda point: None, seed=0)
    foreign: dict[str, Any] = {"rate": 0.123456}
    searcher.adopt(foreign)
    searcher.tell(foreign, 1.0)
    assert searcher.study.best_params == {"rate": 0.123456}
    assert searcher.suggest() != foreign


RULES = SweepRules((100, 400), 3, train_default=True, num_seeds=3)
INSIDE = {"length": 128, "stride": 16}  # a point of the grid


def breaking_count(point: Point) -> int:
    """Two points of the grid cannot be trained."""
    if point["length"] == 64 and point["stride"] != 16:
        raise DataError("no room", "features.doc_stride")
    return count_tokens(point)


def rough_ride(sweep: Sweep, *, num_workers: int, seed: int) -> list[tuple[Leg, int]]:
    """A sweep where legs end in any order, some cut short, some failing, some begun again.

    The legs in the order they began, each with the tokens its trial had then.
    """
    choose = random.Random(seed)
    begun: list[tuple[Leg, int]] = []
    while True:
        while len(sweep.running()) < num_workers and (leg := sweep.next_leg()) is not None:
            begun.append((leg, sweep.trials[leg.trial].num_tokens))
        if not sweep.running():
            return begun
        trial = choose.choice(sweep.running())
        assert trial.leg is not None
        until, chance = trial.leg.until_tokens, choose.random()
        if chance < 0.1:
            sweep.record_failure(trial.number, "its process died")
            continue
        if chance < 0.3 and trial.num_tokens + 10 < until:
            until = choose.randrange(trial.num_tokens + 10, until)
        if chance > 0.9:
            sweep.record_spare(10, trial.number)
        score = quality(trial.point) + choose.gauss(0, 3)
        sweep.record_score(trial.number, score=score, num_tokens=until)


@pytest.mark.parametrize("default", [DEFAULT, INSIDE])
@pytest.mark.parametrize("num_workers", [1, 2, 4])
@pytest.mark.parametrize("seed", range(15))
def test_whatever_happens_every_leg_goes_forward(
    default: Point, num_workers: int, seed: int
) -> None:
    """Legs begin where their trials stand, end at a rung or the end, and none is left waiting."""
    sweep = Sweep(RULES, ListSearcher(points()), count_tokens=breaking_count, default=default)
    legs = rough_ride(sweep, num_workers=num_workers, seed=seed)
    assert len(legs) > 9
    for leg, stood in legs:
        total = sweep.trials[leg.trial].total_tokens
        assert stood < leg.until_tokens <= total
        assert leg.until_tokens in (*RULES.rungs, total)
        assert leg.is_final == (leg.until_tokens == total)
    assert sweep.next_leg() is None
    assert all(trial.num_tokens <= trial.total_tokens for trial in sweep.trials)
    assert sweep.num_tokens == sum(t.num_tokens for t in sweep.trials) + sweep.spare_tokens
    searched = [trial for trial in sweep.trials if trial.kind == "search"]
    assert len(searched) == 9
    assert all(trial.rung or trial.status == "failed" for trial in searched)
    assert all(trial.cause for trial in sweep.trials if trial.status == "failed")
    if any(trial.status != "failed" for trial in searched):
        assert any(trial.status == "complete" for trial in searched)
    defaults = [t for t in sweep.trials if t.kind != "seed" and t.point == default]
    assert len(defaults) == 1
    assert defaults[0].status in ("complete", "failed")


@pytest.mark.parametrize("seed", range(20))
def test_only_those_among_the_best_go_on_whatever_happens(seed: int) -> None:
    """Each leg beyond a rung is of the best third there, of the default, or of the best left."""
    sweep = Sweep(RULES, ListSearcher(points()), count_tokens=breaking_count, default=INSIDE)
    next_leg, seen = sweep.next_leg, []

    def watched() -> Leg | None:
        is_idle = not [t for t in sweep.running() if t.kind == "search"]
        leg = next_leg()
        trial = sweep.trials[leg.trial] if leg else None
        if trial is None or trial.kind != "search" or not trial.rung or trial.point == INSIDE:
            return leg
        here = [
            t.rung_scores[trial.rung]
            for t in sweep.trials
            if trial.rung in t.rung_scores and t.status != "failed"
        ]
        better = sum(score > trial.rung_scores[trial.rung] for score in here)
        best_left = is_idle and trial.rung == max(
            t.rung for t in sweep.trials if t.status == "waiting" or t is trial
        )
        assert better < len(here) // 3 or best_left
        seen.append(trial.number)
        return leg

    sweep.next_leg = watched  # type: ignore[method-assign]
    rough_ride(sweep, num_workers=3, seed=seed)
    assert seen


def test_a_whole_training_cut_short_beyond_a_rung_is_not_sent_back() -> None:
    """The default, at 700 of 1300 tokens, was promoted from rung 1 to 400 tokens."""
    sweep = Sweep(RULES, ListSearcher(points()), count_tokens=count_tokens, default=INSIDE)
    while (leg := sweep.next_leg()) is not None:
        trial = sweep.trials[leg.trial]
        assert leg.until_tokens > trial.num_tokens
        is_cut = trial.point == INSIDE and leg.is_final and trial.num_tokens < 700
        score = 1000.0 if trial.point == INSIDE else quality(trial.point)
        sweep.record_score(leg.trial, score=score, num_tokens=700 if is_cut else leg.until_tokens)
    default = sweep.default_trial()
    assert default is not None
    assert (default.status, default.num_tokens) == ("complete", 1300)


@pytest.mark.parametrize("kind", ["grid", "random", "optuna"])
def test_a_sweep_with_failures_is_continued_at_any_event(kind: str) -> None:
    """Points that cannot be trained, and a process that died, are not tried again.

    A trial that cannot be trained and its failure are written together, so no cut lies between.
    """
    rules = SweepRules((100, 400), 3, num_trials=8, num_seeds=2)
    make = searchers()[kind]

    def sweep_from(events: Sequence[Event]) -> Sweep:
        return Sweep(rules, make(), count_tokens=count, default=INSIDE, events=events)

    def count(point: Point) -> int:
        if point["stride"] == 8 and point["length"] != 128:
            raise DataError("no room", "features.doc_stride")
        return count_tokens(point)

    def finish(sweep: Sweep) -> None:
        while (legs := [t.leg for t in sweep.running()] or [sweep.next_leg()]) != [None]:
            for leg in filter(None, legs):
                trial = sweep.trials[leg.trial]
                if leg.until_tokens == 400 and leg.trial % 2:
                    sweep.record_failure(leg.trial, "its process died")
                    continue
                score = quality(trial.point)
                sweep.record_score(leg.trial, score=score, num_tokens=leg.until_tokens)

    alone = sweep_from([])
    finish(alone)
    statuses = [trial.status for trial in alone.trials]
    assert "failed" in statuses
    assert "complete" in statuses
    num_cut = 0
    for length in range(len(alone.events) + 1):
        is_pair = [e["event"] for e in alone.events[length - 1 : length + 1]] == [
            "trial",
            "failure",
        ]
        if is_pair:
            continue
        again = sweep_from(json.loads(json.dumps(alone.events[:length])))
        finish(again)
        assert again.events == alone.events
        num_cut += 1
    assert num_cut > 15


@pytest.mark.parametrize("kind", ["grid", "random", "optuna"])
def test_many_workers_interrupted_at_any_event_finish_what_they_began(kind: str) -> None:
    """For every prefix: the trials begun are the same, and no trial ends twice."""
    rules = SweepRules((100, 400), 3, num_trials=8, num_seeds=2)
    make = searchers()[kind]
    first = make_sweep(rules, make())
    simulate(first, num_workers=3, seed=1, noise=3)
    assert len(first.events) > 25
    for length in range(len(first.events)):
        kept = first.events[:length]
        again = make_sweep(rules, make(), events=kept)
        begun = [trial.point for trial in again.trials]
        simulate(again, num_workers=3, seed=length, noise=3)
        assert [trial.point for trial in again.trials[: len(begun)]] == begun
        assert begun == [trial.point for trial in first.trials[: len(begun)]]
        searched = [str(t.point) for t in again.trials if t.kind == "search"]
        assert len(set(searched)) == len(searched)
        scored = [e for e in again.events if e["event"] == "score"]
        ends = [
            e["trial"] for e in scored if e["num_tokens"] == again.trials[e["trial"]].total_tokens
        ]
        assert ends
        assert len(set(ends)) == len(ends)
        assert not again.running()


def test_without_rungs_every_trial_is_trained_to_its_end() -> None:
    """In one leg."""
    sweep = make_sweep(SweepRules((), 4, train_default=False))
    legs = simulate(sweep, num_workers=2)
    assert len(legs) == 9
    assert all(leg.is_final for leg in legs)
    assert len(finals(sweep)) == 9
    assert sweep.ranking()[0].point == {"length": 256, "stride": 32}


def test_seeds_of_an_earlier_winner_do_not_count() -> None:
    """A finished sweep that goes on with more trials trains its new winner as often."""
    searcher = [{"length": 64, "stride": 8}, {"length": 256, "stride": 32}]
    less, more = (SweepRules((), 4, num_trials=n, train_default=False, num_seeds=3) for n in (1, 2))
    first = make_sweep(less, ListSearcher(iter(searcher)))
    simulate(first)
    again = make_sweep(more, ListSearcher(iter(searcher)), events=first.events)
    simulate(again)
    seeds = [(t.point["length"], t.seed) for t in again.trials if t.kind == "seed"]
    assert seeds == [(64, 1), (64, 2), (256, 1), (256, 2)]


def test_seeds_that_fail_are_not_begun_for_ever() -> None:
    """Each once, and the winner stays."""
    sweep = make_sweep(SweepRules((100,), 4, train_default=False, num_seeds=3))
    while (leg := sweep.next_leg()) is not None:
        trial = sweep.trials[leg.trial]
        if trial.kind == "seed":
            sweep.record_failure(leg.trial, "diverged")
        else:
            score = quality(trial.point)
            sweep.record_score(leg.trial, score=score, num_tokens=leg.until_tokens)
    assert [t.status for t in sweep.trials if t.kind == "seed"] == ["failed", "failed"]
    assert sweep.ranking()[0].status == "complete"


@pytest.mark.parametrize("is_default", [True, False])
def test_a_sweep_where_nothing_can_be_trained_ends(is_default: bool) -> None:
    """Every trial failed with its cause, none is ranked, no tokens are spent."""

    def count(point: Point) -> int:
        raise DataError("no room")

    rules = SweepRules((100, 400), 4, train_default=is_default, num_seeds=3)
    sweep = make_sweep(rules, count=count)
    assert simulate(sweep, num_workers=2) == []
    assert [trial.cause for trial in sweep.trials] == ["no room"] * (9 + is_default)
    assert sweep.ranking() == []
    assert sweep.num_tokens == 0


def test_a_sweep_whose_trials_all_fail_in_training_ends() -> None:
    """The searcher hears of each failure once."""
    told = []

    class Listening(ListSearcher):
        def tell(self, point: Point, score: float | None) -> None:
            told.append(score)

    sweep = make_sweep(RULES, Listening(points()))
    while (leg := sweep.next_leg()) is not None:
        sweep.record_failure(leg.trial, "its process died")
    assert told == [None] * 9
    assert {trial.status for trial in sweep.trials} == {"failed"}
    assert len(sweep.trials) == 10


def test_a_stopped_sweep_begins_nothing_and_goes_on_with_more_tokens() -> None:
    """What runs when the budget is used up is scored; a trial without its leg comes first later."""
    small = SweepRules((100, 400), 4, max_tokens=250, train_default=False)
    sweep = make_sweep(small)
    first, second = sweep.next_leg(), sweep.next_leg()
    assert sweep.next_leg() is None
    assert sweep.is_stopped
    for leg in (first, second):
        assert leg is not None
        sweep.record_score(leg.trial, score=1.0, num_tokens=leg.until_tokens)
    assert sweep.next_leg() is None
    assert [trial.num_tokens for trial in sweep.trials] == [100, 100, 0]
    again = make_sweep(events=sweep.events)
    assert again.next_leg() == Leg(2, 100, is_final=False)
    simulate(again)
    assert len(again.trials) == 9
    assert finals(again)


def test_of_equal_scores_the_cheaper_trial_ranks_first() -> None:
    """Then the one begun first; one that is complete before any that is not."""
    sweep = make_sweep(SweepRules((), 4, train_default=False))
    while (leg := sweep.next_leg()) is not None:
        sweep.record_score(leg.trial, score=50.0, num_tokens=leg.until_tokens)
    ranking = [(trial.total_tokens, trial.number) for trial in sweep.ranking()]
    assert len(ranking) == 9
    assert ranking == sorted(ranking)
    halved = make_sweep()
    simulate(halved, noise=20)
    standing = [(t.status != "complete", -t.rung) for t in halved.ranking()]
    assert len(standing) == 9
    assert standing == sorted(standing)


@pytest.mark.parametrize("short", [90, 300, 400])
def test_a_short_training_does_not_end_the_search(short: int) -> None:
    """As with one epoch beside four: no other has scored more after at least as many tokens.

    One that ends below a rung scores 40 at its end. Longer ones score 60 and more at that rung,
    of as many tokens: the best of them goes on.
    """

    def count(point: Point) -> int:
        return short if point["length"] == 64 else 1600

    sweep = make_sweep(SweepRules((100, 400), 4, train_default=False), count=count)
    while (leg := sweep.next_leg()) is not None:
        point = sweep.trials[leg.trial].point
        score = 50 + quality(point)
        if point["length"] == 64:
            score = 40 if leg.is_final else 90.0 * (point["stride"] == 32)
        sweep.record_score(leg.trial, score=score, num_tokens=leg.until_tokens)
    winner = sweep.ranking()[0]
    assert winner.score is not None
    beaten_by = [
        trial.point
        for trial in sweep.trials
        if trial.score is not None
        and trial.score > winner.score
        and trial.num_tokens >= winner.num_tokens
    ]
    assert beaten_by == []
