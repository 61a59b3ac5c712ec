"""The training process of `jobs.train`, writing down when each step was done.

`python -m benchmarks.watched_train` is `jobs.train` with this process in the place of its own.
"""

import json
import os
import time
from pathlib import Path
from typing import Any

from jobs import training_worker
from jobs.progress import Progress
from qa_core.training import StepDone

STEPS = "watched_steps.jsonl"  # in the folder of the run


def watched_worker(arguments: dict[str, Any]) -> dict[str, Any]:
    """`jobs.training_worker.train_worker`, its steps noted in the folder of the run."""
    file = Path(arguments["task"].run) / STEPS

    class NotingProgress(Progress):
        """Also writes a line for each step."""

        def show(self, event: StepDone) -> None:
            note_step(file, event)
            super().show(event)

    training_worker.Progress = NotingProgress  # type: ignore[misc]
    return training_worker.train_worker(arguments)


def note_step(file: Path, done: StepDone) -> None:
    """Add a line: the step, its loss and windows, the time it was done and by which process."""
    step = {"step": done.step, "loss": done.loss, "num_windows": done.num_features}
    with file.open("a") as lines:
        lines.write(json.dumps({**step, "time": time.time(), "pid": os.getpid()}) + "\n")


def read_steps(file: Path) -> list[dict[str, Any]]:
    """The lines so far; none before the first."""
    if not file.exists():
        return []
    return [json.loads(line) for line in file.read_text().split("\n")[:-1]]
