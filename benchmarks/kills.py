"""How a training takes the loss of workers: SIGKILL of a random one at random steps.

    python -m benchmarks.kills --kills 10 --json kills.json

Starts a Ray head of its own and `jobs.train` with two workers on it. After each kill it waits for
the next step, of the processes that took over: seconds from the signal to the end of that step,
and steps that are done again. Then the run must end as if nothing had happened: each step once in
its record, and a step that was done twice with the same loss both times. About ten minutes.
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from json import dumps, loads
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from jsonargparse import auto_cli

from benchmarks.figures import write_figures
from benchmarks.memory import family, ray_head
from benchmarks.watched_worker import STEPS, read_steps
from qa_core.demo_corpus import generate_corpus

WORKERS = 2
BATCH = 4  # windows of a worker and step: steps of less than a second
QUESTIONS_OF_A_PASSAGE = 4  # in the demo's corpus, where a passage is one window
WORKER_NAME = "RayTrainWorker"  # in the titles of Ray Train's processes
LONGEST_UNDISTURBED = 8  # steps between a recovery and the next kill, at most
SECONDS_BETWEEN_LOOKS = 0.05

Steps = list[dict[str, Any]]  # of `benchmarks.watched_worker`


def main(
    kills: int = 10,
    model: str = "embedded",
    checkpoint_every_steps: int = 5,
    timeout_seconds: float = 300,
    seed: int = 0,
    json: str | None = None,
) -> None:
    """Kill and measure; see the module.

    Args:
        kills: how many workers are killed, one after another.
        model: encoder to train.
        checkpoint_every_steps: of the run.
        timeout_seconds: a run without a step for so long hangs.
        seed: of the victims and the moments.
        json: where to write the figures, too.
    """
    with tempfile.TemporaryDirectory() as text, ray_head() as (head, address):
        folder = Path(text)
        num_steps = 20 + 6 * kills
        command = train_command(folder, num_steps, model, checkpoint_every_steps, kills)
        with (folder / "log.txt").open("w") as log:
            driver = subprocess.Popen(
                command, env={**os.environ, "RAY_ADDRESS": address}, stdout=log, stderr=log
            )
        run = folder / "runs" / "kills"
        watch = Watch(run / STEPS, driver, timeout_seconds)
        try:
            found = kill_workers(watch, head, kills, random.Random(seed))
            exit_status = driver.wait(timeout_seconds + num_steps * 10)
        except (TimeoutError, subprocess.TimeoutExpired, RuntimeError):
            print((folder / "log.txt").read_text()[-4000:])
            raise
        finally:
            driver.kill()
        figures = {
            "checkpoint_every_steps": checkpoint_every_steps,
            **summary(found),
            **outcome(run, exit_status, read_steps(watch.file)),
        }
    for name, value in figures.items():
        print(f"{name} {value}")
    write_figures(json, figures)


def train_command(
    folder: Path, num_steps: int, model: str, checkpoint_every_steps: int, kills: int
) -> list[str]:
    """A training of so many steps on the demo's corpus."""
    num_questions = num_steps * WORKERS * BATCH
    document = generate_corpus("train", num_passages=num_questions // QUESTIONS_OF_A_PASSAGE)
    (folder / "train.json").write_text(dumps(document))
    settings = [
        f"--data.train={folder}/train.json",
        "--data.dev=embedded:handwritten",
        f"--model.name_or_path={model}",
        "--train.num_epochs=1",
        "--train.score_untrained=false",
        f"--train.per_worker_batch_size={BATCH}",
        f"--train.checkpoint_every_steps={checkpoint_every_steps}",
        f"--scaling.num_workers={WORKERS}",
        "--scaling.use_gpu=false",
        f"--scaling.max_failures={kills}",
        f"--storage_path={folder}/runs",
        "--run_name=kills",
    ]
    return [sys.executable, "-m", "benchmarks.watched_train", *settings]


class Watch:
    """Looks at the steps that a run writes down."""

    def __init__(self, file: Path, driver: subprocess.Popen[bytes], timeout_seconds: float) -> None:
        self.file, self.driver, self.timeout_seconds = file, driver, timeout_seconds

    def wait_until(self, is_enough: Callable[[Steps], bool]) -> Steps:
        """All steps so far, once they are enough; an error where the run hangs or has ended."""
        deadline = time.monotonic() + self.timeout_seconds
        while not is_enough(steps := read_steps(self.file)):
            if self.driver.poll() is not None:
                raise RuntimeError(f"the run ended with {self.driver.returncode}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.timeout_seconds:.0f} s without a step: the run hangs")
            time.sleep(SECONDS_BETWEEN_LOOKS)
        return steps


def kill_workers(
    watch: Watch, head: subprocess.Popen[bytes], kills: int, choose: random.Random
) -> list[dict[str, Any]]:
    """Kill workers one after another; what each kill cost."""
    found: list[dict[str, Any]] = []
    num_seen = 0
    for _ in range(kills):
        num_wanted = num_seen + choose.randint(1, LONGEST_UNDISTURBED)
        steps = watch.wait_until(lambda steps, wanted=num_wanted: len(steps) >= wanted)
        time.sleep(choose.random())  # into the next step, or into the writing of a checkpoint
        rank_0 = steps[-1]["pid"]
        victim = choose.choice(worker_processes(head))
        killed = time.time()
        victim.send_signal(signal.SIGKILL)
        # All processes are replaced; a step that the old ones still ended is no recovery.
        steps = watch.wait_until(lambda steps, old=rank_0: steps[-1]["pid"] != old)
        found.append(cost_of_kill(steps, rank_0, killed) | {"was_rank_0": victim.pid == rank_0})
        print(f"kill {len(found)}: {found[-1]}", flush=True)
        num_seen = len(steps)
    return found


def worker_processes(head: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Ray Train's processes below a head."""
    workers = []
    for process in family(head.pid):
        with suppress(psutil.Error):
            if WORKER_NAME in " ".join(process.cmdline()):
                workers.append(process)
    if len(workers) != WORKERS:
        raise RuntimeError(f"{len(workers)} processes called {WORKER_NAME}, not {WORKERS}")
    return workers


def cost_of_kill(steps: Steps, rank_0: int, killed: float) -> dict[str, Any]:
    """Seconds to the first step of the processes after `rank_0`, and steps done again.

    >>> lines = [{"pid": 1, "step": 7, "time": 1.0}, {"pid": 2, "step": 6, "time": 9.0}]
    >>> cost_of_kill(lines, 1, killed=2.0)
    {'last_step': 7, 'seconds': 7.0, 'steps_repeated': 2}
    """
    last = next(line for line in reversed(steps) if line["pid"] == rank_0)
    first = steps[steps.index(last) + 1]
    return {
        "last_step": last["step"],
        "seconds": first["time"] - killed,
        "steps_repeated": last["step"] - first["step"] + 1,
    }


def summary(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Smallest, middle and largest cost of a kill."""
    figures: dict[str, Any] = {"num_kills": len(found)}
    figures["num_kills_of_rank_0"] = sum(kill["was_rank_0"] for kill in found)
    for name, title in (("seconds", "recovery_seconds"), ("steps_repeated", "steps_repeated")):
        values = [kill[name] for kill in found]
        figures |= {
            title: median(values),
            f"{title}_smallest": min(values),
            f"{title}_largest": max(values),
        }
    return figures


def outcome(run: Path, exit_status: int, steps: Steps) -> dict[str, Any]:
    """How the run ended, and whether what was done twice was the same both times."""
    losses: dict[int, list[float]] = {}
    for line in steps:
        losses.setdefault(line["step"], []).append(line["loss"])
    events = map(loads, (run / "metrics.jsonl").read_text().splitlines())
    recorded = [event["step"] for event in events if event["event"] == "step"]
    return {
        "exit_status": exit_status,
        "num_steps": len(losses),
        "num_steps_done_again": len(steps) - len(losses),
        "each_step_recorded_once": recorded == list(range(1, len(losses) + 1)),
        "largest_loss_difference": max(max(twice) - min(twice) for twice in losses.values()),
    }


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
