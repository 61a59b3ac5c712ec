"""The main job against a plain single-process loop, on real data with the same settings.

    python -m benchmarks.main_job --train reddit.json --dev new_wiki.json

Takes the first questions of both files, runs `jobs.train` and `benchmarks.plain_loop` one after
the other as whole processes, and prints exact match, F1 and times of both. About 40 minutes on
two cores. No peer's result is kept from an earlier run.
"""

import subprocess
import sys
import tempfile
import time
from json import dumps, loads
from pathlib import Path
from typing import Any

from jsonargparse import auto_cli
from rich.console import Console
from rich.table import Table

from benchmarks.figures import write_figures


def main(
    train: str,
    dev: str,
    num_train: int = 3000,
    num_dev: int = 1000,
    num_epochs: int = 2,
    learning_rate: float = 1e-4,
    json: str | None = None,
) -> None:
    """Compare; see the module.

    Args:
        train: SQuAD JSON to learn from.
        dev: SQuAD JSON to score on.
        num_train: its first questions that are taken.
        num_dev: likewise.
        num_epochs: of both.
        learning_rate: of both.
        json: where to write the figures, too.
    """
    with tempfile.TemporaryDirectory() as folder:
        files = {"train": Path(folder, "train.json"), "dev": Path(folder, "dev.json")}
        files["train"].write_text(dumps(first_questions(train, num_train)))
        files["dev"].write_text(dumps(first_questions(dev, num_dev)))
        settings = [
            f"--data.train={files['train']}",
            f"--data.dev={files['dev']}",
            f"--train.num_epochs={num_epochs}",
            f"--train.learning_rate={learning_rate}",
            "--train.score_untrained=false",
            f"--storage_path={folder}/runs",
            "--run_name=benchmark",
        ]
        ours = run_ours(settings, Path(folder, "runs", "benchmark"))
        peer = run_peer(settings)
    show(ours, peer)
    sides = {"ours": ours, "peer": peer}
    write_figures(json, {f"{who}_{k}": v for who, row in sides.items() for k, v in row.items()})


def run_ours(settings: list[str], folder: Path) -> dict[str, Any]:
    """Scores and whole-process time of `jobs.train`."""
    started = time.monotonic()
    subprocess.run([sys.executable, "-m", "jobs.train", *settings], check=True)
    seconds = time.monotonic() - started
    metrics = loads((folder / "metrics.json").read_text())
    lines = map(loads, (folder / "metrics.jsonl").read_text().splitlines())
    events = list(lines)
    steps = [event for event in events if event["event"] == "step"]
    scored = [event for event in events if event["event"] == "score"]
    num_tokens = sum(step["num_tokens"] for step in steps)
    num_padding = sum(step["num_padding_tokens"] for step in steps)
    return {
        "exact": metrics["exact"],
        "f1": metrics["f1"],
        "last_epoch_f1": scored[-1]["f1"],
        "seconds": seconds,
        "num_windows": sum(step["num_features"] for step in steps),
        "num_tokens": num_tokens,
        "padding_share": num_padding / (num_tokens + num_padding),
    }


def run_peer(settings: list[str]) -> dict[str, Any]:
    """Scores of the plain loop and its whole-process time."""
    started = time.monotonic()
    command = [sys.executable, "-m", "benchmarks.plain_loop", *settings]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = loads(done.stdout.strip().splitlines()[-1])
    return {**result, "seconds": time.monotonic() - started}


def first_questions(file: str, count: int) -> dict[str, Any]:
    """The document of the first `count` questions of a SQuAD file, in its order."""
    document = loads(Path(file).read_text(encoding="utf-8"))
    kept = []
    for article in document["data"]:
        for paragraph in article["paragraphs"]:
            questions = paragraph["qas"][:count]
            count -= len(questions)
            if questions:
                kept.append({"context": paragraph["context"], "qas": questions})
    return {"version": "1.1", "data": [{"title": "", "paragraphs": kept}]}


def show(ours: dict[str, Any], peer: dict[str, Any]) -> None:
    """Both rows in a table."""
    table = Table(title="The main job beside a plain loop", title_justify="left")
    for name in ("", "jobs.train", "plain loop"):
        table.add_column(name, justify="right")
    for key in sorted(ours.keys() | peer.keys()):
        cells = [f"{row[key]:.4g}" if key in row else "" for row in (ours, peer)]
        table.add_row(key, *cells)
    Console().print(table)


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
