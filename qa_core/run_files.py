"""report: the files of a run, finished or still going, as far as they are there."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pyarrow as pa
import yaml

from qa_core.errors import DataError, StorageError
from qa_core.storage import is_directory, is_file, join, list_files, read_bytes, read_parquet

ROWS_SHOWN = 50  # of the records that could not be used
METRICS, EVENTS, SECONDS = "metrics.json", "metrics.jsonl", "seconds.json"
SWEEP_EVENTS = "events.jsonl"


@dataclass
class RunFiles:
    """What a run has left; parts that are not there are None or empty."""

    folder: str
    notes: list[str] = field(default_factory=list)  # what is missing, in words
    config_text: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)  # digests of data and model
    metrics: dict[str, Any] | None = None  # None while the run is going
    analysis: dict[str, Any] = field(default_factory=dict)
    compared: dict[str, Any] | None = None  # compare.json
    windows: list[dict[str, Any]] = field(default_factory=list)  # windows.json
    plans: dict[str, dict[str, Any]] = field(default_factory=dict)  # plan.json, by split
    timings: dict[str, Any] = field(default_factory=dict)
    steps: list[dict[str, Any]] = field(default_factory=list)
    scores: list[dict[str, Any]] = field(default_factory=list)  # of checkpoints, by step
    times: list[dict[str, Any]] = field(default_factory=list)  # seconds of steps, by step
    scoring_seconds: float = 0.0  # of checkpoints, beside the training
    rejections: dict[str, int] = field(default_factory=dict)  # by reason
    rejected: list[dict[str, Any]] = field(default_factory=list)  # the first of them
    rejected_ids: set[str] = field(default_factory=set)
    explorer: pa.Table | None = None  # `qa_core.schemas.EXPLORED`
    sweep: dict[str, Any] | None = None  # sweep.json; None while the sweep is going
    trials: list[dict[str, Any]] = field(default_factory=list)  # rows of results.parquet, or so far

    @property
    def name(self) -> str:
        """The run's name."""
        return self.folder.rstrip("/").rpartition("/")[2]

    @property
    def job(self) -> str:
        """The job that made it: train, tune or evaluate."""
        if "tune" in self.config:
            return "tune"
        return "train" if "train" in self.config else "evaluate"


def read_run(folder: str) -> RunFiles:
    """The files of a run's folder.

    Raises `DataError` for a folder that is none, or whose files are damaged; a last line of
    metrics.jsonl that is not whole is left out, and said.
    """
    if not is_file(join(folder, "config.yaml")):
        raise DataError(
            "there is no config.yaml",
            where=folder,
            expected="the folder of a run: storage_path/run_name",
            remedy="check the path; a run has the file from its first minute on",
        )
    run = RunFiles(folder)
    run.config_text = read_bytes(join(folder, "config.yaml")).decode("utf-8", "replace")
    run.config = yaml.safe_load(run.config_text) or {}
    if "ask" in run.config:
        raise DataError(
            "a run of jobs.predict",
            where=folder,
            expected="a run that was scored: of jobs.train, jobs.tune or jobs.evaluate",
            remedy="its answers are in the folder answers/; score answers with jobs.evaluate",
        )
    run.inputs = read_json(folder, "inputs.json") or {}
    run.metrics = read_json(folder, METRICS)
    run.analysis = read_json(folder, "analysis.json") or {}
    run.compared = read_json(folder, "compare.json")
    run.windows = read_json(folder, "windows.json") or []
    run.plans = read_json(folder, "plan.json") or {}
    run.timings = read_json(folder, "timings.json") or {}
    run.sweep = read_json(folder, "sweep.json")
    if run.sweep is None and is_file(join(folder, SWEEP_EVENTS)):
        _read_sweep_so_far(run)
    elif is_file(join(folder, "results.parquet")):
        run.trials = read_parquet(join(folder, "results.parquet")).to_pylist()
    if is_file(join(folder, "explorer.parquet")):
        run.explorer = read_parquet(join(folder, "explorer.parquet"))
    _read_rejections(run)
    _read_course(run)
    if run.metrics is None:
        run.notes.insert(0, "This run is not finished: what is shown is what there is so far.")
    return run


def _read_sweep_so_far(run: RunFiles) -> None:
    """The trials of a sweep that is going, as far as its events tell of them."""
    metric = run.config["tune"]["metric"]
    for event in read_lines(join(run.folder, SWEEP_EVENTS), run.notes):
        if event["event"] == "trial":
            about = {"trial": len(run.trials), "kind": event["kind"], "seed": event["seed"]}
            run.trials.append({**about, **event["point"], "num_tokens": 0, "rungs": []})
        elif event["event"] == "score":
            row = run.trials[event["trial"]]
            place = {"num_tokens": event["num_tokens"], metric: event["score"]}
            row["rungs"].append(place)
            row.update(place)


def read_json(folder: str, name: str) -> Any:
    """The content of a JSON file; None where it is not there. `DataError` where it is not JSON."""
    file = join(folder, name)
    if not is_file(file):
        return None
    try:
        return json.loads(read_bytes(file))
    except ValueError as error:
        raise DataError(
            f"not JSON ({error})",
            where=file,
            expected="the file as the job has written it",
            remedy="give the job's command again, which writes it anew",
        ) from error


def read_lines(file: str, notes: list[str]) -> Iterator[dict[str, Any]]:
    """The objects of a file of JSON lines; a last one that is not whole is left out and noted."""
    lines = read_bytes(file).split(b"\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield json.loads(line)
        except ValueError as error:
            if number == len(lines):
                name = file.rpartition("/")[2]
                notes.append(f"{name} ends within line {number}: the lines before it are shown.")
                return
            raise DataError(
                f"not JSON ({error})",
                where=f"{file}, line {number}",
                expected="one JSON object a line",
                remedy="remove the line, or give the job's command again",
            ) from error


def _read_rejections(run: RunFiles) -> None:
    file = join(run.folder, "rejections.jsonl")
    if not is_file(file):
        return
    for row in read_lines(file, run.notes):
        run.rejections[row["reason"]] = run.rejections.get(row["reason"], 0) + 1
        run.rejected_ids.add(row["id"])
        if len(run.rejected) < ROWS_SHOWN:
            run.rejected.append(row)
    run.rejections = dict(sorted(run.rejections.items(), key=lambda pair: (-pair[1], pair[0])))


def _read_course(run: RunFiles) -> None:
    """Steps, scores and times: of metrics.jsonl, or of what a run that is going has kept.

    Of a sweep they are those of its winner.
    """
    folder = run.folder
    if run.sweep is not None:
        folder = join(folder, "trials", f"{run.sweep['winner']:04d}")
    events = join(run.folder, EVENTS)
    if is_file(events):
        rows = list(read_lines(events, run.notes))
        run.steps = [row for row in rows if row["event"] == "step"]
        run.scores = [row for row in rows if row["event"] == "score"]
    else:
        run.steps = _kept(folder, "history", run.notes)
        run.scores = _scored(folder)
    last = run.steps[-1]["step"] if run.steps else 0
    run.times = [row for row in _kept(folder, "times", []) if row["step"] <= last]
    seconds = [f for f in _files(join(run.folder, "scoring")) if f.endswith(f"/{SECONDS}")]
    run.scoring_seconds = sum(json.loads(read_bytes(file))["seconds"] for file in seconds)


def _kept(folder: str, kind: str, notes: list[str]) -> list[dict[str, Any]]:
    """The records of steps that checkpoints have kept, up to the last."""
    from qa_core.checkpoints import read_history  # torch takes seconds to import

    names = [file.rpartition("/")[2] for file in _files(join(folder, kind))]
    lasts = [int(name[len("step-") : -len(".jsonl")]) for name in names if name.endswith(".jsonl")]
    if not lasts:
        return []
    try:
        return list(read_history(folder, max(lasts), kind))
    except (StorageError, ValueError, LookupError):
        notes.append(f"The record of steps in {kind}/ is not whole and is not shown.")
        return []


def _scored(folder: str) -> list[dict[str, Any]]:
    """The figures of the checkpoints scored so far, by step."""
    files = [f for f in _files(join(folder, "scoring")) if f.endswith(f"/{METRICS}")]
    rows = [json.loads(read_bytes(file)) for file in files]
    return sorted((row for row in rows if "step" in row), key=lambda row: row["step"])


def _files(folder: str) -> list[str]:
    return list_files(folder) if is_directory(folder) else []


def bucketed(
    rows: Sequence[Mapping[str, Any]], most: int = 400
) -> list[Sequence[Mapping[str, Any]]]:
    """`rows` in runs of nearly the same length, `most` of them at most; in order.

    >>> [len(run) for run in bucketed([{}] * 5, most=2)]
    [2, 3]
    """
    number = min(most, len(rows))
    edges = [round(place * len(rows) / number) for place in range(number + 1)] if number else [0]
    return [rows[a:b] for a, b in pairwise(edges)]
