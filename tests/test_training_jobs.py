"""Training through Ray when things go wrong, or other than by default; tiny model, small data."""

import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file

from jobs import train
from jobs.cluster import root_cause
from jobs.scoring_beside import stop_step
from jobs.training_worker import score_steps
from qa_core.checkpoints import CHECKPOINTS, HISTORY, STATE_FILE, find_checkpoints, step_name
from qa_core.errors import ConfigError, ModelError, QAError
from tests.conftest import LocalRay
from tests.runs import read_json, settings
from tests.tiny import save_model

TOP = Path(__file__).parent.parent
NUM_STEPS = 200
# 10 steps an epoch, a checkpoint every 7 steps and at the end; scored at the end alone.
LONG = {
    "model.dropout": "null",
    "train.num_epochs": NUM_STEPS // 10,
    "train.checkpoint_every_steps": 7,
    "train.score_every_steps": NUM_STEPS,
    "train.score_untrained": "false",
    "train.per_worker_batch_size": 4,
    "scaling.num_workers": 2,
    "scaling.max_failures": 5,
}

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with dropout."""
    return save_model(tmp_path_factory.mktemp("dropout"), dropout=0.2)


@pytest.fixture(scope="module")
def uninterrupted(
    data: dict[str, str], model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder of a run of two workers that nothing happened to."""
    storage = tmp_path_factory.mktemp("uninterrupted")
    train.main(settings(data, model, storage, **LONG))
    return storage / "run"


def assert_same_course(run: Path, expected: Path) -> None:
    """Weights and optimizer after the last step, every step's loss, the answers: to the bit."""
    folders = [path / CHECKPOINTS / step_name(NUM_STEPS) for path in (run, expected)]
    found, wanted = (load_file(folder / "model.safetensors") for folder in folders)
    assert found.keys() == wanted.keys()
    for name, weight in wanted.items():
        assert torch.equal(found[name], weight), name
    states = [torch.load(folder / STATE_FILE, weights_only=True) for folder in folders]
    moments = [state["optimizer"]["state"] for state in states]
    assert len(moments[0]) > 30
    for parameter, moment in moments[1].items():
        assert torch.equal(moments[0][parameter]["exp_avg"], moment["exp_avg"])
    for name in ("metrics.jsonl", "predictions.json", "metrics.json"):
        assert (run / name).read_bytes() == (expected / name).read_bytes()


def last_kept_step(run: Path) -> int:
    """The last step that the history on storage knows of."""
    steps = [int(path.stem.partition("-")[2]) for path in (run / HISTORY).glob("*.jsonl")]
    return max(steps, default=0)


def training_processes(head: int) -> list[psutil.Process]:
    """The processes of Ray Train's workers below a head."""
    found = []
    for process in psutil.Process(head).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "RayTrainWorker" in " ".join(process.cmdline()):
                found.append(process)
    return found


@contextlib.contextmanager
def killing(run: Path, head: int, steps: list[int]) -> Iterator[list[int]]:
    """SIGKILL a training process whenever the run has kept one of `steps`; the pids killed."""
    killed: list[int] = []
    is_over = threading.Event()

    def watch() -> None:
        for step in steps:
            while last_kept_step(run) < step:
                if is_over.wait(0.005):
                    return
            victims = [p for p in training_processes(head) if p.pid not in killed]
            if victims:
                victim = random.Random(step).choice(victims)
                victim.kill()
                killed.append(victim.pid)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield killed
    finally:
        is_over.set()
        thread.join()


@pytest.mark.slow
def test_a_killed_worker_changes_no_bit(
    uninterrupted: Path, data: dict[str, str], model: Path, tmp_path: Path, local_ray: LocalRay
) -> None:
    """SIGKILL mid-epoch, twice, dropout on: weights, losses and answers of a run left alone."""
    with killing(tmp_path / "run", local_ray.pid, [14, 63]) as killed:
        train.main(settings(data, model, tmp_path, **LONG))
    assert len(killed) == 2
    assert_same_course(tmp_path / "run", uninterrupted)


@pytest.mark.slow
def test_a_killed_driver_changes_no_bit(
    uninterrupted: Path, data: dict[str, str], model: Path, tmp_path: Path, local_ray: LocalRay
) -> None:
    """SIGKILL of the job itself; the same command, given again, goes on from mid-epoch."""
    command = [sys.executable, "-m", "jobs.train", *settings(data, model, tmp_path, **LONG)]
    environment = {**os.environ, "RAY_ADDRESS": local_ray.address}
    with (tmp_path / "log").open("w") as log:
        job = subprocess.Popen(command, cwd=TOP, env=environment, stdout=log, stderr=log)
        deadline = time.monotonic() + 120
        while last_kept_step(tmp_path / "run") < 21:
            assert job.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.005)
        job.kill()
        job.wait()
    assert not (tmp_path / "run" / "metrics.json").exists()
    while training_processes(local_ray.pid):  # they end with their driver
        assert time.monotonic() < deadline
        time.sleep(0.1)
    kept = find_checkpoints(str(tmp_path / "run" / CHECKPOINTS))[0][-1].step
    assert 21 <= kept < NUM_STEPS
    train.main(settings(data, model, tmp_path, **LONG))
    assert_same_course(tmp_path / "run", uninterrupted)


def test_a_damaged_checkpoint_is_passed_over(
    uninterrupted: Path,
    data: dict[str, str],
    model: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A half-written last checkpoint: the one before it is taken, that is said, the end is same."""
    shutil.copytree(uninterrupted.parent / "prepared", tmp_path / "prepared")
    shutil.copytree(uninterrupted, tmp_path / "run")
    run = tmp_path / "run"
    for name in ("metrics.json", "scoring"):
        path = run / name
        path.unlink() if path.is_file() else shutil.rmtree(path)
    whole, _ = find_checkpoints(str(run / CHECKPOINTS))
    last = run / CHECKPOINTS / whole[-1].name
    (last / STATE_FILE).write_bytes((last / STATE_FILE).read_bytes()[:5000])
    train.main(settings(data, model, tmp_path, **LONG))
    assert_same_course(run, uninterrupted)


def test_a_diverging_run_says_so_once(data: dict[str, str], model: Path, tmp_path: Path) -> None:
    """Step, features and the last good checkpoint; no retry, and that checkpoint is whole."""
    more = {**LONG, "train.learning_rate": 1e25, "train.warmup_ratio": 0.0}
    started = time.monotonic()
    with pytest.raises(QAError, match=r"features .*#0.* at step \d+.*lower train") as caught:
        train.main(settings(data, model, tmp_path, **{**more, "scaling.num_workers": 1}))
    assert time.monotonic() - started < 100  # five retries would take longer
    message = str(root_cause(caught.value))
    assert "last good checkpoint: none" in message or CHECKPOINTS in message
    whole, broken = find_checkpoints(str(tmp_path / "run" / CHECKPOINTS))
    assert broken == []
    assert not whole or whole[-1].name in message


def test_storage_that_fails_ends_all_workers(
    data: dict[str, str], model: Path, tmp_path: Path
) -> None:
    """Two workers, one of which cannot write: none waits for the other, and no retry."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / HISTORY).write_text("a file where the folder should be")
    started = time.monotonic()
    more = {**LONG, "scaling.storage_patience_seconds": 1}
    with pytest.raises(QAError, match=r"history.*cannot be written.*last good checkpoint: none"):
        train.main(settings(data, model, tmp_path, **more))
    assert time.monotonic() - started < 200
    assert find_checkpoints(str(tmp_path / "run" / CHECKPOINTS)) == ([], [])


def test_a_checkpoint_of_other_features_is_refused(
    uninterrupted: Path, data: dict[str, str], model: Path, tmp_path: Path
) -> None:
    """Where the run's own record was lost, the checkpoint still knows its plan."""
    shutil.copytree(uninterrupted / CHECKPOINTS, tmp_path / "run" / CHECKPOINTS)
    more = {**LONG, "train.seed": 9}
    with pytest.raises(QAError, match="the checkpoint was made with another plan") as caught:
        train.main(settings(data, model, tmp_path, **more))
    assert isinstance(root_cause(caught.value), ModelError)


def test_early_stopping_ends_a_run_at_its_best(
    data: dict[str, str], model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a rate of nearly 0 no score rises: training ends early, the first best is kept."""
    more = {
        "train.learning_rate": 1e-12,
        "train.num_epochs": 400,
        "train.score_every_steps": 5,
        "train.score_untrained": "false",
        "train.early_stopping_patience": 1,
    }
    train.main(settings(data, model, tmp_path, **more))
    run = tmp_path / "run"
    stop = read_json(run / "stop.json")["step"]
    assert stop == 10
    metrics = read_json(run / "metrics.json")
    assert metrics["best_step"] == 5
    events = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [e["step"] for e in events if e["event"] == "step"] == list(range(1, 11))
    assert [e["step"] for e in events if e["event"] == "score"] == [5, 10]
    assert "stopping with step 10" in capsys.readouterr().out


def test_a_teacher_is_computed_once_and_learnt_from(
    data: dict[str, str], tiny_model: Path, tmp_path: Path
) -> None:
    """With all weight on a teacher, the student's loss is its distance to it, which falls."""
    teacher = tmp_path / "teacher"
    shutil.copytree(tiny_model, teacher)
    weights = load_file(teacher / "model.safetensors")
    weights["qa_outputs.weight"] *= 30  # surer of itself
    save_file(weights, teacher / "model.safetensors", metadata={"format": "pt"})
    more = {
        "distillation.teacher": teacher,
        "distillation.weight": 1.0,
        "train.num_epochs": 3,
        "train.score_every_steps": 30,
    }
    train.main(settings(data, tiny_model, tmp_path, **more))
    events = [
        json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    ]
    losses = [e["loss"] for e in events if e["event"] == "step"]
    assert all(loss >= 0 for loss in losses)
    assert sum(losses[-5:]) < sum(losses[:5])
    files = list((tmp_path / "prepared").rglob("teacher-*/logits-*.arrow"))
    assert len(files) == 1
    before = files[0].stat().st_mtime_ns
    again = {**more, "run_name": "again", "train.num_epochs": 1, "train.score_every_steps": 10}
    train.main(settings(data, tiny_model, tmp_path, **again))
    assert files[0].stat().st_mtime_ns == before


def test_a_teacher_with_other_tokens_is_refused(
    data: dict[str, str], tiny_model: Path, tmp_path: Path
) -> None:
    """Logits are learnt token by token, so the tokenizers must be one."""
    other = tmp_path / "other"
    shutil.copytree(tiny_model, other)
    tokenizer = (other / "tokenizer.json").read_text(encoding="utf-8")
    (other / "tokenizer.json").write_text(
        tokenizer.replace('"lowercase": true', '"lowercase": false', 1), encoding="utf-8"
    )
    assert (other / "tokenizer.json").read_text(encoding="utf-8") != tokenizer
    with pytest.raises(ModelError, match="the teacher's tokenizer is not the student's"):
        train.main(settings(data, tiny_model, tmp_path, **{"distillation.teacher": other}))


def test_a_batch_by_tokens_with_all_labels(
    data: dict[str, str], tiny_model: Path, tmp_path: Path
) -> None:
    """A token budget, accumulation, all answers as labels and lighter null windows, two workers."""
    more = {
        "train.tokens_per_batch": 400,
        "train.gradient_accumulation_steps": 2,
        "train.null_weight": 0.5,
        "features.labels": "all",
        "scaling.num_workers": 2,
        "train.num_epochs": 1,
    }
    train.main(settings(data, tiny_model, tmp_path, **more))
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    steps = [e for e in map(json.loads, lines) if e["event"] == "step"]
    assert all(step["num_tokens"] <= 4 * 400 for step in steps)
    assert sum(step["num_features"] for step in steps) >= 80
    assert read_json(tmp_path / "run" / "metrics.json")["eval_loss"] > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train.tokens_per_batch": 20}, "tokens_per_batch: a feature has .* the budget is 20"),
        ({"distillation.teacher": "./nowhere"}, "./nowhere: no such folder"),
    ],
)
def test_impossible_trainings_are_refused_before_the_first_step(
    change: dict[str, Any], message: str, data: dict[str, str], tiny_model: Path, tmp_path: Path
) -> None:
    """What, where, expected; no run was begun."""
    with pytest.raises(QAError, match=message):
        train.main(settings(data, tiny_model, tmp_path, **change))
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_more_workers_than_features_are_refused(
    data: dict[str, str], tiny_model: Path, tmp_path: Path
) -> None:
    """Four workers for the three features of a tiny file."""
    document = read_json(Path(data["train"]))
    article = document["data"][0]
    article["paragraphs"] = article["paragraphs"][:1]
    article["paragraphs"][0]["qas"] = article["paragraphs"][0]["qas"][:3]
    small = tmp_path / "small.json"
    small.write_text(json.dumps({**document, "data": [article]}))
    arguments = settings(
        {**data, "train": str(small)}, tiny_model, tmp_path, **{"scaling.num_workers": 4}
    )
    with pytest.raises(ConfigError, match="4 workers share 3 training features"):
        train.main(arguments)


def test_scores_are_due_by_steps_or_epochs() -> None:
    """Every epoch's end, or every so many steps and the last."""
    assert score_steps([10, 20], None) == {10, 20}
    assert score_steps([10, 25], 8) == {8, 16, 24, 25}
    assert score_steps([5], 8) == {5}


def test_stopping_follows_from_the_scores_alone() -> None:
    """The untrained model is no score to beat; ties do not count as higher."""
    rows = [{"step": n, "f1": f1} for n, f1 in enumerate([90.0, 1.0, 5.0, 5.0, 4.0, 9.0])]
    assert stop_step(rows, None) is None
    assert stop_step(rows, 1) == 3
    assert stop_step(rows, 2) == 4
    assert stop_step(rows, 3) is None
    assert stop_step([], 1) is None
