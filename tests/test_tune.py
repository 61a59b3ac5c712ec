"""Sweeps through Ray Tune: what they leave, and what they live through; tiny model, small data."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest
import torch
from huggingface_hub import ModelCard
from transformers import AutoModelForQuestionAnswering

from jobs import leg as leg_module
from jobs import tune
from jobs.cluster import check_workers
from jobs.configuration import FeatureSettings, ScalingSettings, TrackingSettings
from jobs.leg import scoring_folder
from jobs.ranks import one_rank
from jobs.shard_scoring import load_scored, start_decoder
from jobs.space import parse_sweep
from jobs.sweep_inputs import SweepInputs
from jobs.trial import SweepTask, describe_leg, run_leg, trial_folder
from qa_core.answering import SETTINGS_KEY
from qa_core.errors import ConfigError, DataError, QAError, ResourceError
from qa_core.halving import Leg
from qa_core.reading import read_examples
from qa_core.report_page import build_page
from qa_core.run_files import read_run
from qa_core.scoring import score_predictions
from tests.conftest import LocalRay
from tests.runs import read_json, settings, write_json
from tests.test_jobs import ARTEFACTS
from tests.test_tracking import read_points

TOP = Path(__file__).parent.parent
SECONDS_TO_SCORE = 500  # of a sweep that is killed, on a busy machine
# The default setting of a space that names other values of these keys.
DEFAULT = ("--features.max_length=128", "--features.doc_stride=40")
# A grid of four, of which one goes on.
GRID = {
    "features.max_length": "[64, 96]",
    "features.doc_stride": "[16, 24]",
    "train.num_epochs": 2,
    "tune.reduction_factor": 2,
    "tune.eval_max_length": "[96]",
    "tune.eval_doc_stride": "[16, 40]",
    "tracking.trackers": "[]",
    "run_name": "sweep",
}

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]


def given(data: dict[str, str], model: Path, storage: Path, **more: Any) -> list[str]:
    """A command line of `jobs.tune`."""
    return settings(data, model, storage, **{**GRID, "data.dev": data["dev"], **more})


def read_events(run: Path) -> list[dict[str, Any]]:
    """What has happened in a sweep."""
    file = run / "events.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def complete(events: Sequence[dict[str, Any]]) -> dict[int, float]:
    """The last scores of the trials that were trained to their end."""
    trials = [event for event in events if event["event"] == "trial"]
    scores = [event for event in events if event["event"] == "score"]
    return {
        e["trial"]: e["score"]
        for e in scores
        if e["num_tokens"] == trials[e["trial"]]["total_tokens"]
    }


@pytest.fixture(scope="module")
def small(data: dict[str, str], tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished sweep over the grid, its winner trained with two seeds."""
    storage = tmp_path_factory.mktemp("sweep")
    more = {"tune.seeds": 2, "features.max_length": "[64, 96]"}
    tune.main([*DEFAULT, *given(data, tiny_model, storage, **more)])
    return storage / "sweep"


def test_a_sweep_leaves_what_any_run_leaves(small: Path, data: dict[str, str]) -> None:
    """The winner's model, answers and scores; the scores are those of the answers."""
    names = {path.name for path in small.iterdir()}
    assert names >= ARTEFACTS - {"checkpoints", "history", "scoring", "ray", "metrics.jsonl"} - {
        name for name in ARTEFACTS if "track" in name or "board" in name
    }
    assert names >= {"results.parquet", "sweep.json", "events.jsonl", "trials"}
    examples, _ = read_examples([data["dev"]])
    predictions, odds = (read_json(small / f"{n}.json") for n in ("predictions", "null_odds"))
    scores = score_predictions(predictions, examples, null_odds=odds)
    metrics = read_json(small / "metrics.json")
    assert {name: metrics[name] for name in scores} == pytest.approx(scores)
    stored = getattr(
        AutoModelForQuestionAnswering.from_pretrained(small / "model").config, SETTINGS_KEY
    )
    assert {name: stored[name] for name in ("max_length", "doc_stride")} == read_json(
        small / "sweep.json"
    )["windows"]


def test_the_page_has_the_sweep_and_its_winner(small: Path) -> None:
    """Charts of the trials, the winner's curve and answers; made again with the same bytes."""
    page = (small / "report.html").read_text()
    for name in ("sweep-cost", "curve-loss", "curve-scores", "calibration", "time"):
        assert f'data-chart="{name}"' in page
    files = read_run(str(small))
    assert files.sweep is not None
    assert f"Trial {files.sweep['winner']} won" in page
    assert files.steps
    assert files.explorer is not None
    assert build_page([files]) == page


def test_the_winner_has_a_card(small: Path) -> None:
    """Its own scores, settings and windows, and what a sweep does to scores."""
    card = ModelCard.load(small / "model" / "README.md")
    metrics, windows = (
        read_json(small / "metrics.json"),
        read_json(small / "sweep.json")["windows"],
    )
    scores = {r.metric_name: r.metric_value for r in card.data.eval_results or []}
    assert scores["f1"] == round(metrics["f1"], 2)
    answering = card.text.split("stored with the model |")[1]
    assert f"| <code>doc_stride</code> | {windows['doc_stride']} |" in answering
    assert f"The weights are those of trial {metrics['trial']}," in card.text
    assert "was chosen among 4 trials by these dev questions" in card.text
    assert "[64" not in card.text, "a searched key has the winner's value"


def test_the_table_has_a_row_a_trial(small: Path) -> None:
    """Points, tokens, scores at rungs and of other windows; one winner, trained to its end."""
    rows = pq.read_table(small / "results.parquet").to_pylist()
    kinds = [row["kind"] for row in rows]
    assert [kinds.count(kind) for kind in ("search", "default", "seed")] == [4, 1, 1]
    search = [row for row in rows if row["kind"] == "search"]
    assert len({(r["features.max_length"], r["features.doc_stride"]) for r in search}) == 4
    [winner] = [row for row in rows if row["is_winner"]]
    assert winner["status"] == "complete"
    assert winner["num_tokens"] == winner["total_tokens"]
    assert winner["rungs"][-1]["f1"] == winner["f1"]
    own = (winner["features.max_length"], winner["features.doc_stride"])
    assert {(s["max_length"], s["doc_stride"]) for s in winner["sizes"]} == {
        own,
        (96, 16),
        (96, 40),
    }
    assert winner["best_score"] == max(size["f1"] for size in winner["sizes"])
    stopped = [row for row in search if row["status"] == "waiting"]
    assert stopped
    assert all(0 < row["num_tokens"] < row["total_tokens"] for row in stopped)


def test_trials_share_tokens_and_gold_answers(small: Path) -> None:
    """One store for the training data, one for the dev data, whatever the windows."""
    stores = list((small.parent / "prepared").iterdir())
    assert len(stores) == 2
    assert len(list((small.parent / "prepared").rglob("golds-*.arrow"))) == 1


def test_rungs_count_real_tokens(small: Path) -> None:
    """Every leg ends with the first step at or beyond its goal; none is trained twice."""
    events = read_events(small)
    goals = {(e["trial"], e["until_tokens"]) for e in events if e["event"] == "leg"}
    assert len(goals) == sum(e["event"] == "leg" for e in events)
    rows = pq.read_table(small / "results.parquet").to_pylist()
    ends = {(row["trial"], one["num_tokens"]) for row in rows for one in row["rungs"]}
    assert len(ends) == len(goals)
    total = sum(row["num_tokens"] for row in rows)
    assert read_json(small / "sweep.json")["num_tokens"] == total


def test_the_winner_is_compared(small: Path) -> None:
    """With the runner-up and the default setting: an interval and plain words."""
    found = read_json(small / "sweep.json")
    assert set(found["comparisons"]) == {"runner_up", "default_setting"}
    for one in found["comparisons"].values():
        assert one["low"] <= one["difference"] <= one["high"]
        is_open = one["low"] <= 0 <= one["high"]
        assert (one["words"] == "not distinguishable at this size") == is_open
    assert [row["key"] for row in found["sensitivities"]]
    assert len(found["seeds"]) == 2
    assert found["seed_deviation"] is not None


def test_a_finished_sweep_is_shown_again(
    small: Path, data: dict[str, str], tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is trained, and no file changes."""
    before = {path: path.stat().st_mtime_ns for path in small.rglob("*") if path.is_file()}
    more = {"tune.seeds": 2}
    tune.main([*DEFAULT, *given(data, tiny_model, small.parent, **more)])
    assert {path: path.stat().st_mtime_ns for path in small.rglob("*") if path.is_file()} == before
    text = capsys.readouterr().out
    assert "finished already" in text
    assert "winner" in text
    assert "Winner against the default setting" in text


def test_another_space_under_the_same_name_is_refused(
    small: Path, data: dict[str, str], tiny_model: Path
) -> None:
    """With the difference."""
    more = {"tune.seeds": 2, "features.doc_stride": "[16, 32]"}
    message = r"features.doc_stride was '\[16, 24\]', is '\[16, 32\]'"
    with pytest.raises(ConfigError, match=message):
        tune.main([*DEFAULT, *given(data, tiny_model, small.parent, **more)])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            {"features.doc_stride": "[64, 80]", "features.max_length": "[64]"},
            "no point of the search",
        ),
        (
            {"features.max_length": "[256, 384]"},
            "no point .*max_length 256 is above the model's 128",
        ),
        ({"scaling.use_gpu": "true"}, "1 GPU, and the cluster has 0"),
        ({"scaling.num_workers": 9}, "9 workers x 1 CPU = 9 CPU, and the cluster has 4"),
        ({"data.train": "[[none.json], [other.json]]"}, "none.json: no such file"),
        ({"model.name_or_path": "[none/of/these, /other]"}, "none/of/these"),
        ({"train.learning_rate": "uniform(1e-4, 1e-3)", "tune.searcher": "grid"}, "endlessly many"),
    ],
)
def test_what_cannot_run_is_refused_before_the_start(
    more: dict[str, Any], message: str, data: dict[str, str], tiny_model: Path, tmp_path: Path
) -> None:
    """With the arithmetic; no folder of trials is made."""
    with pytest.raises(QAError, match=message):
        tune.main(given(data, tiny_model, tmp_path, **more))
    assert not (tmp_path / "sweep" / "trials").exists()


def test_a_fraction_of_a_gpu_is_counted() -> None:
    """The arithmetic of the refusal has it."""
    with pytest.raises(ResourceError, match=r"1 workers x 0.5 GPU = 0.5 GPU"):
        check_workers(ScalingSettings(use_gpu=True, gpus_per_worker=0.5))


def test_failed_trials_are_marked_and_end_no_other(
    data: dict[str, str], tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One diverges, one has broken data, one a stride without room: each with its cause."""
    document = read_json(Path(data["train"]))
    for article in document["data"]:
        for paragraph in article["paragraphs"]:
            paragraph["context"] = 5
    broken = write_json(tmp_path / "broken.json", document)
    more = {
        "features.max_length": "[64]",
        "features.doc_stride": "[24, 70]",
        "train.learning_rate": "[1e-3, 1e25]",
        "train.warmup_ratio": 0,
        "train.num_epochs": 1,
        "data.train": f"choice({data['train']}, {broken})",
        "tune.train_default": "false",
        "tune.num_rungs": 1,
        "tune.scheduler": "none",
    }
    tune.main(given(data, tiny_model, tmp_path, **more))
    rows = pq.read_table(tmp_path / "sweep" / "results.parquet").to_pylist()
    assert len(rows) == 4  # the stride of 70 was never tried
    text = " ".join(capsys.readouterr().out.split())
    assert re.search(r"left out: [^:]* doc_stride 70", text)
    causes = {row["status"]: row["cause"] for row in rows if row["status"] == "failed"}
    assert causes
    diverged = [row for row in rows if "finite" in row["cause"]]
    assert [row["train.learning_rate"] for row in diverged] == [1e25]
    assert all("no usable question" in r["cause"] for r in rows if r["data.train"] == broken)
    assert sum(row["data.train"] == broken for row in rows) == 2
    [winner] = [row for row in rows if row["is_winner"]]
    assert (winner["status"], winner["train.learning_rate"]) == ("complete", 1e-3)


def test_a_budget_of_tokens_ends_a_sweep_with_what_it_has(
    data: dict[str, str], tiny_model: Path, tmp_path: Path
) -> None:
    """It says so, a larger one continues, and then nothing is trained again."""
    more = {"train.num_epochs": 4, "tune.train_default": "false"}
    first = {**more, "tune.max_tokens": 9000}
    tune.main(given(data, tiny_model, tmp_path, **first))
    run = tmp_path / "sweep"
    found = read_json(run / "sweep.json")
    assert found["num_tokens"] <= 9000 + 600  # a leg ends with a whole step
    assert "the sweep ended before a trial was complete" in found["remarks"][0]
    assert (run / "model" / "config.json").is_file()
    events = read_events(run)
    tune.main(given(data, tiny_model, tmp_path, **more))
    assert read_events(run)[: len(events)] == events
    assert complete(read_events(run))
    before = read_events(run)
    (run / "metrics.json").unlink()  # as if it had been killed at its end
    tune.main(given(data, tiny_model, tmp_path, **more))
    assert read_events(run) == before
    tune.main(given(data, tiny_model, tmp_path, **more, **{"tune.scheduler": "none"}))
    assert read_events(run)[: len(before)] == before
    assert len(complete(read_events(run))) == 4  # what had been stopped has gone on


def wait_for_scores(run: Path, process: subprocess.Popen[bytes], count: int) -> None:
    """Return when a sweep has so many scores; an error where it ends or hangs before."""
    deadline = time.monotonic() + SECONDS_TO_SCORE
    while sum(event["event"] == "score" for event in read_events(run)) < count:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_killed_sweep_continues(
    data: dict[str, str], tiny_model: Path, tmp_path: Path, local_ray: LocalRay
) -> None:
    """SIGKILL of the job: the same command does what is left; nothing is scored twice.

    One trial at a time, so that the course does not depend on which trial is faster.
    """
    more = {"tune.max_concurrent": 1, "train.num_epochs": 3, "tune.train_default": "false"}
    tune.main(given(data, tiny_model, tmp_path / "alone", **more))
    expected = read_events(tmp_path / "alone" / "sweep")
    command = [sys.executable, "-m", "jobs.tune", *given(data, tiny_model, tmp_path, **more)]
    environment = {**os.environ, "RAY_ADDRESS": local_ray.address}
    run = tmp_path / "sweep"
    for num_scores in (1, 4):
        process = subprocess.Popen(
            command, env=environment, cwd=TOP, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            wait_for_scores(run, process, num_scores)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
    tune.main(given(data, tiny_model, tmp_path, **more))
    assert read_events(run) == expected
    files = ("metrics.json", "predictions.json", "null_odds.json")
    for name in files:
        assert (run / name).read_bytes() == (tmp_path / "alone" / "sweep" / name).read_bytes()


@pytest.mark.slow
def test_a_trial_whose_process_dies_is_begun_again(
    data: dict[str, str], tiny_model: Path, tmp_path: Path, local_ray: LocalRay
) -> None:
    """The sweep waits for it, though it has nothing else to do, and ends as if nothing had been."""
    more = {
        "features.max_length": "[96]",
        "features.doc_stride": "[24]",
        "train.num_epochs": 3,
        "tune.train_default": "false",
    }
    tune.main(given(data, tiny_model, tmp_path / "alone", **more))
    command = [sys.executable, "-m", "jobs.tune", *given(data, tiny_model, tmp_path, **more)]
    environment = {**os.environ, "RAY_ADDRESS": local_ray.address}
    run, log = tmp_path / "sweep", tmp_path / "log"
    with log.open("w") as out:
        process = subprocess.Popen(command, env=environment, cwd=TOP, stdout=out, stderr=out)
        wait_for_scores(run, process, 1)
        raylets = psutil.Process(local_ray.pid).children(recursive=True)
        legs = [child for child in raylets if "ResourceTrainable" in child.cmdline()[0]]
        assert legs
        for leg in legs:
            leg.kill()
        assert process.wait() == 0
    assert "its process died; begun again in 15 s (1 of 2)" in log.read_text()
    assert read_events(run) == read_events(tmp_path / "alone" / "sweep")


@pytest.mark.slow
def test_trials_of_two_workers_are_ray_train_runs(
    data: dict[str, str], tiny_model: Path, tmp_path: Path
) -> None:
    """Two ranks come to the tokens and scores of one that accumulates twice."""
    more = {
        "features.max_length": "[96]",
        "features.doc_stride": "[24]",
        "train.num_epochs": 1,
        "train.per_worker_batch_size": 4,
        "tune.num_rungs": 1,
        "tune.train_default": "false",
        "tune.eval_doc_stride": "[24]",
    }
    two = {**more, "scaling.num_workers": 2, "scaling.threads_per_worker": 1}
    tune.main(given(data, tiny_model, tmp_path / "two", **two))
    tune.main(
        given(
            data, tiny_model, tmp_path / "one", **more, **{"train.gradient_accumulation_steps": 2}
        )
    )
    rows = [
        pq.read_table(tmp_path / name / "sweep" / "results.parquet").to_pylist()
        for name in ("two", "one")
    ]
    assert len(rows[0]) == len(rows[1]) == 1
    for ours, theirs in zip(*[row[0]["rungs"] for row in rows], strict=True):
        assert (ours["num_tokens"], ours["step"]) == (theirs["num_tokens"], theirs["step"])
        assert ours["f1"] == pytest.approx(theirs["f1"], abs=3)  # float32 sums in another order
    assert rows[0][0]["eval_loss"] == pytest.approx(rows[1][0]["eval_loss"], rel=1e-3)


@pytest.mark.slow
def test_a_submitted_sweep_leaves_the_same_files(
    data: dict[str, str], tiny_model: Path, tmp_path: Path, local_ray: LocalRay
) -> None:
    """`ray job submit … -- python -m jobs.tune`: events and scores of a sweep started here."""
    more = {"tune.max_concurrent": 1, "features.max_length": "[96]", "tune.train_default": "false"}
    command = [
        str(Path(sys.executable).with_name("ray")),
        *("job", "submit", f"--address={local_ray.dashboard}", "--working-dir", str(TOP)),
        *("--", sys.executable, "-m", "jobs.tune"),
        *given(data, tiny_model, tmp_path / "submitted", **more),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    tune.main(given(data, tiny_model, tmp_path / "here", **more))
    for name in ("events.jsonl", "metrics.json", "predictions.json"):
        files = [tmp_path / place / "sweep" / name for place in ("submitted", "here")]
        assert files[0].read_bytes() == files[1].read_bytes()


@pytest.fixture
def two_legs(
    data: dict[str, str], tiny_model: Path, tmp_path: Path
) -> tuple[SweepTask, list[dict[str, Any]]]:
    """A sweep's task and the first legs of two trials, of long and of short windows."""
    arguments = given(data, tiny_model, tmp_path, **{"train.num_epochs": 2})
    config, space = parse_sweep(arguments)
    inputs = SweepInputs(config, space)
    points = [{"features.max_length": size, "features.doc_stride": 24} for size in (96, 64)]
    inputs.prepare(str(tmp_path), points)
    (tmp_path / "sweep").mkdir()
    task = SweepTask(
        config, str(tmp_path / "sweep"), False, (), part=1.0, deadline=None, is_nested=False
    )
    legs = [
        describe_leg(Leg(number, 1200, is_final=False), point, 0, inputs.describe(point))
        for number, point in enumerate(points)
    ]
    return task, legs


@pytest.fixture
def one_leg(
    two_legs: tuple[SweepTask, list[dict[str, Any]]],
) -> tuple[SweepTask, dict[str, Any]]:
    """A sweep's task and the first leg of one of its trials, as its process is told of it."""
    task, legs = two_legs
    return task, legs[0]


def run_to_end(task: SweepTask, leg: dict[str, Any]) -> dict[str, Any]:
    """The result of a leg."""
    *_, result = run_leg(task, leg, start_decoder())
    return result


def test_a_leg_goes_on_from_the_checkpoint_of_the_one_before(
    one_leg: tuple[SweepTask, dict[str, Any]],
) -> None:
    """Two legs end with the weights and scores of one; the result of a leg is not made twice."""
    task, leg = one_leg
    first = run_to_end(task, leg)
    assert first["num_tokens"] >= 1200
    last = run_to_end(task, {**leg, "until_tokens": 3000})
    at_once = run_to_end(task, {**leg, "until_tokens": 3000, "trial": 1})
    assert last["metrics"] == at_once["metrics"]
    assert (last["step"], last["num_tokens"]) == (at_once["step"], at_once["num_tokens"])
    folders = [Path(task.run, "trials", f"{n:04d}", "checkpoints") for n in (0, 1)]
    names = [[path.name for path in folder.iterdir()] for folder in folders]
    assert names[0] == names[1] == [f"step-{last['step']:08d}"]  # the last one alone is kept
    weights = [AutoModelForQuestionAnswering.from_pretrained(f / names[0][0]) for f in folders]
    for one, two in zip(*(w.state_dict().values() for w in weights), strict=True):
        assert torch.equal(one, two)
    assert run_to_end(task, {**leg, "until_tokens": 3000}) == last


def test_a_part_of_the_questions_is_scored_at_a_rung(
    two_legs: tuple[SweepTask, list[dict[str, Any]]],
) -> None:
    """The same ones for every size of windows, with and without answers; all of them at the end."""
    task, legs = two_legs
    task = replace(task, part=0.5)
    scored = []
    for leg in legs:
        found = run_to_end(task, leg)
        assert (found["metrics"]["total"], found["metrics"]["HasAns_total"]) == (20, 18)  # 40, 35
        size = FeatureSettings(
            max_length=leg["point"]["features.max_length"],
            doc_stride=leg["point"]["features.doc_stride"],
        )
        folder = trial_folder(task.run, leg["trial"])
        scored.append(load_scored(scoring_folder(folder, found["step"], size, part=0.5)).scores)
    assert list(scored[0].ids) == list(scored[1].ids)
    assert len(set(scored[0].ids)) == 20
    whole = run_to_end(task, {**legs[0], "until_tokens": 10**6, "is_final": True})
    assert whole["metrics"]["total"] == 40


def test_a_trial_has_its_own_curve(one_leg: tuple[SweepTask, dict[str, Any]]) -> None:
    """Losses and scores are in the folder of the trial, for the trackers that are asked for."""
    task, leg = one_leg
    task = replace(
        task, config=replace(task.config, tracking=TrackingSettings(trackers=["tensorboard"]))
    )
    found = run_to_end(task, leg)
    folder = Path(trial_folder(task.run, leg["trial"]))
    points = read_points(folder / "tensorboard")
    assert [step for name, step, _ in points if name == "train/loss"][-1] == found["step"]
    [(step, f1)] = [(step, value) for name, step, value in points if name == "eval/f1"]
    assert (step, f1) == (found["step"], pytest.approx(found["metrics"]["f1"], rel=1e-6))


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory."), MemoryError("no room")]
)
def test_out_of_memory_is_tried_again_with_half_the_batch(
    error: Exception,
    one_leg: tuple[SweepTask, dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As often as needed; the steps are those of the configured batch, accumulated."""
    task, leg = one_leg
    expected = run_to_end(task, {**leg, "trial": 1})
    make_trainer = leg_module.make_trainer

    def with_little_memory(job: Any, *arguments: Any) -> Any:
        if job.config.train.per_worker_batch_size > 2:
            raise error
        return make_trainer(job, *arguments)

    monkeypatch.setattr(leg_module, "make_trainer", with_little_memory)
    found = run_to_end(task, leg)
    assert found["times_halved"] == 2
    assert (found["step"], found["num_tokens"]) == (expected["step"], expected["num_tokens"])


def test_out_of_memory_with_a_batch_of_one_is_the_end(
    one_leg: tuple[SweepTask, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error comes out, and other errors come out at once."""
    task, leg = one_leg

    def fail(*arguments: Any) -> Any:
        raise MemoryError("no room")

    monkeypatch.setattr(leg_module, "make_trainer", fail)
    with pytest.raises(MemoryError):
        run_to_end(task, leg)
    assert read_json(Path(task.run, "trials", "0000", "halved.json"))["times"] == 3


def test_an_attempt_that_ran_out_of_memory_is_forgotten_and_counted(
    one_leg: tuple[SweepTask, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its checkpoints are of another batch plan; the tokens it trained are told."""
    task, leg = one_leg
    first = run_to_end(task, leg)
    make_trainer = leg_module.make_trainer

    def with_little_memory(job: Any, *arguments: Any) -> Any:
        if job.config.train.per_worker_batch_size > 4:
            raise MemoryError("no room")
        return make_trainer(job, *arguments)

    monkeypatch.setattr(leg_module, "make_trainer", with_little_memory)
    found = run_to_end(task, {**leg, "until_tokens": 3000})
    assert found["spare_tokens"] == first["num_tokens"]
    assert found["num_tokens"] >= 3000


def test_broken_data_of_the_only_source_ends_the_sweep(
    data: dict[str, str], tiny_model: Path, tmp_path: Path
) -> None:
    """Before any trial, as in any job."""
    broken = write_json(tmp_path / "broken.json", {"data": [{"title": "x", "paragraphs": []}]})
    with pytest.raises(DataError, match=r"data\.train: no usable question"):
        tune.main(given(data, tiny_model, tmp_path, **{"data.train": broken}))


def test_ranks_of_one_process_give_back_what_they_are_given() -> None:
    """Nothing waits, nothing is sent."""
    ranks = one_rank(use_gpu=False)
    assert ranks.from_first("value") == "value"
    assert ranks.wait() is None
    assert ranks.process.world_size == 1
