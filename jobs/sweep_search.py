"""Between `qa_core.halving.Sweep`, which decides, and Ray Tune, which runs what is decided.

To Ray Tune every leg is a trial of its own that ends by itself: nothing is killed to be stopped,
and nothing but `events.jsonl` need be kept to continue a sweep.
"""

import json
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from jobs.cluster import count_trials
from jobs.configuration import ScalingSettings
from jobs.sweep_inputs import SweepInputs
from jobs.trial import describe_leg
from qa_core.halving import Event, Leg, Sweep
from qa_core.storage import is_file, join, read_bytes, write_json_lines

EVENTS = "events.jsonl"
SECONDS_BETWEEN_COUNTS = 5.0  # of the cluster's resources, which may grow
# Before a leg whose process died is begun again, times the attempt: a lost node must be given up
# first, or its processes would be asked once more and the attempts used up within a second.
SECONDS_TO_TRY_AGAIN = 15.0


class NewestFirst(FIFOScheduler):  # type: ignore[misc]  # Ray has no types here
    """Gives a process that has become free to the leg that was suggested last.

    In the order of submission it would go to the leg whose own process is still being started, and
    Ray Tune would end that one: where legs end more often than a process takes to start, a node
    that has joined late never has work.
    """

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """The newest of Ray Tune's trials that wait; legs are never paused."""
        trials = reversed(tune_controller.get_trials())
        return next((trial for trial in trials if trial.status == Trial.PENDING), None)


class SweepSearch(Searcher):  # type: ignore[misc]  # Ray has no types here
    """Gives Ray Tune the next leg whenever there is room for one."""

    def __init__(
        self,
        sweep: Sweep,
        inputs: SweepInputs,
        *,
        run: str,
        room: "Room",
        deadline: float | None,
        told: Callable[[Event], None],
        max_failures: int = 0,
        pause_seconds: float = SECONDS_TO_TRY_AGAIN,
    ) -> None:
        super().__init__(metric="num_tokens", mode="max")
        self.sweep, self.inputs, self.run = sweep, inputs, run
        self.room, self.deadline, self.told = room, deadline, told
        self.max_failures, self.pause_seconds = max_failures, pause_seconds
        self.num_deaths: Counter[Leg] = Counter()
        self.again: list[tuple[float, Leg]] = []  # when to begin legs whose process died
        self.num_told = len(sweep.events)
        # Legs that an earlier submission had begun are done first.
        self.left: list[Leg] = [trial.leg for trial in sweep.running() if trial.leg]
        if not self.left and (first := sweep.next_leg()) is not None:
            self.left.append(first)
        self.legs: dict[str, Leg] = {}  # of Ray Tune's trials

    def has_work(self) -> bool:
        """Whether there is anything to train."""
        return bool(self.left)

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next leg; None while there is no room or none can begin; FINISHED at the end."""
        if self.deadline is not None and time.time() > self.deadline:
            self.sweep.is_stopped = True
            self.left.clear()
            self.again.clear()
        if len(self.legs) >= self.room.count():
            return None
        leg = self._due() or (self.left.pop(0) if self.left else self.sweep.next_leg())
        self._keep()
        if leg is None:
            finished: str = Searcher.FINISHED
            return None if self.legs or self.again else finished
        self.legs[trial_id] = leg
        trial = self.sweep.trials[leg.trial]
        inputs = self.inputs.describe(trial.point)
        return {"leg": describe_leg(leg, trial.point, trial.seed, inputs)}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """A leg has ended; without a result its process has died."""
        leg = self.legs.pop(trial_id)
        if error or result is None:
            self._count_death(leg)
        elif "failure" in result:
            self.sweep.record_failure(leg.trial, result["failure"])
        else:
            score, tokens = result["score"], result["num_tokens"]
            self.sweep.record_score(leg.trial, score=score, num_tokens=tokens)
            self._count_spare(leg.trial, result["spare_tokens"])
        self._keep()

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Ray Tune keeps its own parts by pickling them, and never needs this one."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the events say it all, and are kept when they happen."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing; see `save`."""

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Nothing; see `save`."""

    def _count_death(self, leg: Leg) -> None:
        """Have a leg begun again in a while, or give its trial up."""
        self.num_deaths[leg] += 1
        deaths = self.num_deaths[leg]
        if deaths > self.max_failures:
            self.sweep.record_failure(leg.trial, "its process died, each time it was begun")
            return
        pause = self.pause_seconds * deaths
        self.again.append((time.monotonic() + pause, leg))
        cause = f"its process died; begun again in {pause:.0f} s ({deaths} of {self.max_failures})"
        self.told({"event": "death", "trial": leg.trial, "cause": cause})

    def _due(self) -> Leg | None:
        """The first leg that has waited long enough since its process died."""
        for place, (when, leg) in enumerate(self.again):
            if time.monotonic() >= when:
                del self.again[place]
                return leg
        return None

    def _count_spare(self, trial: int, spare_tokens: int) -> None:
        """Count the tokens of attempts that ran out of memory, once."""
        known = sum(e["num_tokens"] for e in self.sweep.events if e.get("spare_of") == trial)
        if spare_tokens > known:
            self.sweep.record_spare(spare_tokens - known, trial)

    def _keep(self) -> None:
        """Write the events where there are new ones, and tell of them."""
        events = self.sweep.events
        if len(events) > self.num_told:
            write_json_lines(join(self.run, EVENTS), events)
            for event in events[self.num_told :]:
                self.told(event)
            self.num_told = len(events)


def read_events(run: str) -> list[Event]:
    """What has happened in a sweep so far."""
    file = join(run, EVENTS)
    if not is_file(file):
        return []
    return [json.loads(line) for line in read_bytes(file).split(b"\n")[:-1]]


class Room:
    """How many trials the cluster can train at once, looked up now and then."""

    def __init__(self, scaling: ScalingSettings, *, use_gpu: bool, most: int | None) -> None:
        self.scaling, self.use_gpu, self.most = scaling, use_gpu, most
        self.counted = -SECONDS_BETWEEN_COUNTS
        self.number = 0

    def count(self) -> int:
        """Trials at once, one at least."""
        if time.monotonic() - self.counted >= SECONDS_BETWEEN_COUNTS:
            number = max(1, count_trials(self.scaling, use_gpu=self.use_gpu))
            self.number = number if self.most is None else min(self.most, number)
            self.counted = time.monotonic()
        return self.number
