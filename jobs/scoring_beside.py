"""Scoring of a training's checkpoints while the next steps run, and what follows from scores.

A thread of the driver looks for new checkpoints, has one at a time scored by a remote task, stops
the training where its scores no longer rise, and removes checkpoints nothing needs any more.
"""

import json
import threading
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import ray
import ray.data
from rich.markup import escape

from jobs.cluster import console, quiet_data, this_node
from jobs.console import warn
from jobs.shard_scoring import METRICS, SCORING, read_curve, score_checkpoint
from jobs.training_worker import STOP_FILE, TrainTask
from qa_core.checkpoints import (
    CHECKPOINTS,
    CheckpointFacts,
    checkpoints_to_remove,
    find_checkpoints,
    remove_checkpoint,
)
from qa_core.errors import QAError, first_line
from qa_core.run_files import SECONDS
from qa_core.storage import is_file, join, read_bytes, write_bytes

POLL_SECONDS = 1.0


# It only waits for the pipeline it starts, which asks for CPUs of its own.
@ray.remote(num_cpus=0)  # type: ignore[untyped-decorator]  # Ray's types do not hold under strict
def score_remotely(task: TrainTask, facts: CheckpointFacts) -> dict[str, Any]:
    """`score_checkpoint` in a process of its own: the driver outlives what it may die of."""
    quiet_data(has_bars=False)
    # With every CPU in training, scoring waits for its end, however long that is.
    ray.data.DataContext.get_current().execution_no_progress_timeout_s = -1
    return score_checkpoint(task.run, task.dev, facts, config=task.config, use_gpu=task.use_gpu)


class ScoringBeside:
    """Scores checkpoints as they come, from `with` until all there are have been scored."""

    def __init__(self, task: TrainTask) -> None:
        self.task = task
        self.root = join(task.run, CHECKPOINTS)
        self.failed: set[int] = set()  # steps whose scoring failed; tried again at the end
        self.curve: list[dict[str, Any]] | None = None  # what is scored so far
        self.is_training = threading.Event()
        self.is_aborted = False
        self.thread = threading.Thread(target=self._watch, name="scoring", daemon=True)

    def __enter__(self) -> "ScoringBeside":
        self._remove_scratch()
        self.is_training.set()
        self.thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.is_aborted = error is not None
        self.is_training.clear()
        self.thread.join()
        self._remove_scratch()

    def _remove_scratch(self) -> None:
        """Remove what was being written when a process was killed; nobody writes at the moment."""
        for name in find_checkpoints(self.root)[1]:
            if name.startswith("."):
                console.print(f"Removing half-written checkpoint {escape(name)}")
                remove_checkpoint(self.root, name)

    def _watch(self) -> None:
        while True:
            was_training = self.is_training.is_set()
            try:
                did = self._look()
            except (QAError, OSError, ray.exceptions.RayError) as error:
                warn(f"checkpoints could not be looked through ({first_line(error)})")
                did = False
            if self.is_aborted or not (did or was_training):
                return
            if not did:
                time.sleep(POLL_SECONDS)

    def _look(self) -> bool:
        """Score the next checkpoint, or see that there is none; then tidy up."""
        whole, _ = find_checkpoints(self.root)
        todo = [facts for facts in whole if self._is_due(facts)]
        if todo:
            self._score(todo[0])
        if todo or self.curve is None:
            self.curve = read_curve(self.task.run)
        curve = self.curve
        step = stop_step(curve, self.task.config.train.early_stopping_patience)
        if step is not None and not is_file(join(self.task.run, STOP_FILE)):
            console.print(f"No higher F1 at the last scores: stopping with step {step}")
            write_bytes(join(self.task.run, STOP_FILE), json.dumps({"step": step}).encode())
        scores = {row["step"]: row["f1"] for row in curve if step is None or row["step"] <= step}
        for facts in checkpoints_to_remove(whole, scores=scores):
            remove_checkpoint(self.root, facts.name)
        return bool(todo)

    def _is_due(self, facts: CheckpointFacts) -> bool:
        is_wanted = facts.is_scored and facts.step not in self.failed
        stop = stopped_at(self.task.run)
        is_counted = stop is None or facts.step <= stop
        return is_wanted and is_counted and not is_scored(self.task.run, facts)

    def _score(self, facts: CheckpointFacts) -> None:
        started = time.monotonic()
        try:
            remotely = score_remotely.options(scheduling_strategy=this_node())
            scoring = remotely.remote(self.task, facts)
            while not ray.wait([scoring], timeout=POLL_SECONDS)[0]:
                if self.is_aborted:
                    ray.cancel(scoring)
                    return
            summary = ray.get(scoring)
            seconds = {"seconds": round(time.monotonic() - started, 3)}
            write_bytes(
                join(self.task.run, SCORING, facts.name, SECONDS), json.dumps(seconds).encode()
            )
        except ray.exceptions.RayError as error:
            self.failed.add(facts.step)
            warn(f"{facts.name} could not be scored beside the training ({first_line(error)})")
            return
        console.print(
            f"epoch {summary['epoch']:.4g}: exact {summary['exact']:.2f}, "
            f"F1 {summary['f1']:.2f}, eval loss {summary['eval_loss']:.3f}"
        )


def is_scored(run: str, facts: CheckpointFacts) -> bool:
    """Whether the figures of a checkpoint are there."""
    return is_file(join(run, SCORING, facts.name, METRICS))


def score_missing(task: TrainTask) -> None:
    """Score the checkpoints whose scoring beside the training failed; raises where it fails again.

    The error is that of the scoring itself.
    """
    for facts in find_checkpoints(join(task.run, CHECKPOINTS))[0]:
        stop = stopped_at(task.run)
        is_counted = stop is None or facts.step <= stop
        if facts.is_scored and is_counted and not is_scored(task.run, facts):
            console.print(f"Scoring {escape(facts.name)} again")
            score_checkpoint(task.run, task.dev, facts, config=task.config, use_gpu=task.use_gpu)


def stop_step(curve: Sequence[Mapping[str, Any]], patience: int | None) -> int | None:
    """The step at which `patience` scores in a row had no higher F1 than the best before; None.

    It follows from the scores alone, not from when they came: whatever a run trained beyond that
    step while scores were outstanding does not count. The untrained model is no score to beat.

    >>> stop_step([{"step": s, "f1": f} for s, f in ((1, 5), (2, 7), (3, 6), (4, 7))], 2)
    4
    """
    best, since = -1.0, 0
    for row in curve:
        if not row["step"]:
            continue
        since = 0 if row["f1"] > best else since + 1
        best = max(best, row["f1"])
        if patience is not None and since >= patience:
            return int(row["step"])
    return None


def stopped_at(run: str) -> int | None:
    """The step early stopping chose, where it did."""
    file = join(run, STOP_FILE)
    return int(json.loads(read_bytes(file))["step"]) if is_file(file) else None
