"""halve: which trial trains next, and how far: asynchronous successive halving (ASHA).

Trials are compared at rungs, which are numbers of real tokens seen, so that settings whose windows
are shorter or overlap more are neither favoured nor punished. All wait at the first rung; of those
that have been at a rung, the best 1 / `reduction_factor` go on to the next, from their checkpoints.
It is the promoting variant of Li et al. (2018), algorithm 2: nothing is trained further before it
is known to be worth it. Theirs promotes as soon as it can; here that is so where a budget may end
the sweep. Without one new points come first: no worker waits, and none is promoted that later
ones outdo.

`Sweep` is told what happened and says what to do; it neither trains nor waits. All that changes it
are events, which it lists: a sweep told the same events stands where the first one stood.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from qa_core.search_space import Point, same_point
from qa_core.searching import Searcher

Kind = Literal["search", "default", "seed"]
Status = Literal["waiting", "running", "complete", "failed"]
Event = dict[str, Any]


@dataclass(frozen=True)
class SweepRules:
    """How a sweep spends its tokens; None means no limit."""

    rungs: tuple[int, ...]  # real tokens, rising
    reduction_factor: int  # of so many at a rung one goes on; 1: every trial is trained to its end
    num_trials: int | None = None  # of the search
    max_tokens: int | None = None  # real tokens trained in all
    has_deadline: bool = False  # the sweep may be stopped at any time
    train_default: bool = True  # the default setting is trained to its end, to be compared with
    num_seeds: int = 1  # trainings of the winner in all


@dataclass(frozen=True)
class Leg:
    """A trial's training up to a number of real tokens: what is done without looking at others."""

    trial: int
    until_tokens: int
    is_final: bool  # the trial is then trained to its end


@dataclass
class Trial:
    """A point and what became of it."""

    number: int  # from 0, in the order of their beginning
    point: Point
    total_tokens: int  # real ones of its whole training
    kind: Kind = "search"
    seed: int = 0  # added to the configured one
    status: Status = "waiting"
    leg: Leg | None = None  # the one it runs, or ran last
    score: float | None = None  # the latest
    rung_scores: dict[int, float] = field(default_factory=dict)  # by rung, from 1
    num_tokens: int = 0  # trained so far
    cause: str = ""  # of a failure

    @property
    def rung(self) -> int:
        """The highest rung it has a score of; 0 before the first."""
        return max(self.rung_scores, default=0)


def rung_tokens(longest: int, *, reduction_factor: int, num_rungs: int) -> tuple[int, ...]:
    """Rungs below a training of `longest` tokens, each `reduction_factor` times the one before.

    >>> rung_tokens(16_000, reduction_factor=4, num_rungs=2)
    (1000, 4000)
    """
    rungs = (longest // reduction_factor**power for power in range(num_rungs, 0, -1))
    return tuple(tokens for tokens in rungs if tokens > 0)


class Sweep:
    """The trials of a sweep: which there are, where they stand, and what to do next.

    `count_tokens` gives the real tokens of the whole training of a point; a `ValueError` it raises
    is the cause of the trial's failure. Nothing is begun any more once `is_stopped`.
    """

    def __init__(
        self,
        rules: SweepRules,
        searcher: Searcher,
        *,
        count_tokens: Callable[[Point], int],
        default: Point,
        events: Iterable[Event] = (),
    ) -> None:
        self.rules, self.searcher, self.count_tokens = rules, searcher, count_tokens
        self.default = default
        self.trials: list[Trial] = []
        self.events: list[Event] = []
        self.spare_tokens = 0  # trained in vain, by attempts that were begun again
        self.is_searched = self.is_stopped = False
        for event in events:
            if event["event"] == "trial" and event["kind"] == "search":
                searcher.adopt(event["point"])
            self._record(event)

    @property
    def is_bounded(self) -> bool:
        """Whether a budget may end the sweep before all points were begun."""
        return self.rules.max_tokens is not None or self.rules.has_deadline

    def next_leg(self) -> Leg | None:
        """What to train next, from now on running; None where nothing can begin now.

        With no trial running, None means that the sweep is over.
        """
        if self.is_stopped:
            return None
        first, second = self._new, self._promoted
        if self.is_bounded or self.rules.reduction_factor == 1:
            first, second = second, first
        leg = (
            first()
            or second()
            or self._whole_default()
            or self._best_waiting()
            or self._another_seed()
        )
        if leg is None:
            return None
        if not self._affords(leg):
            self.is_stopped = True
            return None
        self._record({"event": "leg", "trial": leg.trial, "until_tokens": leg.until_tokens})
        return leg

    def running(self) -> list[Trial]:
        """The trials in training."""
        return [trial for trial in self.trials if trial.status == "running"]

    def record_score(self, trial: int, *, score: float, num_tokens: int) -> None:
        """A trial's leg has ended, perhaps before its goal; it waits, or is complete."""
        self._record({"event": "score", "trial": trial, "score": score, "num_tokens": num_tokens})

    def record_failure(self, trial: int, cause: str) -> None:
        """A trial cannot go on; the others do."""
        self._record({"event": "failure", "trial": trial, "cause": cause})

    def record_spare(self, num_tokens: int, trial: int) -> None:
        """Tokens were trained that no trial has: an attempt of `trial` was begun again."""
        self._record({"event": "spare", "num_tokens": num_tokens, "spare_of": trial})

    @property
    def num_tokens(self) -> int:
        """Real tokens trained in all."""
        return sum(trial.num_tokens for trial in self.trials) + self.spare_tokens

    def ranking(self) -> list[Trial]:
        """The trials of the search that have scores: complete ones first, then the furthest.

        Within these the best; of equals the one of fewer tokens, then the one begun first.
        """
        ranked = [t for t in self.trials if t.kind == "search" and t.score is not None]
        return sorted(ranked, key=_standing)

    def default_trial(self) -> Trial | None:
        """The trial of the default setting, where there is one."""
        found = (t for t in self.trials if t.kind != "seed" and same_point(t.point, self.default))
        return next(found, None)

    def _record(self, event: Event) -> None:
        """Let an event happen."""
        self.events.append(event)
        match event["event"]:
            case "trial":
                values = {name: value for name, value in event.items() if name != "event"}
                self.trials.append(Trial(len(self.trials), **values))
            case "leg":
                trial = self.trials[event["trial"]]
                until = event["until_tokens"]
                trial.leg = Leg(trial.number, until, is_final=until == trial.total_tokens)
                trial.status = "running"
            case "score":
                self._take_score(self.trials[event["trial"]], event["score"], event["num_tokens"])
            case "failure":
                trial = self.trials[event["trial"]]
                trial.status, trial.cause = "failed", event["cause"]
                is_told = trial.rung_scores and self.rules.reduction_factor > 1
                if trial.kind == "search" and not is_told:
                    self.searcher.tell(trial.point, None)
            case "spare":
                self.spare_tokens += event["num_tokens"]

    def _take_score(self, trial: Trial, score: float, num_tokens: int) -> None:
        leg = trial.leg
        assert leg is not None  # a score is of a leg
        trial.score, trial.num_tokens, trial.status = score, num_tokens, "waiting"
        if num_tokens < leg.until_tokens:  # cut short: not comparable at a rung
            return
        rungs = self.rules.rungs
        rung = len(rungs) + 1 if leg.is_final else sum(tokens <= num_tokens for tokens in rungs)
        is_first = not trial.rung_scores
        trial.rung_scores[rung] = score
        ahead = sum(tokens < trial.total_tokens for tokens in rungs)
        if leg.is_final and ahead < len(rungs):  # no further than a rung: it stands there as it is
            trial.rung_scores[ahead + 1] = score
        trial.status = "complete" if leg.is_final else "waiting"
        # What all trials have: a score after as many tokens, or of their end.
        is_told = leg.is_final if self.rules.reduction_factor == 1 else is_first
        if is_told and trial.kind == "search":
            self.searcher.tell(trial.point, score)

    def _promoted(self) -> Leg | None:
        """The best trial that waits, at the highest rung where it is among those to go on."""
        for rung in range(len(self.rules.rungs), 0, -1):
            been = self._been_at(rung)
            for trial in been[: len(been) // self.rules.reduction_factor]:
                if trial.status == "waiting" and trial.rung == rung:
                    return self._leg(trial, rung)
        return None

    def _been_at(self, rung: int) -> list[Trial]:
        """The trials of the search with a score of this rung, best first."""
        been = [
            t
            for t in self.trials
            if t.kind == "search" and rung in t.rung_scores and t.status != "failed"
        ]
        return sorted(been, key=lambda t: (-t.rung_scores[rung], t.number))

    def _new(self) -> Leg | None:
        """A trial cut short before its first rung, else one of the next point."""
        for trial in self.trials:
            if trial.status == "waiting" and trial.kind == "search" and not trial.rung:
                return self._leg(trial, 0)
        while not self.is_searched:
            num_begun = sum(trial.kind == "search" for trial in self.trials)
            is_full = self.rules.num_trials is not None and num_begun >= self.rules.num_trials
            point = None if is_full else self.searcher.suggest()
            if point is None:
                self.is_searched = True
            elif (trial := self._begin(point, "search")).status != "failed":
                return self._leg(trial, 0)
        return None

    def _whole_default(self) -> Leg | None:
        """The default setting, to its end."""
        if not self.rules.train_default:
            return None
        trial = self.default_trial() or self._begin(self.default, "default")
        return self._whole(trial) if trial.status == "waiting" else None

    def _best_waiting(self) -> Leg | None:
        """Where nothing runs: the best at the highest rung, unless it has gone on from there."""
        if any(t.status == "running" and t.kind == "search" for t in self.trials):
            return None
        for rung in range(len(self.rules.rungs) + 1, 0, -1):
            been = [trial for trial in self._been_at(rung) if self._deserves(trial, rung)]
            if been:
                best = been[0]
                return self._leg(best, rung) if best.status == "waiting" else None
        return None

    def _deserves(self, trial: Trial, rung: int) -> bool:
        """Whether a trial is at a rung for its scores there and before.

        It may be there for being the default setting, or its whole training for being short.
        """
        before = [lower for lower in trial.rung_scores if lower < rung]
        if not before:
            return True
        best = self._been_at(max(before))
        if rung > len(self.rules.rungs):
            return trial in best[: max(1, len(best) // self.rules.reduction_factor)]
        return best[0] is trial or not same_point(trial.point, self.default)

    def _another_seed(self) -> Leg | None:
        """The winner with another seed, when the search is over."""
        for trial in self.trials:
            if trial.kind == "seed" and trial.status == "waiting":
                return self._whole(trial)
        winner = next(iter(self.ranking()), None)
        is_over = all(trial.kind == "seed" for trial in self.running())
        if winner is None or winner.status != "complete" or not is_over:
            return None
        seeds = [trial for trial in self.trials if trial.kind == "seed"]
        num_begun = 1 + sum(same_point(trial.point, winner.point) for trial in seeds)
        if num_begun >= self.rules.num_seeds:
            return None
        trial = self._begin(winner.point, "seed", seed=num_begun)
        return self._whole(trial) if trial.status != "failed" else None

    def _begin(self, point: Point, kind: Kind, seed: int = 0) -> Trial:
        """A trial of a point; failed already where the point cannot be trained."""
        total, cause = 0, ""
        try:
            total = self.count_tokens(point)
        except ValueError as error:
            cause = str(error)
        values = {"point": point, "total_tokens": total, "kind": kind, "seed": seed}
        self._record({"event": "trial", **values})
        trial = self.trials[-1]
        if cause:
            self.record_failure(trial.number, cause)
        return trial

    def _leg(self, trial: Trial, rung: int) -> Leg:
        """The leg of a trial that has been at `rung` to the next one, or to its end."""
        # A whole training that was cut short may stand beyond the next rung.
        ahead = [tokens for tokens in self.rules.rungs[rung:] if tokens > trial.num_tokens]
        until = min([*ahead, trial.total_tokens])
        return Leg(trial.number, until, is_final=until == trial.total_tokens)

    def _whole(self, trial: Trial) -> Leg:
        return Leg(trial.number, trial.total_tokens, is_final=True)

    def _affords(self, leg: Leg) -> bool:
        """Whether the budget has the tokens of a leg, beside those of the legs that run."""
        if self.rules.max_tokens is None:
            return True
        running = [trial.leg for trial in self.running() if trial.leg]
        planned = sum(
            max(0, one.until_tokens - self.trials[one.trial].num_tokens) for one in [leg, *running]
        )
        return self.num_tokens + planned <= self.rules.max_tokens


def _standing(trial: Trial) -> tuple[bool, int, float, int, int]:
    score = -1.0 if trial.score is None else trial.score
    return trial.status != "complete", -trial.rung, -score, trial.total_tokens, trial.number
