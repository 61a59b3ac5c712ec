"""Answers to questions of a data set: the Answerer's own, in files that a run adds to."""

import json
import math
import shutil
import statistics
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from jobs import predict
from jobs.cluster import root_cause
from qa_core.answering import SETTINGS_KEY, Answerer
from qa_core.demo_corpus import generate_corpus
from qa_core.errors import ConfigError, DataError, ModelError, QAError
from qa_core.schemas import PREDICTED
from tests.runs import read_json

ray = pytest.mark.ray
on_ray = pytest.mark.usefixtures("local_ray")

NUM_FILES = 3


def question_rows() -> list[dict[str, Any]]:
    """Questions of generated passages, without answers."""
    articles = generate_corpus("dev", num_passages=9)["data"]
    return [
        {"id": qa["id"], "question": qa["question"], "context": paragraph["context"]}
        for article in articles
        for paragraph in article["paragraphs"]
        for qa in paragraph["qas"]
    ]


def write_lines(file: Path, rows: list[dict[str, Any]]) -> str:
    """JSON lines; the path as text."""
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(file)


def read_answers(run: Path) -> list[dict[str, Any]]:
    """The rows of a run's files of answers, file by file in the order of their names."""
    rows: list[dict[str, Any]] = []
    for file in sorted((run / "answers").iterdir()):
        if file.suffix == ".parquet":
            table = parquet.read_table(file)
            assert table.schema == PREDICTED
            rows += table.to_pylist()
        else:
            rows += map(json.loads, file.read_text(encoding="utf-8").splitlines())
    return rows


def with_settings(model: Path, folder: Path, **settings: Any) -> Path:
    """A copy of a model with windows, decoding and threshold stored in it."""
    shutil.copytree(model, folder)
    config = read_json(folder / "config.json")
    config[SETTINGS_KEY] = settings
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    """All questions."""
    return question_rows()


@pytest.fixture(scope="module")
def questions(rows: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three files of questions."""
    folder = tmp_path_factory.mktemp("questions")
    size = math.ceil(len(rows) / NUM_FILES)
    for number in range(NUM_FILES):
        write_lines(folder / f"{number}.jsonl", rows[number * size : (number + 1) * size])
    return folder


@pytest.fixture(scope="module")
def model(
    tiny_model: Path, rows: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The tiny model with a null threshold that half of the questions are above."""
    sizes = {"max_length": 96, "doc_stride": 24}
    answerer = Answerer.from_pretrained(str(tiny_model))
    answerer.settings = sizes | {"null_threshold": -1e9}  # the null answer comes first
    pairs = [(row["question"], row["context"]) for row in rows]
    both = answerer(pairs, top_k=2)
    odds = [math.log(null["score"] / best["score"]) for null, best in both]
    threshold = statistics.median(odds) + 1e-6  # not on a question's own odds
    folder = tmp_path_factory.mktemp("predicting") / "model"
    return with_settings(tiny_model, folder, **sizes, null_threshold=threshold)


def arguments(model: Path, questions: Path | str, storage: Path, *more: str) -> list[str]:
    """A command line that answers a data set."""
    given = [f"--model={model}", f"--data.questions={questions}", f"--storage_path={storage}"]
    return [*given, *more]


@pytest.fixture(scope="module")
def finished(model: Path, questions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with its answers."""
    storage = tmp_path_factory.mktemp("storage")
    predict.main(arguments(model, questions, storage))
    return storage / "answers"


@ray
@on_ray
def test_bulk_answers_are_the_answerers(
    finished: Path, model: Path, rows: list[dict[str, Any]]
) -> None:
    """Every question in the order of the data: same text, characters, probability, candidates."""
    answers = read_answers(finished)
    assert len(list((finished / "answers").iterdir())) == NUM_FILES
    assert [answer["id"] for answer in answers] == [row["id"] for row in rows]
    assert (finished / "rejections.jsonl").read_text() == ""
    found = Answerer.from_pretrained(str(model))(rows, top_k=3)
    assert 0 < sum(answer["start"] < 0 for answer in answers) < len(rows)
    for row, answer, expected in zip(rows, answers, found, strict=True):
        assert list(answer) == PREDICTED.names
        shown = [(n["text"], n["start"], n["end"]) for n in answer["n_best"]]
        assert shown == [(e["answer"], e["start"], e["end"]) for e in expected]
        assert shown[0] == (answer["answer"], answer["start"], answer["end"])
        assert answer["probability"] == pytest.approx(expected[0]["score"], abs=1e-5)
        spans = [span for span in shown if span[1] >= 0]
        assert all(text == row["context"][start:end] for text, start, end in spans)
        odds = answer["null_odds"]
        assert (odds > read_json(model / "config.json")[SETTINGS_KEY]["null_threshold"]) == (
            answer["start"] < 0
        )
        assert answer["no_answer_probability"] == pytest.approx(1 / (1 + math.exp(-odds)))


@ray
@on_ray
def test_the_same_command_answers_what_is_missing(
    finished: Path,
    model: Path,
    questions: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The files that are there stay as they are, and the lost one is made with the same bytes."""
    shutil.copytree(finished.parent, tmp_path / "storage")
    folder = tmp_path / "storage" / "answers" / "answers"
    files = sorted(folder.iterdir())
    expected = {file.name: file.read_bytes() for file in files}
    files[1].unlink()
    before = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    predict.main(arguments(model, questions, tmp_path / "storage"))
    shown = " ".join(capsys.readouterr().out.split())
    assert "Answered before: 2 of 3 files." in shown
    assert "stored with the model" in shown
    num_null = sum(row["start"] < 0 for row in read_answers(finished))
    num_questions = len(read_answers(finished))
    assert f"{num_questions} questions, {num_null} of them without an answer: {folder}" in shown
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == expected
    assert {file: file.stat().st_mtime_ns for file in before} == before


@ray
@on_ray
def test_parquet_holds_what_json_lines_hold(
    finished: Path, model: Path, questions: Path, tmp_path: Path
) -> None:
    """The same rows in files of the same pieces; counted when found, too."""
    run = arguments(model, questions, tmp_path, "--format=parquet", "--run_name=columns")
    predict.main(run)
    predict.main(run)
    assert read_answers(tmp_path / "columns") == read_answers(finished)
    names = [file.stem for file in sorted((tmp_path / "columns" / "answers").iterdir())]
    assert names == [file.stem for file in sorted((finished / "answers").iterdir())]


@ray
@on_ray
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("--top_k=5", r"top_k was 3, is 5.*another --run_name"),
        ("--format=parquet", "format was 'jsonl', is 'parquet'"),
        ("--null_threshold=1", "null_threshold was None, is 1.0"),
    ],
)
def test_other_settings_under_the_same_name_are_refused(
    change: str, message: str, finished: Path, model: Path, questions: Path
) -> None:
    """Files of two kinds of answers would lie side by side."""
    with pytest.raises(ConfigError, match=message):
        predict.main(arguments(model, questions, finished.parent, change))


@ray
@on_ray
def test_a_model_without_settings_gives_its_best_spans(
    tiny_model: Path, rows: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No threshold, no null answer, no odds; windows as large as the model takes."""
    file = write_lines(tmp_path / "questions.jsonl", rows[:8])
    predict.main(arguments(tiny_model, file, tmp_path, "--top_k=1"))
    answers = read_answers(tmp_path / "answers")
    found = Answerer.from_pretrained(str(tiny_model))(rows[:8])
    assert [(a["answer"], a["start"]) for a in answers] == [
        (f["answer"], f["start"]) for f in found
    ]
    assert {(a["null_odds"], a["no_answer_probability"]) for a in answers} == {(None, None)}
    assert all(len(answer["n_best"]) == 1 for answer in answers)
    assert "Null threshold: none" in " ".join(capsys.readouterr().out.split())


@ray
@pytest.mark.slow
@on_ray
def test_a_context_of_a_hundred_thousand_words(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Found at its very end, with characters of the whole text; the threshold is as configured."""
    words = " ".join(f"word{number % 977}" for number in range(100_000))
    row = {"id": "long", "question": "Who opened it?", "context": f"{words} by Marta Held."}
    file = write_lines(tmp_path / "long.jsonl", [row, row | {"id": "again", "question": "Who?"}])
    predict.main(arguments(model, file, tmp_path, "--null_threshold=1e9", "--top_k=20"))
    answers = read_answers(tmp_path / "answers")
    assert [answer["id"] for answer in answers] == ["long", "again"]
    for answer in answers:
        spans = [n for n in answer["n_best"] if n["start"] >= 0]
        assert len(spans) >= 19
        assert all(n["text"] == row["context"][n["start"] : n["end"]] for n in spans)
    assert "Null threshold: 1e+09, as configured." in " ".join(capsys.readouterr().out.split())


@ray
@on_ray
def test_records_that_cannot_be_used_are_listed_and_the_others_answered(
    model: Path, rows: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An empty context, a repeated id, a question without room, a broken line."""
    bad = [
        rows[0] | {"id": "a", "context": " "},
        rows[0],
        rows[0] | {"id": "b", "question": "who " * 90},
    ]
    file = write_lines(tmp_path / "mixed.jsonl", [*rows[:4], *bad])
    with Path(file).open("a") as stream:
        stream.write("{broken\n")
    predict.main(arguments(model, file, tmp_path))
    assert [row["id"] for row in read_answers(tmp_path / "answers")] == [r["id"] for r in rows[:4]]
    listed = [
        json.loads(line)
        for line in (tmp_path / "answers" / "rejections.jsonl").read_text().splitlines()
    ]
    assert {(row["record"], row["reason"]) for row in listed} == {
        (4, "missing context"),
        (5, "duplicate id"),
        (6, "question leaves no room"),
        (7, "malformed record"),
    }
    shown = " ".join(capsys.readouterr().out.split())
    assert "4 records could not be used:" in shown
    with pytest.raises(DataError, match="4 of 8 records cannot be used"):
        predict.main(
            arguments(model, file, tmp_path, "--data.max_rejected_fraction=0.1", "--run_name=b")
        )


@ray
@on_ray
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the file is empty"),
        ('{"id": "a", "context": "text"}\n', r"no usable question \(1 records rejected\)"),
        (
            json.dumps({"id": "a", "context": "text", "question": "who " * 99}),
            r"no question can be cut into windows; the first: .*= -\d+",
        ),
    ],
)
def test_data_without_a_question_is_an_error(
    content: str, message: str, model: Path, tmp_path: Path
) -> None:
    """Not a folder without answers; nothing of the run is written."""
    file = tmp_path / "none.jsonl"
    file.write_text(content)
    with pytest.raises(Exception, match=message) as caught:
        predict.main(arguments(model, file, tmp_path))
    assert isinstance(root_cause(caught.value), DataError)
    assert not (tmp_path / "answers" / "config.yaml").exists()


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ([], "nothing given"),
        (["--ask=Who?"], "ask given"),
        (["--context=a.txt"], "context given"),
        (["--data.questions=a.jsonl", "--ask=Who?"], "ask and data.questions given"),
        (["--data.questions=a.jsonl", "--context=x"], "context and data.questions given"),
        (
            ["--data.questions=a.jsonl", "--context=x", "--ask=Who?"],
            "ask and context and data.questions given",
        ),
        (["--data.questions=[]"], "nothing given"),
    ],
)
def test_one_question_or_a_data_set(given: list[str], found: str) -> None:
    """Both or neither, or a half of the one, is an error that shows both ways."""
    message = f"{found}. Expected: either --ask with --context, or --data.questions"
    with pytest.raises(ConfigError, match=message):
        predict.main(given)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data.questions": "nowhere.jsonl"}, "nowhere.jsonl: no such file"),
        ({"max_length": 129}, "max_length 129 is above the model's 128"),
        ({"doc_stride": 93}, "doc_stride 93 is too large for max_length 96"),
        ({"model": "./nowhere"}, "./nowhere: no such folder"),
        ({"run_name": "../x"}, "is no name of a run"),
        ({"top_k": 0}, "top_k"),
        ({"data.columns.answers": "x"}, "unknown key 'data.columns.answers'"),
    ],
)
def test_bad_settings_are_refused_before_any_work(
    change: dict[str, Any], message: str, model: Path, questions: Path, tmp_path: Path
) -> None:
    """Nothing is left on storage."""
    given = {"model": model, "data.questions": questions, "storage_path": tmp_path, **change}
    with pytest.raises(QAError, match=message):
        predict.main([f"--{name}={value}" for name, value in given.items()])
    assert not list(tmp_path.iterdir())


def test_a_model_and_a_tokenizer_that_do_not_belong_together_are_refused(
    model: Path, questions: Path, tmp_path: Path
) -> None:
    """No tokenizer at all, or one with ids that the model has no embedding for."""
    without = tmp_path / "without"
    shutil.copytree(model, without, ignore=shutil.ignore_patterns("tokenizer*"))
    small = tmp_path / "small"
    shutil.copytree(model, small)
    config = read_json(small / "config.json")
    (small / "config.json").write_text(json.dumps(config | {"vocab_size": 90}))
    with pytest.raises(ModelError, match=f"{without}: has no tokenizer"):
        predict.main(arguments(without, questions, tmp_path / "runs"))
    with pytest.raises(ModelError, match=r"ids up to \d+, and the model has 90 embeddings"):
        predict.main(arguments(small, questions, tmp_path / "runs"))
    assert not (tmp_path / "runs").exists()


def test_a_typed_question_takes_the_same_settings(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A threshold that is never reached, a window, a number of answers shown."""
    text = tmp_path / "text.txt"
    text.write_text("The bridge was opened in 1912 by Marta Held.", encoding="utf-8")
    typed = ["--ask=When?", f"--context={text}", f"--model={model}"]
    predict.main([*typed, "--null_threshold=-1e9", "--top_k=1", "--max_length=40"])
    assert "(no answer in the text)" in capsys.readouterr().out
    predict.main([*typed, "--null_threshold=1e9", "--top_k=1"])
    assert "(no answer in the text)" not in capsys.readouterr().out
    with pytest.raises(ModelError, match="above the model's 128"):
        predict.main([*typed, "--max_length=129"])
