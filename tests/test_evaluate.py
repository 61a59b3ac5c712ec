"""Evaluation: windows compared, predictions from elsewhere scored, differences judged."""

import json
from pathlib import Path

import pytest

from jobs import evaluate
from qa_core.errors import ConfigError, DataError
from qa_core.reading import read_examples
from qa_core.run_files import read_run
from qa_core.scoring import score_predictions
from tests.conftest import LocalRay
from tests.runs import read_json, write_json


def given(data: dict[str, str], predictions: str, storage: Path, *more: str) -> list[str]:
    """A command line that scores a file of predictions."""
    files = [f"--predictions={predictions}", f"--data.dev={data['dev']}"]
    return [*files, f"--storage_path={storage}", *more]


@pytest.fixture
def answers(data: dict[str, str]) -> dict[str, str]:
    """Predictions for the dev questions: every third right, every fourth empty."""
    examples, _ = read_examples([data["dev"]])
    found = {}
    for number, row in enumerate(examples.to_pylist()):
        right = (row["answers"]["text"] or [""])[0]
        wrong = row["context"].split()[number % 5]
        found[row["id"]] = right if number % 3 == 0 else "" if number % 4 == 0 else wrong
    assert len(found) == 40
    return found


def test_given_predictions_are_scored_without_a_model_or_ray(
    data: dict[str, str], answers: dict[str, str], tmp_path: Path
) -> None:
    """The figures of `score_predictions`; with odds the best thresholds; files of the run."""
    file = write_json(tmp_path / "theirs.json", answers)
    odds = {name: float(number) for number, name in enumerate(answers)}
    odds_file = write_json(tmp_path / "odds.json", odds)
    evaluate.main(given(data, file, tmp_path, f"--null_odds={odds_file}"))
    examples, _ = read_examples([data["dev"]])
    run = tmp_path / "evaluation"
    assert read_json(run / "metrics.json") == score_predictions(answers, examples, null_odds=odds)
    analysis = read_json(run / "analysis.json")
    assert set(analysis) == {"intervals", "slices"}
    low, high = analysis["intervals"]["f1"]
    assert low < read_json(run / "metrics.json")["f1"] < high
    assert sum(row["total"] for row in analysis["slices"]["question_word"]) == 40
    files = read_run(str(run))
    assert files.explorer is not None
    shown = {row["id"]: row["answer"] for row in files.explorer.to_pylist()}
    assert shown == answers
    assert "By question word" in (run / "report.html").read_text()


def test_missing_and_unknown_ids_are_named(
    data: dict[str, str],
    answers: dict[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Nothing is scored by halves: missing ones count as empty only on request."""
    first = next(iter(answers))
    fewer = {name: text for name, text in answers.items() if name != first}
    file = write_json(tmp_path / "fewer.json", fewer)
    with pytest.raises(DataError, match=rf"1 missing ids \({first}\).*allow_missing"):
        evaluate.main(given(data, file, tmp_path))
    evaluate.main(given(data, file, tmp_path, "--allow_missing"))
    assert "1 questions have no prediction" in " ".join(capsys.readouterr().out.split())
    assert read_json(tmp_path / "evaluation" / "metrics.json")["total"] == 40
    more = write_json(tmp_path / "more.json", {**answers, "stranger": "x"})
    with pytest.raises(DataError, match=r"1 unknown ids \(stranger\)"):
        evaluate.main(given(data, more, tmp_path, "--run_name=more", "--allow_missing"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1]", "JSON, but a list"),
        ("{", "not JSON"),
        ('{"q": 1}', "id 'q' has 1"),
        ('{"q": null}', "id 'q' has None"),
    ],
)
def test_a_file_that_is_no_predictions_is_refused(
    content: str, message: str, data: dict[str, str], tmp_path: Path
) -> None:
    """File, what was found, what was expected; no run is begun."""
    file = tmp_path / "broken.json"
    file.write_text(content)
    with pytest.raises(DataError, match=message):
        evaluate.main(given(data, str(file), tmp_path))
    assert not (tmp_path / "evaluation" / "config.yaml").exists()


def test_a_rejected_record_may_have_a_prediction(
    data: dict[str, str], answers: dict[str, str], tmp_path: Path
) -> None:
    """The record is listed; its prediction is not an unknown id."""
    document = read_json(Path(data["dev"]))
    broken = next(
        question
        for article in document["data"]
        for paragraph in article["paragraphs"]
        for question in paragraph["qas"]
        if question["answers"]
    )
    broken["answers"][0]["answer_start"] = 10**6
    files = {"dev": write_json(tmp_path / "dev.json", document)}
    theirs = write_json(tmp_path / "theirs.json", answers)
    more = "--data.max_rejected_fraction=0.1"
    evaluate.main(given(files, theirs, tmp_path, more))
    assert read_json(tmp_path / "evaluation" / "metrics.json")["total"] == 39
    rejected = (tmp_path / "evaluation" / "rejections.jsonl").read_text()
    assert json.loads(rejected)["id"] == broken["id"]
    with pytest.raises(DataError, match="1 of 40 records cannot be used"):
        evaluate.main(given(files, theirs, tmp_path, "--run_name=strict"))


def test_two_files_of_predictions_are_compared(
    data: dict[str, str],
    answers: dict[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The same file is not distinguishable from itself; the right answers are higher."""
    examples, _ = read_examples([data["dev"]])
    right = {row["id"]: (row["answers"]["text"] or [""])[0] for row in examples.to_pylist()}
    theirs = write_json(tmp_path / "theirs.json", answers)
    best = write_json(tmp_path / "best.json", right)
    evaluate.main(given(data, theirs, tmp_path, f"--compare={theirs}"))
    same = read_json(tmp_path / "evaluation" / "compare.json")["f1"]
    assert (same["difference"], same["verdict"]) == (0, "not distinguishable at this size")
    evaluate.main(given(data, best, tmp_path, f"--compare={theirs}", "--run_name=best"))
    better = read_json(tmp_path / "best" / "compare.json")["f1"]
    assert better["low"] > 0
    assert better["verdict"] == "distinguishable at this size"
    assert "distinguishable at this size" in capsys.readouterr().out


@pytest.mark.parametrize("more", ["--null_odds=odds.json", "--allow_missing"])
def test_settings_that_would_do_nothing_are_refused(more: str) -> None:
    """Both are about a file of predictions."""
    with pytest.raises(ConfigError, match="without"):
        evaluate.main([more])


def test_a_language_changes_how_answers_are_compared(
    data: dict[str, str], answers: dict[str, str], tmp_path: Path
) -> None:
    """German articles count by the official rules, and not by MLQA's for German."""
    examples, _ = read_examples([data["dev"]])
    german = {
        row["id"]: " ".join(["der", *(row["answers"]["text"] or [])[:1]])
        for row in examples.to_pylist()
    }
    file = write_json(tmp_path / "german.json", german)
    scores = []
    for name, more in (("official", []), ("german", ["--scoring.language=de"])):
        evaluate.main(given(data, file, tmp_path, f"--run_name={name}", *more))
        scores.append(read_json(tmp_path / name / "metrics.json")["HasAns_exact"])
    assert scores == [0, 100]


@pytest.mark.ray
def test_windows_are_compared_in_one_call(
    data: dict[str, str],
    tiny_model: Path,
    local_ray: LocalRay,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A line a size, the impossible one left out and said; the best size's files are the run's."""
    common = [f"--model={tiny_model}", f"--data.dev={data['dev']}", f"--storage_path={tmp_path}"]
    evaluate.main([*common, "--max_length=[96, 64]", "--doc_stride=[16, 30]", "--run_name=grid"])
    rows = read_json(tmp_path / "grid" / "windows.json")
    sizes = [(row["max_length"], row["doc_stride"]) for row in rows]
    assert sizes == [(96, 16), (96, 30), (64, 16), (64, 30)]
    best = [row for row in rows if row["is_best"]]
    assert len(best) == 1
    assert best[0]["f1"] == max(row["f1"] for row in rows)
    shown = capsys.readouterr().out
    assert "Scores by max_length/doc_stride" in shown
    size = [f"--{name}={best[0][name]}" for name in ("max_length", "doc_stride")]
    evaluate.main([*common, *size, "--run_name=single"])
    for name in ("metrics.json", "predictions.json", "analysis.json", "null_odds.json"):
        single = (tmp_path / "single" / name).read_bytes()
        assert (tmp_path / "grid" / name).read_bytes() == single
    evaluate.main([*common, "--max_length=[96, 20]", "--doc_stride=30", "--run_name=part"])
    assert "left out: features.doc_stride: doc_stride 30" in " ".join(
        capsys.readouterr().out.split()
    )
    assert not (tmp_path / "part" / "windows.json").exists()


@pytest.mark.ray
def test_answers_do_not_depend_on_how_the_data_is_split(
    data: dict[str, str],
    tiny_model: Path,
    local_ray: LocalRay,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One piece, a piece a question, other files: the same answers, logits equal to rounding."""
    document = read_json(Path(data["dev"]))
    halves = [{**document, "data": document["data"][k::2]} for k in (1, 0)]
    paths = [write_json(tmp_path / f"half{k}.json", half) for k, half in enumerate(halves)]
    found = {}
    for name, sources, tokens in (
        ("whole", data["dev"], 2**20),
        ("pieces", data["dev"], 900),
        ("files", json.dumps(paths), 2**20),
    ):
        monkeypatch.setattr("jobs.window_plans.TOKENS_PER_PIECE", tokens)
        storage = tmp_path / name
        common = [f"--model={tiny_model}", f"--data.dev={sources}", f"--storage_path={storage}"]
        evaluate.main([*common, "--max_length=96", "--doc_stride=30"])
        answers = list((storage / "evaluation" / "scoring" / "96-30").glob("answers-*"))
        assert len(answers) > 1 or name == "whole"
        found[name] = [
            read_json(storage / "evaluation" / f"{file}.json")
            for file in ("predictions", "metrics", "null_odds")
        ]
    for name in ("pieces", "files"):
        assert found[name][0] == found["whole"][0]
        assert found[name][1] == pytest.approx(found["whole"][1])
        assert found[name][2] == pytest.approx(found["whole"][2])
