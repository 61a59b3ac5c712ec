"""The files a run leaves in `storage_path/run_name/` for people and scripts to read."""

import json
import os
import platform
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml
from pyarrow import fs

from jobs.configuration import DecodingSettings, config_keys, dump_config
from jobs.models import copy_model
from jobs.prepared import Prepared, read_rejections
from jobs.token_store import shard_file
from qa_core.answering import SETTINGS_KEY
from qa_core.checkpoints import ABOUT
from qa_core.decoding import apply_null_threshold, null_odds
from qa_core.errors import ConfigError
from qa_core.report_page import build_page
from qa_core.run_files import read_run
from qa_core.storage import (
    is_file,
    join,
    locate,
    read_bytes,
    read_table,
    remove_file,
    write_bytes,
    write_file,
    write_json_lines,
)
from qa_core.training import STATE_FILE

CONFIG = "config.yaml"
INPUTS = "inputs.json"
ANALYSIS = "analysis.json"
PLAN = "plan.json"
REPORT = "report.html"
CARD = "README.md"  # of model/, as the Hub calls it
HUB = "hub.json"  # what was pushed where
PACKAGES = ("ray", "torch", "transformers", "tokenizers", "datasets", "numpy", "pyarrow")
NOT_IN_MODEL = (STATE_FILE, ABOUT)
# Settings that may change when a run is continued: they do not change what comes out.
FREE_KEYS = (
    "storage_path",
    "scaling.threads_per_worker",
    "scaling.max_failures",
    "scaling.storage_patience_seconds",
    "train.checkpoint_every_steps",
    "tracking.trackers",
    "tracking.project",
    "hub.repo_id",
    "hub.private",
    "tune.scheduler",
    "tune.num_trials",
    "tune.max_tokens",
    "tune.max_seconds",
    "tune.max_concurrent",
    "tune.train_default",
    "tune.seeds",
)


def check_run(run: str, config: Any, inputs: Mapping[str, str]) -> None:
    """Raise `ConfigError` where the run of this name was begun with other settings or inputs.

    `inputs` names the content of data and model by digests.
    """
    if not is_file(join(run, CONFIG)):
        return
    old = dict(config_keys(yaml.safe_load(read_bytes(join(run, CONFIG)))))
    new = dict(config_keys(yaml.safe_load(dump_config(config))))
    old |= {f"content of {k}": v for k, v in json.loads(read_bytes(join(run, INPUTS))).items()}
    new |= {f"content of {name}": digest for name, digest in inputs.items()}
    differing = [
        f"{key} was {old.get(key)!r}, is {new.get(key)!r}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and key not in FREE_KEYS
    ]
    if differing:
        raise ConfigError(
            "; ".join(differing),
            where=f"run {run}",
            expected="the settings and data the run was begun with, to continue it",
            remedy="give another --run_name for another run",
        )


def begin_run(run: str, config: Any, inputs: Mapping[str, str]) -> None:
    """Write what `check_run` compares with, unless the run was begun before."""
    if not is_file(join(run, CONFIG)):
        write_json(join(run, INPUTS), dict(inputs))
        write_bytes(join(run, CONFIG), (provenance() + dump_config(config)).encode())


def provenance() -> str:
    """Versions and commit, as the comment at the head of config.yaml."""
    versions = [f"{name} {metadata.version(name)}" for name in PACKAGES]
    lines = (
        f"ray-extractive-qa {own_version()}, commit {read_commit()}",
        f"Python {platform.python_version()}, {', '.join(versions)}",
    )
    return "".join(f"# {line}\n" for line in lines)


def write_json(uri: str, value: Any) -> None:
    """Write indented JSON in UTF-8, keys in the order given."""
    write_bytes(uri, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())


def write_rejections(run: str, splits: Sequence[Prepared]) -> pa.Table:
    """rejections.jsonl: every record that could not be used, with file, record and reason."""
    table = pa.concat_tables([read_rejections(prepared) for prepared in splits])
    write_json_lines(join(run, "rejections.jsonl"), table.to_pylist())
    return table


def write_analysis(run: str, analysis: Mapping[str, Any]) -> None:
    """analysis.json: intervals, slices, calibration and the rest of `qa_core.analysis`."""
    write_json(join(run, ANALYSIS), dict(analysis))


def write_answers(run: str, prepared: Prepared, *, scoring: str, threshold: float | None) -> None:
    """predictions.json, nbest_predictions.json and, for v2.0, null_odds.json; shard by shard."""
    _stream_object(
        join(run, "predictions.json"),
        (
            (row["id"], row["text"])
            for answers in _answer_shards(prepared, scoring, threshold)
            for row in answers.select(["id", "text"]).to_pylist()
        ),
    )
    _stream_object(
        join(run, "nbest_predictions.json"),
        (
            (row["id"], row["n_best"])
            for answers in _answer_shards(prepared, scoring, threshold)
            for row in answers.select(["id", "n_best"]).to_pylist()
        ),
    )
    if threshold is not None:
        _stream_object(
            join(run, "null_odds.json"),
            (
                pair
                for answers in _answer_shards(prepared, scoring, threshold)
                for pair in zip(answers["id"].to_pylist(), null_odds(answers).tolist(), strict=True)
            ),
        )


def save_model(
    run: str,
    *,
    checkpoint: str,
    max_length: int,
    doc_stride: int,
    decoding: DecodingSettings,
    null_threshold: float | None,
) -> None:
    """model/: the checkpoint as `from_pretrained` loads it, how to decode in its config.json.

    From here on it counts as not pushed to the Hub.
    """
    remove_file(join(run, HUB))
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        copy_model(checkpoint, folder, leave_out=NOT_IN_MODEL)
        config = json.loads((folder / "config.json").read_text())
        config[SETTINGS_KEY] = {
            "max_length": max_length,
            "doc_stride": doc_stride,
            **asdict(decoding),
            "null_threshold": null_threshold,
        }
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        target, target_path = locate(join(run, "model"))
        target.create_dir(target_path, recursive=True)
        fs.copy_files(str(folder), target_path, destination_filesystem=target)


def write_plan(run: str, splits: Mapping[str, Prepared]) -> None:
    """plan.json: what the windows of each split hold and cut, and how many records are rejected."""
    rows = {
        name: {
            "plan": asdict(prepared.plan),
            "num_features": prepared.num_features,
            "num_rejected": prepared.num_rejected,
        }
        for name, prepared in splits.items()
    }
    write_json(join(run, PLAN), rows)


def write_report(run: str) -> None:
    """report.html: all that the run's files say, on one self-contained page."""
    write_bytes(join(run, REPORT), build_page([read_run(run)]).encode())


def _answer_shards(prepared: Prepared, scoring: str, threshold: float | None) -> Iterator[pa.Table]:
    for piece in prepared.pieces:
        answers = read_table(shard_file(scoring, "answers", piece.name))
        yield answers if threshold is None else apply_null_threshold(answers, threshold)


def _stream_object(uri: str, pairs: Iterable[tuple[str, Any]]) -> None:
    """Write one JSON object, a key a line, without holding it in memory."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "object.json"
        with file.open("w", encoding="utf-8") as stream:
            separator = "{\n"
            for key, value in pairs:
                text = json.dumps(value, ensure_ascii=False)
                stream.write(f"{separator}{json.dumps(key, ensure_ascii=False)}: {text}")
                separator = ",\n"
            stream.write("{}\n" if separator == "{\n" else "\n}\n")
        write_file(uri, file)


def own_version() -> str:
    """The installed version of this project."""
    try:
        return metadata.version("ray-extractive-qa")
    except metadata.PackageNotFoundError:  # run from a folder, as `ray job submit` does
        return "not installed"


def read_commit() -> str:
    """The commit of this code: as its submission says, or of this checkout; else "unknown".

    A submitted job has the files without their history.
    """
    job = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR") or "{}")
    submitted = (job.get("metadata") or {}).get("commit")
    if submitted:
        return str(submitted)
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return found.stdout.strip()
