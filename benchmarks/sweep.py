"""What a sweep costs beside the notebook's way, and what halving finds.

    python -m benchmarks.sweep --parts nine --train train.json --dev dev.json --model FOLDER
    python -m benchmarks.sweep --parts replay --grid runs/recorded
    python -m benchmarks.sweep --parts '[kills, cores]'

`nine`: three strides by three lengths; `jobs.tune` in one process of its own, the notebook nine
times, one after another; then the sweep's own trials to all ends, which tells what there was to be
found. `replay`: searchers and schedulers on the scores of a sweep (`--grid`, its folder) that was
trained to all ends (`--tune.scheduler none`), 100 seeds. `kills`: SIGKILL
of the job at a random moment, the same command again, five times. `cores`: eight trials of one
worker on all cores.
"""

import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from json import dumps, loads
from pathlib import Path
from typing import Any, Literal

import psutil
import pyarrow.parquet as pq
from jsonargparse import ArgumentParser

from benchmarks.figures import show_figures, write_figures
from benchmarks.memory import family
from benchmarks.notebook_sweep import NotebookTask, run_setting_apart
from benchmarks.sweep_replay import replay_all
from benchmarks.training_loop import DEFAULTS
from jobs.models import resolve_model
from qa_core.demo_corpus import generate_corpus

Part = Literal["nine", "replay", "kills", "cores"]
PATHS = ("model", "train", "dev", "grid")  # of a machine: they stay out of files of figures
CLOSE = 0.5  # F1 below the best of the grid that counts as found


@dataclass(frozen=True)
class Setting:
    """What is measured, and what is swept over what."""

    parts: list[Part]
    """Any of nine, replay, kills and cores."""
    model: str = "embedded"
    """Folder of the model to start from."""
    train: str | None = None
    """SQuAD JSON to learn from; without one, the demo's corpus."""
    dev: str | None = None
    """SQuAD JSON to score on; without one, the demo's corpus."""
    lengths: list[int] = field(default_factory=lambda: [32, 40, 64])
    """Values of max_length."""
    strides: list[int] = field(default_factory=lambda: [4, 8, 12])
    """Values of doc_stride."""
    learning_rate: float = DEFAULTS.learning_rate
    """Of all settings."""
    num_epochs: int = 1
    """Of all settings."""
    batch_size: int = 8
    """Of all settings."""
    cpus_per_worker: int = 1
    """Of each trial; all there are: one trial at a time, as the notebook trains."""
    rung_questions: int | None = 40
    """Dev questions scored at a rung."""
    grid: str | None = None
    """Folder of a sweep that was trained to all ends, to replay."""
    turns: int = 2
    """Sweeps of ours: one before the notebook's nine runs, the others after."""
    kills: int = 5
    """How often a sweep is killed."""
    seeds: int = 100
    """Of the replays."""
    seed: int = 0
    """Of the moments of the kills."""


def main() -> None:
    """Measure; see the module."""
    parser = ArgumentParser(description="What a sweep costs, and what halving finds.")
    parser.add_class_arguments(Setting)
    parser.add_argument("--json", type=str | None, help="where to write the figures, too")
    given = parser.parse_args().as_dict()
    file = given.pop("json")
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        setting = with_files(Setting(**given), folder)
        if "nine" in setting.parts:
            figures |= measure_nine(setting, folder)
        if "replay" in setting.parts:
            if setting.grid is None:
                raise SystemExit("replay needs --grid, the folder of a sweep trained to all ends")
            figures |= replay_all(read_grid(setting.grid), num_seeds=setting.seeds, close=CLOSE)
        if "kills" in setting.parts:
            figures |= measure_kills(setting, folder)
        if "cores" in setting.parts:
            figures |= measure_cores(setting, folder)
    show_figures("Sweeps", figures)
    settings = {key: value for key, value in asdict(setting).items() if key not in PATHS}
    write_figures(file, settings | figures)


def with_files(setting: Setting, folder: Path) -> Setting:
    """The setting with a model and data that are there."""
    return replace(
        setting,
        model=resolve_model(setting.model),
        train=setting.train or write_corpus(folder, "train", 60),
        dev=setting.dev or write_corpus(folder, "dev", 20),
    )


def write_corpus(folder: Path, name: Literal["train", "dev"], num_passages: int) -> str:
    """A file of the demo's corpus."""
    file = folder / f"{name}.json"
    file.write_text(dumps(generate_corpus(name, num_passages=num_passages)))
    return str(file)


def measure_nine(setting: Setting, folder: Path) -> dict[str, Any]:
    """Our sweep, before and after the notebook's way for every setting."""
    ours = [run_sweep(setting, folder / "turn0")]
    theirs = []
    for max_length in setting.lengths:
        for doc_stride in setting.strides:
            task = NotebookTask(
                model=setting.model,
                train=str(setting.train),
                dev=str(setting.dev),
                max_length=max_length,
                doc_stride=doc_stride,
                num_epochs=setting.num_epochs,
                batch_size=setting.batch_size,
                learning_rate=setting.learning_rate,
            )
            theirs.append(run_setting_apart(task))
            print(f"notebook {max_length}/{doc_stride}: {theirs[-1]}", flush=True)
    ours += [run_sweep(setting, folder / f"turn{turn}") for turn in range(1, setting.turns)]
    seconds = sum(one["seconds"] for one in theirs)
    tokens = sum(one["num_tokens"] for one in theirs)
    first = ours[0]
    figures = {
        "notebook_seconds": seconds,
        "notebook_training_seconds": sum(one["training_seconds"] for one in theirs),
        "notebook_tokens": tokens,
        "notebook_padding_tokens": sum(one["num_padding_tokens"] for one in theirs),
        "notebook_tokenized_bytes": sum(one["tokenized_bytes"] for one in theirs),
        "notebook_tokenizations": len(theirs),
        "notebook_best_f1": max(one["f1"] for one in theirs),
        "seconds": [one["seconds"] for one in ours],
        "wall_share": max(one["seconds"] for one in ours) / seconds,
        "tokens": [one["num_tokens"] for one in ours],
        "tokens_share": max(one["num_tokens"] for one in ours) / tokens,
        "tokenizations": first["tokenizations"],
        "tokenized_bytes": first["tokenized_bytes"],
        "winner": first["winner"],
        "winner_f1": [one["winner_f1"] for one in ours],
    }
    # What was stopped, trained to its end after all: the best that there was to be found.
    storage = folder / "turn0"
    run(command(setting, storage, **{"tune.scheduler": "none"}), storage)
    return figures | tokens_to_best(ours, read_grid(str(storage / "sweep")), tokens)


def tokens_to_best(
    ours: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]], tokens: int
) -> dict[str, Any]:
    """Tokens trained when a trial within `CLOSE` of the grid's best was complete.

    Absent where a sweep found none.
    """
    best = max(row["f1"] for row in rows)
    figures: dict[str, Any] = {"grid_best_f1": best, "grid_f1": sorted(r["f1"] for r in rows)}
    reached = []
    for one in ours:
        spent = {}
        for event in one["events"]:
            if event["event"] != "score":
                continue
            spent[event["trial"]] = event["num_tokens"]
            is_complete = one["totals"][event["trial"]] == event["num_tokens"]
            if is_complete and event["score"] >= best - CLOSE:
                reached.append(sum(spent.values()))
                break
    if len(reached) == len(ours):
        figures |= {"tokens_to_best": reached, "tokens_to_best_share": max(reached) / tokens}
    return figures


def run_sweep(setting: Setting, storage: Path) -> dict[str, Any]:
    """One sweep over the nine settings, from nothing to its results, in a process of its own."""
    started = time.perf_counter()
    run(command(setting, storage), storage)
    seconds = time.perf_counter() - started
    folder = storage / "sweep"
    found = loads((folder / "sweep.json").read_text())
    events = read_events(folder)
    manifests = [loads(f.read_text()) for f in (storage / "prepared").glob("*/manifest.json")]
    return {
        "seconds": seconds,
        "num_tokens": found["num_tokens"],
        "winner": list(found["winner_point"].values()),
        "winner_f1": loads((folder / "metrics.json").read_text())["f1"],
        "events": events,
        "totals": [e["total_tokens"] for e in events if e["event"] == "trial"],
        "tokenizations": len(manifests) // 2,  # of the train and the dev data
        "tokenized_bytes": sum(manifest["num_tokenized_bytes"] for manifest in manifests),
    }


def command(setting: Setting, storage: Path, **more: Any) -> list[str]:
    """`jobs.tune` over the strides and lengths; complete trials scored with their own windows."""
    settings = {
        "storage_path": storage,
        "run_name": "sweep",
        "data.train": setting.train,
        "data.dev": setting.dev,
        "model.name_or_path": setting.model,
        "features.max_length": list(setting.lengths),
        "features.doc_stride": list(setting.strides),
        "train.learning_rate": setting.learning_rate,
        "train.num_epochs": setting.num_epochs,
        "train.per_worker_batch_size": setting.batch_size,
        "scaling.cpus_per_worker": setting.cpus_per_worker,
        "tune.rung_questions": "null" if setting.rung_questions is None else setting.rung_questions,
        "tune.eval_max_length": [setting.lengths[-1]],
        "tune.eval_doc_stride": [setting.strides[-1]],
        "tune.train_default": "false",
        **more,
    }
    return [sys.executable, "-m", "jobs.tune", *(f"--{key}={v}" for key, v in settings.items())]


def run(arguments: list[str], storage: Path) -> None:
    """Run a command to its end, its output kept beside the results; an error shows it."""
    storage.mkdir(parents=True, exist_ok=True)
    with (storage / "log.txt").open("a") as log:
        status = subprocess.run(arguments, stdout=log, stderr=log, check=False).returncode
    if status:
        raise RuntimeError((storage / "log.txt").read_text()[-4000:])


def read_events(folder: Path) -> list[dict[str, Any]]:
    """The events of a sweep so far."""
    file = folder / "events.jsonl"
    lines = file.read_text().splitlines() if file.is_file() else []
    return [loads(line) for line in lines]


def read_grid(folder: str) -> list[dict[str, Any]]:
    """The trials of a recorded sweep."""
    rows: list[dict[str, Any]] = pq.read_table(Path(folder) / "results.parquet").to_pylist()
    return rows


def measure_kills(setting: Setting, folder: Path) -> dict[str, Any]:
    """Sweeps killed with SIGKILL at a random moment and submitted again, beside one left alone."""
    choose, kills = random.Random(setting.seed), setting.kills
    storage = folder / "alone"
    started = time.perf_counter()
    run(command(setting, storage), storage)
    seconds = time.perf_counter() - started
    expected = outcome(read_events(storage / "sweep"))
    figures: dict[str, Any] = {"kills": kills, "seconds_alone": seconds, "killed_after": []}
    same, twice, equal = 0, 0, 0
    for number in range(kills):
        storage = folder / f"killed{number}"
        after = choose.uniform(0.3, 0.95) * seconds
        figures["killed_after"].append(round(after, 1))
        kill_after(command(setting, storage), storage, after)
        run(command(setting, storage), storage)
        events = read_events(storage / "sweep")
        found = outcome(events)
        same += found.keys() == expected.keys()
        equal += found == expected
        twice += len(repeated_scores(events))
        print(f"killed after {after:.1f} s: {len(found)} trials, equal {found == expected}")
    return {
        **figures,
        "same_finished_trials": same,
        "same_scores": equal,
        "legs_scored_twice": twice,
    }


def kill_after(arguments: list[str], storage: Path, seconds: float) -> None:
    """Run a command and kill it; the Ray it has started follows, which is waited for."""
    storage.mkdir(parents=True, exist_ok=True)
    with (storage / "log.txt").open("a") as log:
        process = subprocess.Popen(arguments, stdout=log, stderr=log)
        time.sleep(seconds)
        below = family(process.pid)
        process.kill()
        process.wait()
        _, alive = psutil.wait_procs(below, timeout=60)
        for one in alive:
            one.kill()


def outcome(events: Sequence[dict[str, Any]]) -> dict[int, tuple[str, float]]:
    """The complete trials, by number: their points and last scores."""
    trials = [event for event in events if event["event"] == "trial"]
    found = {}
    for event in events:
        if event["event"] == "score":
            trial = trials[event["trial"]]
            if event["num_tokens"] == trial["total_tokens"]:
                found[event["trial"]] = (dumps(trial["point"]), event["score"])
    return found


def repeated_scores(events: Sequence[dict[str, Any]]) -> list[tuple[int, int]]:
    """Legs that ended more than once."""
    ends = [(e["trial"], e["num_tokens"]) for e in events if e["event"] == "score"]
    return [end for end in set(ends) if ends.count(end) > 1]


def measure_cores(setting: Setting, folder: Path) -> dict[str, Any]:
    """How busy the cores are while eight trials of one worker train, each to its end."""
    storage = folder / "cores"
    storage.mkdir()
    more = {"tune.scheduler": "none", "tune.num_rungs": 1, "tune.num_trials": 8}
    with (storage / "log.txt").open("w") as log:
        process = subprocess.Popen(command(setting, storage, **more), stdout=log, stderr=log)
        busy = []
        while process.poll() is None:
            events = read_events(storage / "sweep")
            legs = sum(event["event"] == "leg" for event in events)
            ends = sum(event["event"] in ("score", "failure") for event in events)
            if ends and legs - ends >= 2:  # past the first starts, before the last ends
                busy.append(psutil.cpu_percent(interval=1.0) / 100)
            else:
                time.sleep(0.2)
    if process.returncode:
        raise RuntimeError((storage / "log.txt").read_text()[-4000:])
    return {
        "cores": os.cpu_count(),
        "trials_complete": len(outcome(read_events(storage / "sweep"))),
        "busy_share": sum(busy) / len(busy),
        "seconds_watched": len(busy),
    }


if __name__ == "__main__":
    main()
