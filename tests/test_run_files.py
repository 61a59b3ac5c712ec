"""A run's files as its page takes them: finished, going on, damaged, of former versions."""

import json
from pathlib import Path

import pytest

from jobs.configuration import PredictConfig, SweepConfig, dump_config
from qa_core.checkpoints import HISTORY
from qa_core.errors import DataError
from qa_core.report_page import build_page
from qa_core.run_files import bucketed, read_run
from qa_core.storage import write_json_lines
from tests.pages import make_examples, write_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A training's folder."""
    return write_run(tmp_path / "run", make_examples(10))


def test_a_finished_run_is_read_whole(run: Path) -> None:
    """Steps, scores, times, figures, answers."""
    files = read_run(str(run))
    assert files.job == "train"
    assert len(files.steps) == len(files.times) == 40
    assert [score["step"] for score in files.scores] == [0, 40]
    assert files.explorer is not None
    assert files.metrics is not None
    assert files.notes == []


def test_a_folder_that_is_no_run_is_told_so(tmp_path: Path) -> None:
    """With what was expected."""
    with pytest.raises(DataError, match=r"no config\.yaml.*storage_path/run_name"):
        read_run(str(tmp_path))


def test_a_last_line_that_is_not_whole_is_left_out_and_told(run: Path) -> None:
    """As after a full disk."""
    file = run / "metrics.jsonl"
    file.write_bytes(file.read_bytes()[:-30])
    files = read_run(str(run))
    assert [score["step"] for score in files.scores] == [0]
    assert files.notes == ["metrics.jsonl ends within line 42: the lines before it are shown."]


def test_a_damaged_line_within_is_named(run: Path) -> None:
    """It is no lost end."""
    file = run / "metrics.jsonl"
    lines = file.read_bytes().split(b"\n")
    lines[2] = b"{"
    file.write_bytes(b"\n".join(lines))
    with pytest.raises(DataError, match=r"metrics\.jsonl, line 3"):
        read_run(str(run))


def test_a_damaged_file_is_named(run: Path) -> None:
    """With what to do."""
    (run / "analysis.json").write_text("{")
    with pytest.raises(DataError, match=r"analysis\.json.*the job's command again"):
        read_run(str(run))


def test_a_run_that_is_going_is_read_as_far_as_it_is(run: Path) -> None:
    """From what its checkpoints have kept; the page says so."""
    steps = [row for row in read_run(str(run)).steps if row["step"] <= 30]
    (run / "metrics.json").unlink()
    (run / "metrics.jsonl").unlink()
    (run / "explorer.parquet").unlink()
    for first, last in ((0, 10), (10, 30)):
        write_json_lines(str(run / HISTORY / f"step-{last:08d}.jsonl"), steps[first:last])
    folder = run / "scoring" / "step-00000010"
    folder.mkdir(parents=True)
    figures = {"step": 10, "epoch": 0.5, "exact": 20.0, "f1": 30.0, "eval_loss": 2.0}
    (folder / "metrics.json").write_text(json.dumps(figures))
    (folder / "seconds.json").write_text('{"seconds": 4.5}')
    files = read_run(str(run))
    assert [row["step"] for row in files.steps] == list(range(1, 31))
    assert files.scores == [figures]
    assert files.scoring_seconds == 4.5
    assert "not finished" in files.notes[0]
    assert max(row["step"] for row in files.times) == 30


def test_a_run_without_steps_has_none(run: Path) -> None:
    """Begun a moment ago."""
    for path in run.iterdir():
        if path.is_file() and path.name != "config.yaml":
            path.unlink()
    (run / "times" / "step-00000040.jsonl").unlink()
    files = read_run(str(run))
    assert (files.steps, files.scores, files.times) == ([], [], [])


def test_buckets_hold_all_rows_once() -> None:
    """In order, nearly alike."""
    rows = [{"n": n} for n in range(1003)]
    parts = bucketed(rows, most=100)
    assert [row for part in parts for row in part] == rows
    assert {len(part) for part in parts} <= {10, 11}
    assert bucketed([]) == []


def test_a_sweep_that_is_going_has_its_trials_so_far(run: Path) -> None:
    """From its events."""
    point = {"train.learning_rate": 1e-4}
    events = [
        {"event": "trial", "point": point, "total_tokens": 900, "kind": "search", "seed": 0},
        {"event": "trial", "point": point, "total_tokens": 900, "kind": "default", "seed": 0},
        {"event": "score", "trial": 1, "score": 12.5, "num_tokens": 100},
        {"event": "score", "trial": 1, "score": 20.5, "num_tokens": 400},
    ]
    write_json_lines(str(run / "events.jsonl"), events)
    (run / "config.yaml").write_text(dump_config(SweepConfig()))
    (run / "metrics.json").unlink()
    files = read_run(str(run))
    assert files.job == "tune"
    assert [row["rungs"] for row in files.trials] == [
        [],
        [{"num_tokens": 100, "f1": 12.5}, {"num_tokens": 400, "f1": 20.5}],
    ]
    assert files.trials[1]["f1"] == 20.5
    page = build_page([files])
    assert "2 trials have begun, 1 of them have a score so far." in page
    assert 'data-chart="sweep-cost"' in page


def test_a_run_of_answers_has_no_page(run: Path) -> None:
    """Which is told."""
    (run / "config.yaml").write_text(dump_config(PredictConfig()))
    with pytest.raises(DataError, match=r"a run of jobs\.predict.*answers/"):
        read_run(str(run))
