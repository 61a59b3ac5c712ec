"""A training's numbers arrive with their steps, and no tracker can stop or slow a training."""

import importlib.util
import json
import struct
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from jobs import tracking
from jobs.cluster import _PASSED_ON
from jobs.configuration import TrackerName, TrackingSettings, TrainConfig
from jobs.shard_scoring import METRICS, SCORING
from jobs.trackers import MLflow, TensorBoard, Tracker, WandB
from jobs.tracking import (
    SECRETS,
    TRACKING,
    StepValues,
    Trackers,
    check_secrets,
    check_trackers,
    unsent_scores,
)
from qa_core.errors import ConfigError, ResourceError
from qa_core.training import StepDone
from tests.conftest import LocalRay

Points = list[tuple[str, int, float]]


def has(package: str) -> bool:
    """Whether a tracker's package is installed."""
    return importlib.util.find_spec(package) is not None


def config_of(*names: TrackerName) -> TrainConfig:
    """A configuration with these trackers."""
    return TrainConfig(tracking=TrackingSettings(trackers=list(names)))


def read_events(file: Path) -> list[Event]:
    """The events of one file: uint64 length, its uint32 crc, the event, its uint32 crc."""
    content, events, place = file.read_bytes(), [], 0
    while place < len(content):
        (length,) = struct.unpack_from("<Q", content, place)
        event = Event()
        event.ParseFromString(content[place + 12 : place + 12 + length])
        events.append(event)
        place += 12 + length + 4
    return events


def read_points(folder: Path) -> Points:
    """Names, steps and values of all files in the order they were begun, as TensorBoard shows them.

    A session that starts at a step removes what earlier ones have of it and of later steps.
    """
    points: Points = []
    for file in sorted(folder.glob("events.out.tfevents.*"), key=lambda f: f.stat().st_mtime_ns):
        for event in read_events(file):
            if event.session_log.status == SessionLog.START:
                points = [point for point in points if point[1] < event.step]
            points += [(v.tag, event.step, v.simple_value) for v in event.summary.value]
    return points


def write_score(run: Path, step: int, f1: float) -> None:
    """Leave the figures of a scored checkpoint in a run."""
    folder = run / SCORING / f"step-{step:08d}"
    folder.mkdir(parents=True)
    figures = {"step": step, "epoch": 0.5, "f1": f1, "exact": f1 - 1, "eval_loss": 0.25}
    (folder / METRICS).write_text(json.dumps(figures))


class Noting:
    """A tracker that keeps what it is sent; it fails at a step of 13."""

    def __init__(self) -> None:
        self.points: Points = []
        self.is_closed = False

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Keep the values."""
        if step == 13:
            raise ConnectionError("no such host\nand a long story")
        self.points += [(name, step, value) for name, value in values.items()]

    def close(self) -> None:
        """Remember it."""
        self.is_closed = True


class NotingTrackers(Trackers):
    """Trackers whose MLflow cannot be opened; the others note."""

    def __init__(self, *names: TrackerName, run: Path, first_step: int | None = 0) -> None:
        self.warnings: list[str] = []
        self.noting: dict[str, Noting] = {}
        super().__init__(
            config_of(*names), run=str(run), first_step=first_step, warn=self.warnings.append
        )

    def open(self, name: TrackerName) -> Tracker:
        """A tracker that notes."""
        if name == "mlflow":
            raise PermissionError("no key")
        self.noting[name] = Noting()
        return self.noting[name]


def test_tensorboard_holds_the_values_at_their_steps(tmp_path: Path) -> None:
    """What is logged is what TensorBoard reads, below the run's folder."""
    trackers = Trackers(config_of("tensorboard"), run=str(tmp_path), first_step=0)
    trackers.log(1, {"train/loss": 5.5, "train/padding_share": 0.25})
    trackers.log(3, {"train/loss": 4.5})
    trackers.close()
    assert read_points(tmp_path / "tensorboard") == [
        ("train/loss", 1, 5.5),
        ("train/padding_share", 1, 0.25),
        ("train/loss", 3, 4.5),
    ]


def test_a_resumed_run_forgets_the_steps_it_makes_again(tmp_path: Path) -> None:
    """After a lost worker no step has two values, and the checkpoint's own step stays."""
    for first_step, steps in ((0, (2, 4, 6)), (4, (5, 7))):
        trackers = Trackers(config_of("tensorboard"), run=str(tmp_path), first_step=first_step)
        for step in steps:
            trackers.log(step, {"train/loss": step + first_step / 8})
        trackers.close()
    points = read_points(tmp_path / "tensorboard")
    assert [(step, value) for _, step, value in points] == [(2, 2), (4, 4), (5, 5.5), (7, 7.5)]


def test_scores_that_come_later_remove_nothing(tmp_path: Path) -> None:
    """The job's own process adds scores of earlier steps to what rank 0 has written."""
    worker = Trackers(config_of("tensorboard"), run=str(tmp_path), first_step=0)
    worker.log(8, {"train/loss": 1.0})
    worker.close()
    write_score(tmp_path, 4, 50.0)
    driver = Trackers(config_of("tensorboard"), run=str(tmp_path), first_step=None)
    driver.log_scores()
    driver.close()
    assert read_points(tmp_path / "tensorboard") == [
        ("train/loss", 8, 1.0),
        ("eval/f1", 4, 50.0),
        ("eval/exact", 4, 49.0),
        ("eval/loss", 4, 0.25),
    ]


def test_a_run_behind_a_uri_gets_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files are written here, copied while the run goes on and at its end, then removed."""
    (tmp_path / "here").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "here"))
    monkeypatch.setattr("jobs.trackers.SECONDS_BETWEEN_COPIES", 0.0)
    tracker = TensorBoard((tmp_path / "run").as_uri(), first_step=0)
    tracker.log(1, {"train/loss": 2.0})
    there = tmp_path / "run" / "tensorboard"
    assert read_points(there) == [("train/loss", 1, 2.0)]
    tracker.log(2, {"train/loss": 1.0})
    tracker.close()
    assert read_points(there) == [("train/loss", 1, 2.0), ("train/loss", 2, 1.0)]
    assert not list((tmp_path / "here").iterdir())


def test_a_failing_tracker_is_left_out_with_one_warning(tmp_path: Path) -> None:
    """Neither one that cannot be opened nor one that fails later stops the others or the run."""
    trackers = NotingTrackers("wandb", "mlflow", run=tmp_path)
    for step in (12, 13, 14):
        trackers.log(step, {"train/loss": 1.0})
    trackers.close()
    assert trackers.warnings == [
        "mlflow failed, the run goes on without it (no key)",
        "wandb failed, the run goes on without it (no such host)",
    ]
    assert trackers.noting["wandb"].points == [("train/loss", 12, 1.0)]


def test_scores_that_cannot_be_read_are_told_of_once(tmp_path: Path) -> None:
    """Storage may come back: the values of steps go on, and each look tries again."""
    folder = tmp_path / SCORING / "step-00000004"
    folder.mkdir(parents=True)
    (folder / METRICS).write_text("not json")
    trackers = NotingTrackers("tensorboard", run=tmp_path)
    for step in (1, 2):
        trackers.log_scores()
        trackers.log(step, {"train/loss": 1.0})
    trackers.close()
    assert len(trackers.warnings) == 1
    assert "trackers may miss scores (Expecting value" in trackers.warnings[0]
    assert [step for _, step, _ in trackers.noting["tensorboard"].points] == [1, 2]


def test_each_score_is_sent_once(tmp_path: Path) -> None:
    """Not again at the next look, nor by the process that comes after."""
    for step in (0, 4):
        write_score(tmp_path, step, 10.0 + step)
    worker = NotingTrackers("tensorboard", run=tmp_path)
    worker.log_scores()
    worker.log_scores()
    worker.close()
    sent = worker.noting["tensorboard"].points
    assert [(step, value) for name, step, value in sent if name == "eval/f1"] == [(0, 10), (4, 14)]
    assert worker.noting["tensorboard"].is_closed
    write_score(tmp_path, 8, 20.0)
    driver = NotingTrackers("tensorboard", run=tmp_path, first_step=None)
    driver.log_scores()
    driver.close()
    assert {step for _, step, _ in driver.noting["tensorboard"].points} == {8}
    assert json.loads((tmp_path / TRACKING).read_text())["scores"] == [0, 4, 8]


def test_without_new_values_nothing_is_opened(tmp_path: Path) -> None:
    """A run whose scores were all sent leaves no empty session behind."""
    write_score(tmp_path, 4, 10.0)
    (tmp_path / TRACKING).write_text('{"scores": [4]}')
    trackers = NotingTrackers("tensorboard", run=tmp_path, first_step=None)
    trackers.log_scores()
    trackers.close()
    assert trackers.noting == {}
    assert trackers.warnings == []


def test_a_score_made_again_is_sent_again(tmp_path: Path) -> None:
    """TensorBoard forgot those after the checkpoint that a run went back to."""
    for step in (4, 8):
        write_score(tmp_path, step, 10.0)
    (tmp_path / TRACKING).write_text('{"scores": [4, 8]}')
    trackers = NotingTrackers("tensorboard", run=tmp_path, first_step=4)
    trackers.log_scores()
    trackers.close()
    assert {step for _, step, _ in trackers.noting["tensorboard"].points} == {8}


def test_scores_after_a_missing_one_are_sent_again() -> None:
    """TensorBoard's fast reader drops what it has of later steps when an earlier one comes."""
    curve = [{"step": 0}, {"step": 4}, {"step": 8}]
    assert unsent_scores(curve, [0, 4, 8]) == []
    assert unsent_scores(curve, [0, 8]) == [{"step": 4}, {"step": 8}]


def test_a_tracker_that_hangs_does_not_hold_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closing gives up after a while and says so."""
    monkeypatch.setattr(tracking, "SECONDS_TO_CLOSE", 0.05)
    trackers = NotingTrackers("tensorboard", run=tmp_path)
    trackers.thread, real = HangingThread(), trackers.thread
    trackers.close()
    assert real is not None
    real.join()
    assert trackers.warnings == ["trackers did not answer; values are missing"]


class HangingThread(tracking.threading.Thread):
    """A thread that never comes to its end."""

    def join(self, timeout: float | None = None) -> None:
        """Return when the time is over."""

    def is_alive(self) -> bool:
        """Still."""
        return True


def test_no_trackers_is_a_choice(tmp_path: Path) -> None:
    """`tracking.trackers []` writes nothing and starts nothing."""
    trackers = Trackers(config_of(), run=str(tmp_path), first_step=0)
    trackers.log(1, {"train/loss": 1.0})
    trackers.log_scores()
    trackers.close()
    assert list(tmp_path.iterdir()) == []


def test_values_of_steps_are_of_all_steps_between() -> None:
    """The loss is the mean over features; padding and tokens are summed."""
    values = StepValues()
    place: dict[str, Any] = {"num_steps": 9, "epoch": 0.1}
    values.add(
        StepDone(
            1,
            loss=4.0,
            learning_rate=1e-4,
            num_features=3,
            num_tokens=90,
            num_padding_tokens=10,
            **place,
        )
    )
    values.add(
        StepDone(
            2,
            loss=8.0,
            learning_rate=2e-4,
            num_features=1,
            num_tokens=60,
            num_padding_tokens=40,
            **place,
        )
    )
    taken = values.take()
    assert taken["train/loss"] == 5.0
    assert taken["train/learning_rate"] == 2e-4
    assert taken["train/padding_share"] == 0.25
    assert taken["train/tokens_per_second"] > 0
    assert values.num_tokens == 0


def test_a_tracker_that_is_not_installed_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before any work, with the command that installs it."""
    check_trackers(TrackingSettings())
    monkeypatch.setitem(tracking.MODULES, "wandb", "surely_not_installed")
    with pytest.raises(ConfigError, match=r"wandb is not installed.*ray-extractive-qa\[wandb\]"):
        check_trackers(TrackingSettings(trackers=["tensorboard", "wandb"]))


def test_mlflow_without_an_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its default is a folder beside wherever a worker happens to run."""
    monkeypatch.setitem(tracking.MODULES, "mlflow", "json")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(ConfigError, match="MLFLOW_TRACKING_URI is not set"):
        check_trackers(TrackingSettings(trackers=["mlflow"]))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host:5000")
    check_trackers(TrackingSettings(trackers=["mlflow"]))


@pytest.mark.skipif(not has("mlflow"), reason="mlflow is not installed")
def test_mlflow_continues_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes send to one run, which has the configuration as parameters."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    state: dict[str, Any] = {}
    for step in (1, 2):
        tracker = MLflow(config_of("mlflow"), run=str(tmp_path), state=state)
        tracker.log(step, {"train/loss": 4.0 - step})
        tracker.close()
    from mlflow import MlflowClient

    history = MlflowClient().get_metric_history(state["mlflow"], "train/loss")
    assert [(metric.step, metric.value) for metric in history] == [(1, 3.0), (2, 2.0)]
    found = MlflowClient().get_run(state["mlflow"])
    assert found.data.params["features.max_length"] == "384"
    assert found.info.status == "FINISHED"


@pytest.mark.skipif(not has("wandb"), reason="wandb is not installed")
def test_wandb_continues_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline sessions of two processes have one id; a step may go back."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("WANDB_DIR", raising=False)
    state: dict[str, Any] = {}
    for step in (8, 4):
        tracker = WandB(config_of("wandb"), run=str(tmp_path), state=state)
        tracker.log(step, {"eval/f1": 50.0 + step})
        assert tracker.session.summary["eval/f1"] == 50.0 + step
        tracker.close()
    assert list((tmp_path / "wandb").glob(f"offline-run-*/run-{state['wandb']}.wandb"))


@pytest.mark.ray
def test_a_key_that_nodes_lack_is_named_and_never_sent(
    local_ray: LocalRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before any work; a key of a tracker that is not used is nobody's business."""
    assert not set(_PASSED_ON) & {name for names in SECRETS.values() for name in names}
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    monkeypatch.delenv("MLFLOW_TRACKING_TOKEN", raising=False)
    check_secrets(TrackingSettings(trackers=["tensorboard", "mlflow"]))
    with pytest.raises(ResourceError, match=r"WANDB_API_KEY .* node \S+\. .*wandb login"):
        check_secrets(TrackingSettings(trackers=["wandb"]))
