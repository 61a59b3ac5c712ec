"""The jobs end to end on a local Ray, with a tiny model and a small part of the demo's data."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml
from huggingface_hub import ModelCard

from jobs import evaluate, predict, prepare, report, train
from jobs.cluster import root_cause
from jobs.configuration import DataSettings, FeatureSettings
from jobs.prepared import Prepared, load_prepared, read_rejections, window_blocks
from qa_core.answering import SETTINGS_KEY, Answerer
from qa_core.errors import ConfigError, DataError, QAError, ResourceError, StorageError
from qa_core.features import build_features
from qa_core.feeding import WindowFeed
from qa_core.reading import read_examples
from qa_core.run_files import read_run
from qa_core.schemas import TOKENS
from qa_core.scoring import score_predictions
from qa_core.tokenizing import load_tokenizer
from tests.conftest import LocalRay
from tests.hub import hub_at, hub_environment, hub_server
from tests.runs import read_json, settings, write_json

TOP = Path(__file__).parent.parent

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]

ARTEFACTS = {
    "analysis.json",
    "checkpoints",
    "config.yaml",
    "explorer.parquet",
    "history",
    "inputs.json",
    "metrics.json",
    "metrics.jsonl",
    "model",
    "nbest_predictions.json",
    "null_odds.json",
    "plan.json",
    "predictions.json",
    "ray",
    "rejections.jsonl",
    "report.html",
    "scoring",
    "tensorboard",
    "times",
    "timings.json",
    "tracking.json",
}


@pytest.fixture(scope="module")
def finished(
    data: dict[str, str], tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder of a run of two epochs on one worker."""
    storage = tmp_path_factory.mktemp("storage")
    train.main(settings(data, tiny_model, storage))
    return storage / "run"


def test_a_run_leaves_what_the_design_lists(finished: Path) -> None:
    """Every artefact is there, and no half-written file beside it."""
    assert {path.name for path in finished.iterdir()} == ARTEFACTS
    assert not list(finished.rglob("*.partial"))
    events = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [e["step"] for e in events if e["event"] == "step"] == list(range(1, 21))
    assert [e["epoch"] for e in events if e["event"] == "score"] == [0, 1, 2]
    assert (finished / "rejections.jsonl").read_text() == ""
    config = (finished / "config.yaml").read_text()
    assert config.startswith("# ray-extractive-qa")
    assert yaml.safe_load(config)["features"]["doc_stride"] == 40
    assert '<h1 dir="auto">Training run</h1>' in (finished / "report.html").read_text()


def test_the_page_is_made_again_from_the_files_alone(finished: Path, tmp_path: Path) -> None:
    """The same bytes, with the curve, the time of every step, and what windows hold."""
    report.main([str(finished), "--out", str(tmp_path / "again.html")])
    page = (finished / "report.html").read_text()
    assert (tmp_path / "again.html").read_text() == page
    for name in ("curve-loss", "curve-speed", "threshold-scores", "calibration", "time"):
        assert f'data-chart="{name}"' in page
    files = read_run(str(finished))
    assert [row["step"] for row in files.times] == list(range(1, 21))
    assert all(0 <= row["feed_seconds"] <= row["seconds"] for row in files.times)
    assert files.scoring_seconds > 0
    assert list(files.plans) == ["train", "dev"]


def test_answers_of_the_page_are_those_of_the_run(
    finished: Path, data: dict[str, str], tiny_model: Path
) -> None:
    """Texts, places, candidates and windows."""
    explorer = read_run(str(finished)).explorer
    assert explorer is not None
    examples, _ = read_examples(data["dev"])
    predictions = read_json(finished / "predictions.json")
    candidates = read_json(finished / "nbest_predictions.json")
    features = build_features(
        examples, tokenizer=load_tokenizer(str(tiny_model)), max_length=96, doc_stride=40
    ).to_pylist()
    rows = {row["id"]: row for row in explorer.to_pylist()}
    assert rows.keys() == predictions.keys()
    for example in examples.to_pylist():
        row = rows[example["id"]]
        assert (row["question"], row["context"]) == (example["question"], example["context"])
        assert row["answer"] == predictions[row["id"]]
        if row["answer"]:
            assert row["context"][row["start"] : row["end"]] == row["answer"]
        best = [round(c["probability"], 5) for c in candidates[row["id"]][:5]]
        assert sorted(round(p, 5) for p in row["n_best_probabilities"]) == sorted(best)
        windows = [f["offset_mapping"] for f in features if f["example_id"] == row["id"]]
        inside = [[pair for pair in window if pair[0] >= 0] for window in windows]
        assert row["window_starts"] == [window[0][0] for window in inside]
        assert row["window_ends"] == [window[-1][1] for window in inside]


def test_metrics_are_the_scores_of_the_written_predictions(
    finished: Path, data: dict[str, str]
) -> None:
    """What the official script would say of the files is what metrics.json says."""
    examples, _ = read_examples(data["dev"])
    scores = score_predictions(
        read_json(finished / "predictions.json"),
        examples,
        null_odds=read_json(finished / "null_odds.json"),
    )
    metrics = read_json(finished / "metrics.json")
    assert scores["NoAns_total"] == 5
    assert {name: metrics[name] for name in scores} == pytest.approx(scores)


def test_the_best_checkpoint_is_kept_and_saved(finished: Path) -> None:
    """model/ holds the checkpoint with the highest F1, how to decode, and the null threshold."""
    metrics = read_json(finished / "metrics.json")
    folders = sorted((finished / "scoring").iterdir())
    assert [folder.name for folder in folders] == [f"step-{n:08d}" for n in (0, 10, 20)]
    curve = [read_json(folder / "metrics.json") for folder in folders]
    assert metrics["f1"] == max(row["f1"] for row in curve)
    best = next(row for row in curve if row["f1"] == metrics["f1"])
    assert (metrics["best_step"], metrics["best_epoch"]) == (best["step"], best["epoch"])
    stored = read_json(finished / "model" / "config.json")[SETTINGS_KEY]
    assert stored["null_threshold"] == metrics["null_threshold"]
    assert (stored["max_length"], stored["n_best"]) == (96, 20)
    assert not (finished / "model" / "training_state.pt").exists()
    answerer = Answerer.from_pretrained(str(finished / "model"))
    assert answerer.settings == stored


def test_the_model_has_a_card_of_its_run(finished: Path, data: dict[str, str]) -> None:
    """model/README.md: the run's scores, data by name, settings; nothing of where it was made."""
    card = ModelCard.load(finished / "model" / "README.md")
    metrics = read_json(finished / "metrics.json")
    scores = {r.metric_name: r.metric_value for r in card.data.eval_results or []}
    assert {name: round(metrics[name], 2) for name in scores} == scores
    assert set(scores) >= {"exact", "f1", "HasAns_f1", "NoAns_f1"}
    assert "<code>train.json</code> | 80 | " in card.text
    assert f"Null threshold: **{metrics['null_threshold']:.4f}**" in card.text
    assert f"step {metrics['best_step']} (epoch" in card.text
    assert "| <code>train.learning_rate</code> | 0.001 |" in card.text
    assert not [place for place in (str(finished.parent), data["train"]) if place in str(card)]


def test_a_push_that_fails_loses_nothing_and_is_made_up_for(
    finished: Path,
    data: dict[str, str],
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """All results are there, shown, and told of in the error; the same command again pushes."""
    shutil.copytree(finished, tmp_path / "run")
    shutil.copytree(finished.parent / "prepared", tmp_path / "prepared")
    run = tmp_path / "run"
    (run / "metrics.json").unlink()
    shutil.rmtree(run / "model")
    command = settings(data, tiny_model, tmp_path, **{"hub.repo_id": "bridges/orla"})
    with hub_server() as hub:
        hub.refused["commit"] = 403
        with (
            hub_at(hub.address, tmp_path / "home"),
            pytest.raises(StorageError, match=r"not pushed \(403.*the same command again pushes"),
        ):
            train.main(command)
        assert "Best checkpoint" in capsys.readouterr().out
        for name in ("metrics.json", "model/README.md", "model/config.json"):
            assert (run / name).read_bytes() == (finished / name).read_bytes()
        hub.refused.clear()
        outputs = []
        for _ in range(2):
            done = subprocess.run(
                [sys.executable, "-m", "jobs.train", *command],
                env={**os.environ, **hub_environment(hub.address, tmp_path / "home")},
                capture_output=True,
                text=True,
                check=False,
                timeout=120,
            )
            assert done.returncode == 0, done.stderr
            outputs.append(done.stdout)
    assert "Pushed to the Hub" in outputs[0]
    assert "On the Hub already" in outputs[1]
    assert hub.files["bridges/orla"] == {
        file.name: file.read_bytes() for file in (run / "model").iterdir()
    }


def test_the_answerer_gives_what_the_run_predicted(finished: Path, data: dict[str, str]) -> None:
    """One decoder: predictions.json and a call of the saved model agree."""
    examples, _ = read_examples(data["dev"])
    predictions = read_json(finished / "predictions.json")
    answerer = Answerer.from_pretrained(str(finished / "model"))
    rows = examples.slice(0, 12).to_pylist()
    found = answerer(
        question=[row["question"] for row in rows], context=[row["context"] for row in rows]
    )
    assert [answer["answer"] for answer in found] == [predictions[row["id"]] for row in rows]


def test_a_finished_run_is_shown_again_and_another_is_refused(
    finished: Path, data: dict[str, str], tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same command does no work twice; the same name with other settings is an error."""
    before = (finished / "metrics.json").stat().st_mtime_ns
    train.main(settings(data, tiny_model, finished.parent))
    assert "finished already" in capsys.readouterr().out
    assert (finished / "metrics.json").stat().st_mtime_ns == before
    other = settings(data, tiny_model, finished.parent, **{"train.seed": 5})
    with pytest.raises(ConfigError, match=r"train\.seed was 0, is 5.*another --run_name"):
        train.main(other)


def test_a_run_is_not_continued_on_other_data(
    finished: Path, data: dict[str, str], tiny_model: Path, tmp_path: Path
) -> None:
    """The same settings, a file that changed under its name: refused, not mixed."""
    copy = tmp_path / "train.json"
    shutil.copy(data["train"], copy)
    shutil.copytree(finished, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints"))
    config = tmp_path / "run" / "config.yaml"
    config.write_text(config.read_text().replace(data["train"], str(copy)))
    copy.write_text(copy.read_text().replace("When", "when", 1))
    changed = settings({**data, "train": str(copy)}, tiny_model, tmp_path)
    with pytest.raises(ConfigError, match=r"content of train was '.*', is '.*'"):
        train.main(changed)


def test_a_run_continues_from_its_last_checkpoint(
    finished: Path, data: dict[str, str], tiny_model: Path, tmp_path: Path
) -> None:
    """A copy that lost its last epoch and its results ends with the same files."""
    shutil.copytree(finished, tmp_path / "run")
    shutil.copytree(finished.parent / "prepared", tmp_path / "prepared")
    run = tmp_path / "run"
    for name in ("metrics.json", "predictions.json", "metrics.jsonl"):
        (run / name).unlink()
    train.main(settings(data, tiny_model, tmp_path))
    for name in ("metrics.json", "predictions.json", "metrics.jsonl", "null_odds.json"):
        assert (run / name).read_bytes() == (finished / name).read_bytes()


def test_two_workers_follow_the_course_of_one(
    finished: Path, data: dict[str, str], tiny_model: Path, tmp_path: Path
) -> None:
    """Through Ray Train, same global batch, dropout off: losses within 1e-4 over 20 steps."""
    more = {"scaling.num_workers": 2, "train.per_worker_batch_size": 4}
    train.main(settings(data, tiny_model, tmp_path, **more))
    losses = [
        [e["loss"] for e in map(json.loads, path.read_text().splitlines()) if e["event"] == "step"]
        for path in (finished / "metrics.jsonl", tmp_path / "run" / "metrics.jsonl")
    ]
    assert len(losses[0]) == 20
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)


def test_evaluate_uses_the_stored_windows_and_threshold(
    finished: Path, data: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run's own dev data gives the run's own scores."""
    evaluate.main(
        [f"--model={finished / 'model'}", f"--data.dev={data['dev']}", f"--storage_path={tmp_path}"]
    )
    metrics = read_json(tmp_path / "evaluation" / "metrics.json")
    expected = read_json(finished / "metrics.json")
    del expected["best_epoch"], expected["best_step"]
    assert metrics == pytest.approx(expected)
    assert "stored with the model" in capsys.readouterr().out
    predictions = (tmp_path / "evaluation" / "predictions.json").read_bytes()
    assert predictions == (finished / "predictions.json").read_bytes()


def test_evaluate_a_foreign_model_on_answerable_questions(
    tiny_model: Path, data: dict[str, str], tmp_path: Path
) -> None:
    """A model without stored settings, v1.1 data: every question gets a span, v1.1's names."""
    evaluate.main(
        [
            f"--model={tiny_model}",
            f"--data.dev={data['answerable']}",
            f"--storage_path={tmp_path}",
            "--max_length=96",
            "--doc_stride=32",
        ]
    )
    metrics = read_json(tmp_path / "evaluation" / "metrics.json")
    assert metrics["exact_match"] == metrics["exact"]
    assert "null_threshold" not in metrics
    assert all(read_json(tmp_path / "evaluation" / "predictions.json").values())
    assert not (tmp_path / "evaluation" / "null_odds.json").exists()


def test_predict_answers_a_typed_question(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The answer is in the text, markup in the question is shown as it was typed."""
    text = tmp_path / "text.txt"
    text.write_text("The bridge was opened in 1912 by Marta Held.", encoding="utf-8")
    predict.main(
        ["--ask=When was [bold]it opened?", f"--context={text}", f"--model={finished / 'model'}"]
    )
    shown = capsys.readouterr().out
    assert "When was [bold]it opened?" in shown
    assert "probability" in shown


def prepare_folder(storage: Path) -> list[Path]:
    """Folders of prepared data."""
    return sorted((storage / "prepared").iterdir())


def find_prepared(files: list[str], model: Path, storage: Path, **sizes: Any) -> Prepared:
    """What `jobs.prepare` left of the train files."""
    settings = FeatureSettings(**{"max_length": 96, "doc_stride": 24, **sizes})
    split = prepare.find_split(DataSettings(train=files), "train")
    folder = prepare.prepared_folder(str(storage), split, str(model))
    prepared = load_prepared(folder, str(model), settings)
    assert prepared is not None
    return prepared


def prepare_arguments(train_files: list[str], dev: str, model: Path, storage: Path) -> list[str]:
    """A command line of `jobs.prepare`."""
    return [
        f"--data.train={json.dumps(train_files)}",
        f"--data.dev={dev}",
        f"--model.name_or_path={model}",
        "--features.max_length=96",
        "--features.doc_stride=24",
        f"--storage_path={storage}",
    ]


def test_prepared_features_equal_those_of_one_process(
    data: dict[str, str], tiny_model: Path, tmp_path: Path
) -> None:
    """Sharded by Ray Data or built in one call: the same rows in the same order."""
    files = [data["train"], data["answerable"]]
    prepare.main(prepare_arguments(files, data["dev"], tiny_model, tmp_path))
    prepared = find_prepared(files, tiny_model, tmp_path)
    assert len(prepared.shards) == 2
    examples, _ = read_examples(files)
    expected = build_features(
        examples, tokenizer=load_tokenizer(str(tiny_model)), max_length=96, doc_stride=24
    )
    feed = WindowFeed(window_blocks(prepared))
    assert feed.take(np.arange(len(feed))).equals(expected)
    backwards = np.arange(len(feed))[::-1]
    assert feed.take(backwards).equals(expected.take(pa.array(backwards)))
    assert prepared.num_tokens == sum(len(ids) for ids in expected["input_ids"].to_pylist())


def test_prepare_makes_nothing_twice_and_never_reuses_changed_input(
    data: dict[str, str], tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Same content: found on storage; one changed letter: made anew."""
    copy = tmp_path / "train.json"
    shutil.copy(data["train"], copy)
    arguments = prepare_arguments([str(copy)], data["dev"], tiny_model, tmp_path)
    prepare.main(arguments)
    assert "found on storage" not in capsys.readouterr().out
    before = prepare_folder(tmp_path)
    prepare.main(arguments)
    assert capsys.readouterr().out.count("found on storage") == 2
    copy.write_text(copy.read_text().replace("When", "when", 1))
    prepare.main(arguments)
    assert len(prepare_folder(tmp_path)) == len(before) + 1


def test_bad_records_are_listed_and_many_stop_the_run(
    data: dict[str, str], tiny_model: Path, tmp_path: Path
) -> None:
    """Rejections carry file, record and reason; over 1 % the run stops and says what to do."""
    document = read_json(Path(data["train"]))
    questions = [q for a in document["data"] for p in a["paragraphs"] for q in p["qas"]]
    questions[3]["id"] = questions[1]["id"]
    questions[7]["question"] = "who " * 80
    questions[9]["answers"] = [{"text": "never there", "answer_start": 0}]
    questions[9]["is_impossible"] = False
    broken = write_json(tmp_path / "broken.json", document)
    arguments = prepare_arguments([broken], data["dev"], tiny_model, tmp_path)
    with pytest.raises(DataError, match=r"records cannot be used \(.*data.max_rejected_fraction"):
        prepare.main(arguments)
    prepare.main([*arguments, "--data.max_rejected_fraction=0.1"])
    with pytest.raises(DataError, match="records cannot be used"):  # also when found on storage
        prepare.main(arguments)
    rejected = read_rejections(find_prepared([broken], tiny_model, tmp_path)).to_pylist()
    assert [(r["record"], r["reason"]) for r in rejected] == [
        (3, "duplicate id"),
        (9, "answer not at answer_start"),
        (7, "question leaves no room"),
    ]
    assert {r["source"] for r in rejected} == {broken}


@pytest.mark.parametrize(
    ("content", "message"),
    [("", "the file is empty"), ("[1, 2]", "JSON, but not SQuAD's"), ('{"a', "not JSON at line 1")],
)
def test_an_error_in_a_remote_task_is_told_as_it_was_raised(
    content: str, message: str, data: dict[str, str], tiny_model: Path, tmp_path: Path
) -> None:
    """A file that cannot be read: file, what was found, what was expected; no traceback."""
    file = tmp_path / "train.json"
    file.write_text(content)
    with pytest.raises(Exception, match=message) as caught:
        train.main(settings({**data, "train": str(file)}, tiny_model, tmp_path))
    cause = root_cause(caught.value)
    assert isinstance(cause, DataError)
    assert str(cause).startswith(f"{file}: {message}")
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_features_outlive_the_model_they_were_made_with(
    finished: Path, data: dict[str, str], tmp_path: Path
) -> None:
    """Another model with the same tokenizer, given as a URI, is scored on stored features."""
    for name in ("first", "second"):
        shutil.copytree(finished / "model", tmp_path / name)
        uri = (tmp_path / name).as_uri()
        where = [f"--model={uri}", f"--run_name={name}-scores", f"--storage_path={tmp_path}"]
        evaluate.main([*where, f"--data.dev={data['dev']}"])
        shutil.rmtree(tmp_path / name)
    assert len(prepare_folder(tmp_path)) == 1
    scores = [read_json(tmp_path / f"{n}-scores" / "metrics.json") for n in ("first", "second")]
    assert scores[0] == scores[1]


def test_a_checkpoint_that_was_not_scored_is_scored_at_the_end(
    finished: Path, data: dict[str, str], tiny_model: Path, tmp_path: Path
) -> None:
    """Scoring that failed beside the training does not drop the epoch from the choice."""
    shutil.copytree(finished, tmp_path / "run")
    shutil.copytree(finished.parent / "prepared", tmp_path / "prepared")
    run = tmp_path / "run"
    (run / "metrics.json").unlink()
    shutil.rmtree(run / "scoring" / "step-00000020")
    train.main(settings(data, tiny_model, tmp_path))
    assert (run / "scoring" / "step-00000020" / "metrics.json").read_bytes() == (
        finished / "scoring" / "step-00000020" / "metrics.json"
    ).read_bytes()


def test_duplicate_ids_across_files_and_shared_passages_are_told(
    data: dict[str, str], tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second file's records are rejected; dev passages in train give a warning with counts."""
    files = [data["dev"], data["answerable"]]
    arguments = prepare_arguments(files, data["dev"], tiny_model, tmp_path)
    prepare.main([*arguments, "--data.max_rejected_fraction=0.5"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "records rejected (duplicate id: 21)" in shown
    assert "10 of 10 dev passages are also in train" in shown


def test_more_workers_than_the_cluster_has_are_refused(
    data: dict[str, str], tiny_model: Path, tmp_path: Path
) -> None:
    """The arithmetic is in the error, and no feature was made."""
    more = {"scaling.num_workers": 64}
    with pytest.raises(ResourceError, match="64 workers x 1 CPU = 64 CPU, and the cluster has 4"):
        train.main(settings(data, tiny_model, tmp_path, **more))
    assert not (tmp_path / "prepared").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data.train": "nowhere.json"}, "nowhere.json: no such file"),
        ({"features.doc_stride": 93}, "doc_stride 93 is too large for max_length 96"),
        ({"features.max_length": 129}, "max_length 129 is above the model's 128"),
        ({"model.name_or_path": "./nowhere"}, "./nowhere: no such folder"),
        ({"storage_path": "/proc/none"}, "/proc/none.*cannot be written"),
        ({"run_name": "../run"}, "run_name: '../run' is no name of a run"),
        ({"train.learning_rat": 1}, "unknown key 'train.learning_rat'.*'train.learning_rate'"),
    ],
)
def test_bad_settings_are_refused_before_any_work(
    change: dict[str, Any], message: str, data: dict[str, str], tiny_model: Path, tmp_path: Path
) -> None:
    """What, where, expected, what to do; nothing is left on storage."""
    with pytest.raises(QAError, match=message):
        train.main(settings(data, tiny_model, tmp_path, **change))
    assert not list(tmp_path.iterdir())


def test_a_failing_job_ends_with_its_error_and_status(tmp_path: Path) -> None:
    """The last line of the log is the error; the exit status is not 0."""
    command = [sys.executable, "-m", "jobs.train", f"--data.train={tmp_path}/none.json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"error: {tmp_path}/none.json: no such file or folder")


def submit(ray_url: str, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """`ray job submit --working-dir . -- python -m jobs.train …`, as a person types it."""
    command = [
        str(Path(sys.executable).with_name("ray")),
        *("job", "submit", f"--address={ray_url}", "--working-dir", str(TOP)),
        *("--", sys.executable, "-m", "jobs.train", *arguments),
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=500)


@pytest.mark.slow
def test_a_submitted_job_leaves_the_same_files(
    finished: Path, data: dict[str, str], tiny_model: Path, tmp_path: Path, local_ray: LocalRay
) -> None:
    """Through `ray start --head` and `ray job submit`: the artefacts of a run started here."""
    done = submit(local_ray.dashboard, settings(data, tiny_model, tmp_path))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert {path.name for path in (tmp_path / "run").iterdir()} == ARTEFACTS
    for name in ("metrics.json", "predictions.json", "metrics.jsonl"):
        assert (tmp_path / "run" / name).read_bytes() == (finished / name).read_bytes()


@pytest.mark.slow
def test_a_submitted_job_that_fails_says_why_last(local_ray: LocalRay) -> None:
    """Exit status not 0; the job's log ends with the error, before the client's own lines."""
    from ray.job_submission import JobStatus, JobSubmissionClient

    done = submit(local_ray.dashboard, ["--storage_path=relative"])
    assert done.returncode != 0
    client = JobSubmissionClient(local_ray.dashboard)
    jobs = [job for job in client.list_jobs() if job.status == JobStatus.FAILED]
    assert [job.driver_exit_code for job in jobs] == [2]
    log = client.get_job_logs(jobs[0].submission_id)
    assert log.strip().splitlines()[-1].startswith("error: storage_path: 'relative' is relative")


def test_nothing_is_gathered_as_python_rows_between_shards(finished: Path) -> None:
    """What is on storage between stages is Arrow, in the tables' own types."""
    tables = [
        pa.ipc.open_file(str(path)).read_all()
        for path in (finished.parent / "prepared").rglob("tokens-*.arrow")
    ]
    assert tables
    assert {table.schema for table in tables} == {TOKENS}
