"""The metric gives the official figures through `evaluate`, with no network and no file."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import evaluate
import pytest

from qa_core.errors import DataError
from qa_core.metric import ExtractiveQA
from qa_core.scoring import score_predictions
from tests.test_scoring import examples_of

GOLDS = [["the red fox", "fox"], [], ["1912"], ["東京"]]
TEXTS = {"q0": "red foxes", "q1": "", "q2": "in 1912", "q3": "東京"}
ODDS = {"q0": 0.25, "q1": 0.875, "q2": 0.1, "q3": 1e-9}  # one has more digits than float32


def predictions(*, odds: bool) -> list[dict[str, Any]]:
    """A row a question."""
    rows: list[dict[str, Any]] = [{"id": i, "prediction_text": t} for i, t in TEXTS.items()]
    return [{**row, "no_answer_probability": ODDS[row["id"]]} for row in rows] if odds else rows


def references(golds: list[list[str]]) -> list[dict[str, Any]]:
    """A row a question, in the shape of `datasets`."""
    return [
        {"id": f"q{n}", "answers": {"text": gold, "answer_start": [0] * len(gold)}}
        for n, gold in enumerate(golds)
    ]


@pytest.mark.parametrize("odds", [True, False])
def test_metric_gives_what_score_predictions_gives(odds: bool) -> None:
    """Key for key; thresholds only where there are probabilities."""
    metric = ExtractiveQA()
    assert isinstance(metric, evaluate.Metric)
    expected = score_predictions(TEXTS, examples_of(GOLDS), null_odds=ODDS if odds else None)
    for _ in range(2):  # a metric can be used again
        found = metric.compute(predictions=predictions(odds=odds), references=references(GOLDS))
        assert found == expected
    assert ("best_f1_thresh" in expected) == odds
    assert "exact_match" not in expected


def test_metric_gives_the_names_of_v1_where_all_have_answers() -> None:
    """`exact_match`, as the first SQuAD's metric calls it, beside `exact`."""
    rows = [{"id": "q0", "prediction_text": "Fox!"}]
    found = ExtractiveQA().compute(predictions=rows, references=references(GOLDS[:1]))
    assert found["exact_match"] == found["exact"] == found["f1"] == 100


def test_batches_and_single_rows_add_up() -> None:
    """As evaluate has it: add, add_batch, then compute."""
    metric = ExtractiveQA()
    rows, golds = predictions(odds=True), references(GOLDS)
    metric.add(prediction=rows[0], reference=golds[0])
    metric.add_batch(predictions=rows[1:], references=golds[1:])
    assert metric.compute() == score_predictions(TEXTS, examples_of(GOLDS), null_odds=ODDS)


def test_language_is_an_argument() -> None:
    """Chinese by characters: half of what was found is right."""
    rows = [{"id": "q0", "prediction_text": "東京都庁"}]
    golds = references([["東京"]])
    assert ExtractiveQA().compute(predictions=rows, references=golds)["f1"] == 0
    found = ExtractiveQA(language="zh").compute(predictions=rows, references=golds)
    assert found["f1"] == pytest.approx(200 / 3)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (predictions(odds=True)[:2] + predictions(odds=False)[2:], "2 of 4 predictions have none"),
        ([*predictions(odds=False)[:3], predictions(odds=False)[0]], "1 repeated ids"),
        ([*predictions(odds=False)[:3], {"id": "z", "prediction_text": ""}], "1 unknown ids"),
    ],
)
def test_predictions_that_do_not_fit_are_errors(rows: list[dict[str, Any]], message: str) -> None:
    """Probabilities of some, an id twice, an id of other data."""
    with pytest.raises(DataError, match=message):
        ExtractiveQA().compute(predictions=rows, references=references(GOLDS))


SCRIPT = """
import socket

def refuse(*args, **kwargs):
    raise OSError("no network here")

socket.socket.connect = socket.getaddrinfo = refuse
from qa_core.metric import ExtractiveQA

found = ExtractiveQA().compute(
    predictions=[{"id": "1", "prediction_text": "in 1912"}],
    references=[{"id": "1", "answers": {"text": ["1912"], "answer_start": [7]}}],
)
print(round(found["f1"], 2))
"""


def test_a_cold_cache_without_network_is_enough_and_stays_empty(tmp_path: Path) -> None:
    """In a process of its own, whose home is empty and whose sockets refuse to connect."""
    cache, temporary = tmp_path / "home", tmp_path / "tmp"
    temporary.mkdir()
    environment = {
        "HOME": str(cache),
        "HF_HOME": str(cache),
        "TMPDIR": str(temporary),
        "PYTHONPATH": str(Path(__file__).parent.parent),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "66.67", done.stderr
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_no_other_module_needs_evaluate() -> None:
    """Scoring and analysing import neither it nor torch."""
    code = (
        "import sys, qa_core.analysis; print({'evaluate', 'datasets', 'torch', 'pandas'} & "
        "set(sys.modules))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
