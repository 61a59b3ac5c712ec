"""The trackers: each opens or continues its run and takes the values of steps.

Ids of runs go into `state`, by which another process continues them.
"""

import os
import tempfile
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from jobs.configuration import TrainConfig, config_keys
from qa_core.storage import join, write_file

TENSORBOARD = "tensorboard"
SECONDS_BETWEEN_COPIES = 60.0  # of TensorBoard's files, to a run that is a URI
MLFLOW_PARAMETERS = 100  # in a request, the most that a server takes

State = dict[str, Any]  # what tracking.json holds


class Tracker(Protocol):
    """One place that values are sent to."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Send the values of a step; scores come later than the steps after them."""

    def close(self) -> None:
        """Send what is left."""


class TensorBoard:
    """Event files in the run's folder; copied there now and then where it is a URI.

    They are written by tensorboardX's `EventsWriter`, at once: the thread of its `SummaryWriter`
    dies unheard on a full disk, and whoever logs then waits for it for ever.
    """

    def __init__(self, run: str, *, first_step: int | None) -> None:
        from tensorboardX.event_file_writer import EventsWriter

        self.target = join(run, TENSORBOARD)
        self.folder = tempfile.TemporaryDirectory() if "://" in run else None
        self.local = Path(self.folder.name if self.folder else self.target)
        self.copied = time.monotonic()
        self.local.mkdir(parents=True, exist_ok=True)
        self.writer = EventsWriter(str(self.local / "events"), f".{uuid.uuid4().hex[:8]}")
        if first_step is not None:
            self._forget_after(first_step)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Write the values, and copy the files where that is due."""
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary

        pairs = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        event = Event(wall_time=time.time(), step=step, summary=Summary(value=pairs))
        self.writer.write_event(event)
        self.writer.flush()
        if self.folder and time.monotonic() - self.copied >= SECONDS_BETWEEN_COPIES:
            self._copy()

    def close(self) -> None:
        """Write what is left and copy it."""
        self.writer.close()
        if self.folder:
            self._copy()
            self.folder.cleanup()

    def _forget_after(self, step: int) -> None:
        """Have TensorBoard drop what earlier files hold of the steps after this one."""
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        session = SessionLog(status=SessionLog.START)
        self.writer.write_event(Event(wall_time=time.time(), step=step + 1, session_log=session))

    def _copy(self) -> None:
        for file in sorted(self.local.iterdir()):
            write_file(join(self.target, file.name), file)
        self.copied = time.monotonic()


class MLflow:
    """A run of an MLflow experiment, continued where the state names one.

    The client is MLflow's own: Ray's `setup_mlflow` cannot continue a run, and makes its run that
    of the whole process.
    """

    def __init__(self, config: TrainConfig, *, run: str, state: State) -> None:
        # Minutes of tries by default, in which no tracker is sent anything.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        from mlflow import MlflowClient

        self.client = MlflowClient()
        if "mlflow" in state:
            self.client.update_run(state["mlflow"], status="RUNNING")
        else:
            state["mlflow"] = self._create(config, run)
        self.run_id = state["mlflow"]

    def _create(self, config: TrainConfig, run: str) -> str:
        """The id of a new run that has the configuration as its parameters."""
        from mlflow.entities import Param

        project = config.tracking.project
        found = self.client.get_experiment_by_name(project)
        experiment = found.experiment_id if found else self.client.create_experiment(project)
        created = self.client.create_run(
            experiment, run_name=config.run_name, tags={"run_folder": run}
        )
        parameters = [Param(key, str(value)) for key, value in config_keys(asdict(config))]
        for first in range(0, len(parameters), MLFLOW_PARAMETERS):
            part = parameters[first : first + MLFLOW_PARAMETERS]
            self.client.log_batch(created.info.run_id, params=part)
        return str(created.info.run_id)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Send the values in one request."""
        from mlflow.entities import Metric

        now = round(time.time() * 1000)  # milliseconds
        metrics = [Metric(name, float(value), now, step) for name, value in values.items()]
        self.client.log_batch(self.run_id, metrics)

    def close(self) -> None:
        """Say that the run has ended; it is opened again by who goes on."""
        self.client.set_terminated(self.run_id)


class WandB:
    """A run of Weights & Biases, continued where the state names one.

    Offline, each process leaves a folder of its own with the run's id.
    """

    def __init__(self, config: TrainConfig, *, run: str, state: State) -> None:
        import wandb
        from ray.air.integrations.wandb import setup_wandb

        state.setdefault("wandb", uuid.uuid4().hex[:16])
        self.session = setup_wandb(
            asdict(config),
            rank_zero_only=False,  # whoever opens a tracker is the one to send
            project=config.tracking.project,
            id=state["wandb"],
            resume="allow",
            reinit="finish_previous",  # Ray's own value is deprecated
            name=config.run_name,
            dir=os.environ.get("WANDB_DIR") or (None if "://" in run else run),
            settings=wandb.Settings(console="off", quiet=True),
        )
        # W&B's own step cannot go back, and scores come later than the steps after them.
        self.session.define_metric("step", hidden=True)
        for names in ("train/*", "eval/*"):
            self.session.define_metric(names, step_metric="step")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Send the values with their step."""
        self.session.log({**values, "step": step})

    def close(self) -> None:
        """Send what is left."""
        self.session.finish()
