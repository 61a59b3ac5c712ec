"""The page without a browser: its numbers, its escapes, its bytes, what it refuses."""

import base64
import gzip
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest

from jobs.configuration import TrainConfig, TrainSettings
from qa_core.errors import DataError
from qa_core.page_sections import differing_settings
from qa_core.report_page import build_page, content_hash, figure_text
from qa_core.run_curves import curve_charts
from qa_core.run_files import read_run
from tests.pages import make_examples, write_run
from tests.sweeps import recorded_sweep
from tests.test_sweep_charts import colored


class Values(HTMLParser):
    """First cells of rows with the exact values of the cells after them."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.is_head = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """A row begins; a cell has its value."""
        if tag == "tr":
            self.rows.append([])
        self.is_head = tag == "th"
        value = dict(attrs).get("data-value")
        if value is not None:
            self.rows[-1].append(value)

    def handle_data(self, data: str) -> None:
        """The text of a row's head."""
        if self.is_head and data.strip():
            self.rows[-1].append(data)
            self.is_head = False


def page_values(page: str) -> dict[str, str]:
    """Figures of the page's tables, by name; the first that is called so."""
    parser = Values()
    parser.feed(page)
    found: dict[str, str] = {}
    for row in parser.rows:
        if len(row) > 1:
            found.setdefault(row[0], row[1])
    return found


def packed(page: str, name: str) -> Any:
    """Data that the page has packed."""
    found = re.search(rf'id="data-{name}">([^<]*)<', page)
    assert found
    return json.loads(gzip.decompress(base64.b64decode(found[1])))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A training's folder."""
    return write_run(tmp_path / "run", make_examples(40))


def test_numbers_are_those_of_the_files(run: Path) -> None:
    """Every figure of metrics.json, to its last digit; intervals as analysis.json has them."""
    page = build_page([read_run(str(run))])
    values = page_values(page)
    metrics = json.loads((run / "metrics.json").read_text())
    assert len(metrics) > 10
    for name, value in metrics.items():
        assert float(values[name]) == value, name
    low, high = json.loads((run / "analysis.json").read_text())["intervals"]["f1"]
    assert f"{metrics['f1']:.2f}" in page
    assert f"({low:.2f} to {high:.2f})" in page


def test_the_same_files_give_the_same_bytes(run: Path) -> None:
    """No date, no random order."""
    assert build_page([read_run(str(run))]) == build_page([read_run(str(run))])


def test_all_charts_of_a_run_are_on_its_page_and_valid(run: Path) -> None:
    """Curves, thresholds, calibration, slices, candidates, time: of traces without WebGL."""
    page = build_page([read_run(str(run))])
    figures = packed(page, "charts")
    for word in ("curve-loss", "curve-scores", "curve-rate", "curve-speed", "threshold-scores",
                 "threshold-curve", "calibration", "top-n", "time", "slice-question_word",
                 "slice-answer_words", "slice-source"):  # fmt: skip
        assert word in figures
        assert f'data-chart="{word}"' in page
    for figure in figures.values():
        assert {trace.type for trace in go.Figure(colored(figure)).data} <= {"scatter", "bar"}


def test_only_the_named_scripts_may_run(run: Path) -> None:
    """Their hashes are those of what is there."""
    page = build_page([read_run(str(run))])
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy
    assert "default-src 'none'" in policy[1]
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert [content_hash(script) in policy[1].replace("&#39;", "'") for script in scripts] == [True]
    assert not re.search(r'(src|href)="(?!#)', page)


def test_answers_are_packed_as_they_are(run: Path) -> None:
    """Row by row those of the run."""
    files = read_run(str(run))
    answers = packed(build_page([files]), "answers")
    assert files.explorer is not None
    for row, kept in enumerate(files.explorer.to_pylist()):
        assert answers["id"][row] == kept["id"]
        assert answers["contexts"][answers["context"][row]] == kept["context"]
        assert answers["answers"][0]["answer"][row] == kept["answer"]
        word = answers["groups"]["question_word"]
        assert word["names"][word["of"][row]] == kept["question_word"]
    golds = answers["golds"]
    assert golds["counts"] == [len(s) for s in files.explorer["gold_starts"].to_pylist()]
    assert sum(golds["counts"]) == len(golds["starts"]) == len(golds["lengths"])


def test_every_text_is_escaped(tmp_path: Path) -> None:
    """In tables, titles, settings and attributes; control characters are shown as pictures."""
    text = '"><script>alert(1)</script>{{ 7 * 7 }}\x00'
    rejection = {"source": text, "record": 1, "id": text, "reason": text, "detail": text}
    examples = make_examples(10, text=lambda given: given + text)
    run = write_run(tmp_path / "run", examples, rejections=[rejection])
    page = build_page([read_run(str(run))])
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;{{ 7 * 7 }}\u2400" in page
    assert "\x00" not in page
    assert page.rstrip().endswith("</html>")


@pytest.mark.parametrize("has_null", [False, True])
@pytest.mark.parametrize("num_steps", [0, 3])
@pytest.mark.parametrize("num_questions", [1, 12])
def test_runs_of_any_kind_have_a_page(
    num_questions: int, num_steps: int, has_null: bool, tmp_path: Path
) -> None:
    """One question, without a curve, v1.1 alone."""
    examples = make_examples(num_questions)
    run = write_run(tmp_path / "run", examples, has_null=has_null, num_steps=num_steps)
    page = build_page([read_run(str(run))])
    assert ("curve-loss" in packed(page, "charts")) == bool(num_steps)
    assert ("Null threshold" in page) == has_null
    assert f"{num_questions}" in page


def test_a_run_that_is_going_says_so(run: Path) -> None:
    """And has no figures, nor answers."""
    for name in ("metrics.json", "explorer.parquet", "analysis.json"):
        (run / name).unlink()
    page = build_page([read_run(str(run))])
    assert "This run is not finished" in page
    assert "F1 so far" in page
    assert 'href="#answers"' not in page


def test_a_sweep_has_its_charts_and_words(run: Path) -> None:
    """Beside those of its winner."""
    files = read_run(str(run))
    files.sweep, files.trials = recorded_sweep()
    page = build_page([files])
    assert sum(name.startswith("sweep") for name in packed(page, "charts")) == 5
    assert f"Trial {files.sweep['winner']} won" in page
    assert "curve-loss" in packed(page, "charts")


def test_runs_are_compared_on_the_same_questions(run: Path) -> None:
    """Figures beside each other, the difference with its interval, both curves, both answers."""
    config = TrainConfig(train=TrainSettings(learning_rate=7e-5))
    write_run(run.parent / "other", make_examples(40), seed=3, num_steps=20, config=config)
    runs = [read_run(str(run.parent / name)) for name in ("run", "other")]
    page = build_page(runs)
    answers = packed(page, "answers")
    assert answers["runs"] == ["run", "other"]
    assert len(answers["answers"]) == 2
    assert re.search(r"F1 of run is [\d.]+, of other [\d.]+: a difference of [+-]", page)
    names = {trace["name"] for trace in curve_charts(runs)[0].figure["data"]}
    assert {"run: training", "other: training"} <= names
    assert differing_settings(runs) == [["train.learning_rate", "0.0002", "7e-05"]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_questions": 35}, r"answered other questions: 5 are in one of them alone \(q0000"),
        ({"seed": 9}, "have another context under the same id, 40 times"),
    ],
)
def test_runs_on_other_data_are_not_compared(
    change: dict[str, int], message: str, run: Path
) -> None:
    """With the reason, and ids."""
    examples = make_examples(**{"num_questions": 40, **change})
    write_run(run.parent / "other", examples)
    with pytest.raises(DataError, match=message):
        build_page([read_run(str(run.parent / name)) for name in ("run", "other")])


def test_a_question_that_a_run_rejected_does_not_keep_it_from_being_compared(run: Path) -> None:
    """Small windows leave some no room; they are left out of both."""
    examples = make_examples(40)
    row = {"source": "s", "record": 7, "id": "q000007", "reason": "no room", "detail": ""}
    kept = examples.filter([name != "q000007" for name in examples["id"].to_pylist()])
    write_run(run.parent / "small", kept, rejections=[row])
    runs = [read_run(str(run.parent / name)) for name in ("run", "small")]
    assert len(packed(build_page(runs), "answers")["id"]) == 39


def test_a_run_given_twice_is_refused(run: Path) -> None:
    """There is nothing to compare."""
    with pytest.raises(DataError, match="two runs are called run"):
        build_page([read_run(str(run)), read_run(str(run))])


def test_a_part_of_large_data_is_told(run: Path) -> None:
    """How many of how many questions are shown."""
    files = read_run(str(run))
    assert files.explorer is not None
    files.explorer = files.explorer.replace_schema_metadata(
        {"num_questions": "123456", "below": str(2**64 - 1)}
    )
    assert "40 of 123,456 questions are shown" in build_page([files])


def test_figures_are_written_as_people_read_them() -> None:
    """Two digits, small ones in full, counts with commas."""
    pairs = [
        (91.2345, "91.23"),
        (2e-5, "2e-05"),
        (1234567, "1,234,567"),
        (True, "yes"),
        (0.0, "0.00"),
    ]
    assert [figure_text(value) for value, _ in pairs] == [text for _, text in pairs]
    assert figure_text(None) == ""
