"""What Ray costs a training: the steps of `jobs.train` beside those of torchrun.

Both train on the same file with two workers of one thread each; a step's time is taken where it
ends, inside the loop of rank 0, so that start-up, tokens and scoring do not count, and whatever
`jobs.train` does between two steps does.
"""

import os
import subprocess
import sys
import time
from contextlib import ExitStack
from itertools import count
from json import dumps
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.figures import ratio
from benchmarks.main_job import first_questions
from benchmarks.memory import ray_head
from benchmarks.sides import take_turns
from benchmarks.training_loop import BATCH
from benchmarks.watched_worker import STEPS, read_steps

WORKERS = 2
STEPS_TO_WARM_UP = 6
Steps = tuple[float, list[dict[str, Any]]]  # seconds from the start to the first step; its lines


def compare_with_torchrun(data: str, model: str, steps: int, turns: int) -> dict[str, Any]:
    """Windows a second of both, what Ray takes of them, and the seconds until the first step."""
    numbers = count()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        file = folder / "train.json"
        # A question has one window at least.
        num_questions = (STEPS_TO_WARM_UP + steps) * WORKERS * BATCH
        file.write_text(dumps(first_questions(data, num_questions)))
        started = time.monotonic()
        _, address = stack.enter_context(ray_head())
        head_seconds = time.monotonic() - started
        on_ray, plain = take_turns(
            turns,
            lambda: run_on_ray(file, model, folder, f"turn-{next(numbers)}", address),
            lambda: run_plain(file, model, folder / f"turn-{next(numbers)}.jsonl"),
        )
    rates = [[step_rate(lines) for _, lines in side] for side in (on_ray, plain)]
    shares = ratio(rates[0], rates[1], "ray_over_torchrun")
    return {
        "ray_overhead": 1 - shares["ray_over_torchrun"],
        "ray_overhead_smallest": 1 - shares["ray_over_torchrun_largest"],
        "ray_overhead_largest": 1 - shares["ray_over_torchrun_smallest"],
        "ray_windows_per_second": median(rates[0]),
        "torchrun_windows_per_second": median(rates[1]),
        "ray_head_start_seconds": head_seconds,
        "ray_first_step_seconds": median(seconds for seconds, _ in on_ray),
        "torchrun_first_step_seconds": median(seconds for seconds, _ in plain),
        "ray_largest_loss_difference": largest_difference(on_ray[0][1], plain[0][1]),
    }


def run_on_ray(file: Path, model: str, folder: Path, name: str, address: str) -> Steps:
    """The steps of a `jobs.train`."""
    arguments = [
        f"--data.train={file}",
        "--data.dev=embedded:handwritten",
        f"--model.name_or_path={model}",
        "--train.num_epochs=1",
        "--train.score_untrained=false",
        f"--scaling.num_workers={WORKERS}",
        "--scaling.threads_per_worker=1",
        "--scaling.use_gpu=false",
        f"--storage_path={folder}/runs",
        f"--run_name={name}",
    ]
    command = [sys.executable, "-m", "benchmarks.watched_train", *arguments]
    return timed_steps(command, folder / "runs" / name / STEPS, {"RAY_ADDRESS": address})


def run_plain(file: Path, model: str, steps_file: Path) -> Steps:
    """The steps of the same loop under torchrun."""
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
        *("--nproc-per-node", str(WORKERS), "-m", "benchmarks.training_rank"),
        *("--data", str(file), "--model", model, "--steps_file", str(steps_file)),
    ]
    return timed_steps(command, steps_file, {"OMP_NUM_THREADS": "1"})


def timed_steps(command: list[str], file: Path, variables: dict[str, str]) -> Steps:
    """Seconds from the start of `command` to its first step, and the lines of its steps."""
    started = time.time()
    done = subprocess.run(
        command,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:3])} ended with {done.returncode}:\n{done.stdout}")
    lines = read_steps(file)
    return lines[0]["time"] - started, lines


def step_rate(lines: list[dict[str, Any]]) -> float:
    """Windows a second once warm; without the last step, which may hold fewer."""
    timed = lines[STEPS_TO_WARM_UP - 1 : -1]
    return sum(line["num_windows"] for line in timed[1:]) / (timed[-1]["time"] - timed[0]["time"])


def largest_difference(one: list[dict[str, Any]], two: list[dict[str, Any]]) -> float:
    """Of the losses of two trainings of the same steps."""
    pairs = zip(one, two, strict=True)
    return max(abs(a["loss"] - b["loss"]) for a, b in pairs)
