"""Where a training's numbers are sent while it runs: TensorBoard, MLflow, Weights & Biases.

A thread of its own opens the trackers and talks to them, so that training waits for none; one
that fails is left out from there on. Rank 0 sends the values of steps and the scores it sees, the
job itself the scores that come after. `tracking.json` in the run's folder keeps what both know:
which scores were sent, and which run of MLflow and Weights & Biases is continued.
"""

import importlib.util
import json
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from jobs.configuration import TrackerName, TrackingSettings, TrainConfig
from jobs.nodes import ask_living_nodes
from jobs.shard_scoring import read_curve
from jobs.trackers import MLflow, State, TensorBoard, Tracker, WandB
from qa_core.errors import ConfigError, ResourceError, first_line
from qa_core.storage import is_file, join, read_bytes, write_bytes
from qa_core.training import StepDone

TRACKING = "tracking.json"
SECONDS_BETWEEN_VALUES = 2.0  # of steps
SECONDS_TO_CLOSE = 60.0  # that a run waits at its end for trackers that do not answer
# Scores by the names they have in trackers and in a run's own files.
SCORES = {"eval/f1": "f1", "eval/exact": "exact", "eval/loss": "eval_loss"}
MODULES = {"tensorboard": "tensorboardX", "mlflow": "mlflow", "wandb": "wandb"}

# What lets a tracker in. It is the nodes' own, and never sent with a job.
SECRETS = {
    "mlflow": ("MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"),
    "wandb": ("WANDB_API_KEY",),
}


def check_trackers(settings: TrackingSettings) -> None:
    """Raise `ConfigError` for a tracker that cannot be used: not installed, or sent nowhere."""
    for name in settings.trackers:
        if importlib.util.find_spec(MODULES[name]) is None:
            raise ConfigError(
                f"{name} is not installed",
                where="tracking.trackers",
                expected="trackers whose packages are installed, on every node",
                remedy=f"pip install 'ray-extractive-qa[{name}]'",
            )
        if name == "mlflow" and not os.environ.get("MLFLOW_TRACKING_URI"):
            raise ConfigError(
                "MLFLOW_TRACKING_URI is not set",
                where="tracking.trackers",
                expected="the address of an MLflow server that every node reaches",
                remedy="export MLFLOW_TRACKING_URI=http://HOST:5000",
            )


def check_secrets(settings: TrackingSettings) -> None:
    """Raise `ResourceError` where a tracker's key is in this environment, and not on every node."""
    own = [n for tracker in settings.trackers for n in SECRETS.get(tracker, ()) if n in os.environ]
    for node, answer in ask_living_nodes(unset_names, own) if own else []:
        if isinstance(answer, Exception):
            raise ResourceError(f"{node.name}: {first_line(answer)}", "the cluster") from answer
        if answer:
            raise ResourceError(
                f"{answer[0]} is set here, and not for Ray on node {node.name}",
                where="tracking.trackers",
                expected="keys in the nodes' own environment or profile; jobs never carry them",
                remedy=f"export {answer[0]} before `ray start`, or put it into the tracker's "
                "profile on the nodes (`wandb login`, ~/.mlflow/credentials) and unset it here",
            )


def unset_names(names: Sequence[str]) -> list[str]:
    """Those of the names that this process's environment does not have."""
    return [name for name in names if name not in os.environ]


class Trackers:
    """All trackers of a run, opened by the first value and spoken to by a thread.

    `first_step` is the step a training goes on from: TensorBoard forgets what an earlier attempt
    sent of the steps after it. None, where no step is made again, forgets nothing.
    """

    def __init__(
        self,
        config: TrainConfig,
        *,
        run: str,
        first_step: int | None,
        warn: Callable[[str], None] = lambda text: print(f"warning: {text}", flush=True),
    ) -> None:
        self.config, self.run, self.first_step, self.warn = config, run, first_step, warn
        self.is_open = self.has_warned = False
        self.opened: dict[str, Tracker] = {}
        self.state: State = {"scores": []}
        self.todo: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self.thread: threading.Thread | None = None
        if config.tracking.trackers:
            self.thread = threading.Thread(target=self._work, name="tracking", daemon=True)
            self.thread.start()

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Send the values of a step."""
        self._put(partial(self._send, step, values))

    def log_scores(self) -> None:
        """Send the scores of the run that were not sent before."""
        self._put(self._send_scores)

    def close(self) -> None:
        """Wait until all is sent, or for `SECONDS_TO_CLOSE`."""
        if self.thread is None:
            return
        self.todo.put(None)
        self.thread.join(SECONDS_TO_CLOSE)
        if self.thread.is_alive():
            self.warn(f"{', '.join(self.opened) or 'trackers'} did not answer; values are missing")

    def open(self, name: TrackerName) -> Tracker:
        """One tracker, ready for values."""
        match name:
            case "tensorboard":
                return TensorBoard(self.run, first_step=self.first_step)
            case "mlflow":
                return MLflow(self.config, run=self.run, state=self.state)
            case "wandb":
                return WandB(self.config, run=self.run, state=self.state)

    def _put(self, task: Callable[[], None]) -> None:
        if self.thread is not None:
            self.todo.put(task)

    def _work(self) -> None:
        while (task := self.todo.get()) is not None:
            try:
                task()
            except Exception as error:  # of storage, which may be there again the next time
                if not self.has_warned:
                    self.warn(f"trackers may miss scores ({first_line(error)})")
                self.has_warned = True
        for opened, tracker in list(self.opened.items()):
            self._try(opened, tracker.close)

    def _send(self, step: int, values: Mapping[str, float]) -> None:
        if not self.is_open:
            self.state = read_state(self.run, first_step=self.first_step)
            self.is_open = True
            for name in self.config.tracking.trackers:
                self._try(name, partial(self._open, name))
            self._keep_state()
        for opened, tracker in list(self.opened.items()):
            self._try(opened, partial(tracker.log, step, values))

    def _open(self, name: TrackerName) -> None:
        self.opened[name] = self.open(name)

    def _send_scores(self) -> None:
        state = self.state if self.is_open else read_state(self.run, first_step=self.first_step)
        rows = unsent_scores(read_curve(self.run), state["scores"])
        for row in rows:
            self._send(row["step"], {name: row[key] for name, key in SCORES.items()})
        if rows:
            self.state["scores"] = sorted({*self.state["scores"], *(row["step"] for row in rows)})
            self._keep_state()

    def _keep_state(self) -> None:
        write_bytes(join(self.run, TRACKING), (json.dumps(self.state) + "\n").encode())

    def _try(self, name: str, action: Callable[[], None]) -> None:
        """Do something with a tracker, and go on without it where that fails."""
        try:
            action()
        except Exception as error:  # whatever a tracker raises, training goes on
            self.opened.pop(name, None)
            self.warn(f"{name} failed, the run goes on without it ({first_line(error)})")


def read_state(run: str, *, first_step: int | None) -> State:
    """What tracking.json holds, without the scores of steps that are made again."""
    file = join(run, TRACKING)
    state: State = json.loads(read_bytes(file)) if is_file(file) else {"scores": []}
    if first_step is not None:
        state["scores"] = [step for step in state["scores"] if step <= first_step]
    return state


def unsent_scores(curve: Sequence[Mapping[str, Any]], sent: Sequence[int]) -> list[dict[str, Any]]:
    """The rows of the curve from the first on that was not sent; [] where all were.

    A tracker may forget what it has of later steps when one comes out of order.

    >>> [row["step"] for row in unsent_scores([{"step": 0}, {"step": 4}, {"step": 8}], [0, 8])]
    [4, 8]
    """
    missing = [row["step"] for row in curve if row["step"] not in sent]
    return [dict(row) for row in curve if missing and row["step"] >= missing[0]]


class StepValues:
    """The values of the steps since they were last taken, as one point for the trackers."""

    def __init__(self) -> None:
        self.loss = self.learning_rate = 0.0
        self._begin()

    def add(self, done: StepDone) -> None:
        """Count a step."""
        self.num_features += done.num_features
        self.num_tokens += done.num_tokens
        self.num_padding_tokens += done.num_padding_tokens
        self.loss += done.loss * done.num_features
        self.learning_rate = done.learning_rate

    def is_due(self) -> bool:
        """Whether the last point is old enough for another."""
        return time.monotonic() - self.begun >= SECONDS_BETWEEN_VALUES

    def take(self) -> dict[str, float]:
        """The mean loss over the features, the last learning rate, speed and padding."""
        seconds = max(time.monotonic() - self.begun, 1e-9)
        values = {
            "train/loss": self.loss / self.num_features,
            "train/learning_rate": self.learning_rate,
            "train/tokens_per_second": self.num_tokens / seconds,
            "train/padding_share": self.num_padding_tokens
            / (self.num_padding_tokens + self.num_tokens),
        }
        self._begin()
        return values

    def _begin(self) -> None:
        self.begun = time.monotonic()
        self.num_features = self.num_tokens = self.num_padding_tokens = 0
        self.loss = self.learning_rate = 0.0
