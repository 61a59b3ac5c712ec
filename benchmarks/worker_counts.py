"""Does the number of workers change the course of a training? Losses of 1 and 2 workers.

    python -m benchmarks.worker_counts --train reddit.json

Runs `jobs.train` twice on the first questions of a file, dropout off, the same global batch, and
prints the largest difference of the losses over the first 20 steps.
"""

import subprocess
import sys
import tempfile
from json import dumps, loads
from pathlib import Path

from jsonargparse import auto_cli

from benchmarks.figures import write_figures
from benchmarks.main_job import first_questions

GLOBAL_BATCH = 16


def main(train: str, num_train: int = 330, num_steps: int = 20, json: str | None = None) -> None:
    """Compare; see the module.

    Args:
        train: SQuAD JSON to learn from; its first questions also serve to score.
        num_train: how many of its questions.
        num_steps: how many steps to compare.
        json: where to write the figures, too.
    """
    with tempfile.TemporaryDirectory() as folder:
        files = {"train": num_train, "dev": 16}
        for name, count in files.items():
            document = first_questions(train, count)
            Path(folder, f"{name}.json").write_text(dumps(document))
        losses = {workers: losses_of(workers, folder)[:num_steps] for workers in (1, 2)}
    pairs = list(zip(losses[1], losses[2], strict=True))
    if len(pairs) < num_steps:
        raise SystemExit(f"error: only {len(pairs)} steps; raise --num_train")
    largest = max(abs(one - two) for one, two in pairs)
    for step, (one, two) in enumerate(pairs, start=1):
        print(f"step {step:3}  1 worker {one:.6f}  2 workers {two:.6f}  {abs(one - two):.1e}")
    print(f"largest difference over {num_steps} steps: {largest:.2e}")
    write_figures(json, {"largest_loss_difference": largest, "num_steps": num_steps})


def losses_of(num_workers: int, folder: str) -> list[float]:
    """The loss of every step of one epoch."""
    settings = [
        f"--data.train={folder}/train.json",
        f"--data.dev={folder}/dev.json",
        "--train.num_epochs=1",
        "--train.score_untrained=false",
        "--model.dropout=0.0",
        f"--train.per_worker_batch_size={GLOBAL_BATCH // num_workers}",
        f"--scaling.num_workers={num_workers}",
        f"--storage_path={folder}/runs",
        f"--run_name=workers-{num_workers}",
    ]
    subprocess.run([sys.executable, "-m", "jobs.train", *settings], check=True)
    lines = Path(folder, "runs", f"workers-{num_workers}", "metrics.jsonl").read_text()
    events = map(loads, lines.splitlines())
    return [event["loss"] for event in events if event["event"] == "step"]


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
