"""Training: our loop beside the notebook's, one worker beside two, Ray beside torchrun.

    python -m benchmarks.training --data squadshifts_reddit.json --json training.json

in_process: `qa_core.training.Trainer` and transformers' `Trainer` over windows padded to
max_length train on the same windows, whose lengths are spread as the file's are; matrix products
are timed in the same turns. workers: two workers of one thread each, against two processes that
train alone at the same time. ray: `jobs.train` against the same loop under torchrun. Each side is
a process of its own, all take turns, and two turns before warm up. About 25 minutes on two cores.
gpu, only when it is named: in_process on one GPU, both sides in bfloat16. The peer of these two
needs the extra `benchmarks`.
"""

import json as json_lines
import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from jsonargparse import auto_cli
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from transformers import AutoConfig

from benchmarks.figures import ratio, write_figures
from benchmarks.main_job import first_questions
from benchmarks.notebook_training import notebook_side
from benchmarks.sides import Side, ask_all, take_turns
from benchmarks.training_loop import (
    BATCH,
    LoopTask,
    Seat,
    Turn,
    our_side,
    training_flops,
)
from benchmarks.training_on_ray import compare_with_torchrun
from jobs.models import resolve_model

CPU_PARTS = ("in_process", "workers", "ray")
PARTS = (*CPU_PARTS, "gpu")
# Memory that a process keeps grows for some steps, and its pages cost when they are first used.
WARM_UP_TURNS = 2
RAY_TURNS = 3


def main(
    data: str,
    model: str = "embedded",
    num_questions: int | None = None,
    turns: int = 5,
    steps: int = 8,
    threads: int = 2,
    parts: str = ",".join(CPU_PARTS),
    json: str | None = None,
) -> None:
    """Compare; see the module.

    Args:
        data: SQuAD JSON.
        model: encoder that every side starts from.
        num_questions: only the first questions of the file; default: all.
        turns: timed turns of every side; of ray, which starts its processes anew, three at most.
        steps: of 16 windows a worker, in a turn.
        threads: of each side of in_process.
        parts: which comparisons, separated by commas.
        json: where to write the figures, too.
    """
    chosen = parts.split(",")
    if not set(chosen) <= set(PARTS):
        raise SystemExit(f"error: --parts {parts}: expected some of {','.join(PARTS)}")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    model = resolve_model(model)
    figures: dict[str, Any] = {"num_steps": steps, "batch_size": BATCH}
    with tempfile.TemporaryDirectory() as folder:
        if num_questions is not None:
            file = Path(folder, "data.json")
            file.write_text(json_lines.dumps(first_questions(data, num_questions)))
            data = str(file)
        if "in_process" in chosen:
            task = LoopTask(data, model, threads, steps * BATCH, WARM_UP_TURNS, turns)
            figures |= compare_with_notebook(task)
        if "gpu" in chosen:
            task = LoopTask(data, model, threads, steps * BATCH, WARM_UP_TURNS, turns, "cuda")
            figures |= compare_on_gpu(task)
        if "workers" in chosen:
            task = LoopTask(data, model, 1, 2 * steps * BATCH, WARM_UP_TURNS, turns)
            figures |= compare_workers(task, f"{folder}/group")
        if "ray" in chosen:
            figures |= compare_with_torchrun(data, model, steps, min(turns, RAY_TURNS))
    show(figures)
    write_figures(json, figures)


def compare_with_notebook(task: LoopTask) -> dict[str, Any]:
    """Our loop and the notebook's on the same windows, and the machine's matrix products."""
    with Side(our_side, task, Seat()) as ours, Side(notebook_side, task) as peer:
        first = warm_up(task, ours, peer)
        our_turns, products, peer_turns = take_turns(
            task.num_turns,
            lambda: ours.ask("turn"),
            lambda: ours.ask("sgemm"),
            lambda: peer.ask("turn"),
        )
        lengths = ours.ask("lengths")
        feeds = [ours.ask("feed") for _ in range(task.num_turns)]
    flops = training_flops(lengths, AutoConfig.from_pretrained(task.model))
    return {
        **of_both("cpu", task, lengths, first, our_turns, peer_turns),
        **ratio([flops / turn.seconds for turn in our_turns], products, "sgemm_share"),
        "sgemm_gflops_per_second": median(products) / 1e9,
        "useful_gflops_per_window": flops / len(lengths) / 1e9,
        **ratio(feeds, [turn.rate / BATCH for turn in our_turns], "feed_over_step_ratio"),
        "feed_steps_per_second": median(feeds),
    }


def compare_on_gpu(task: LoopTask) -> dict[str, Any]:
    """Our loop and the notebook's on the same windows and one GPU."""
    with Side(our_side, task, Seat()) as ours, Side(notebook_side, task) as peer:
        first = warm_up(task, ours, peer)
        our_turns, peer_turns = take_turns(
            task.num_turns, lambda: ours.ask("turn"), lambda: peer.ask("turn")
        )
        lengths = ours.ask("lengths")
    figures = of_both("gpu", task, lengths, first, our_turns, peer_turns)
    return {"gpu": torch.cuda.get_device_name(), **figures}


def warm_up(task: LoopTask, ours: Side, peer: Side) -> list[Turn]:
    """The first turn of both sides; an error where they differ in what they train on."""
    for side in (ours, peer):
        side.answer()  # ready
    turns = [[side.ask("turn") for _ in range(task.warm_up_turns)] for side in (ours, peer)]
    first = [side[0] for side in turns]
    if first[0].num_tokens != first[1].num_tokens:
        raise RuntimeError(f"the sides train on different windows: {first}")
    return first


def of_both(
    device: str,
    task: LoopTask,
    lengths: NDArray[Any],
    first: Sequence[Turn],
    our_turns: Sequence[Turn],
    peer_turns: Sequence[Turn],
) -> dict[str, Any]:
    """Windows a second of both sides and their ratio, tokens, padding, losses."""
    our_rates, peer_rates = ([turn.rate for turn in side] for side in (our_turns, peer_turns))
    return {
        "accelerate_version": metadata.version("accelerate"),
        "threads": task.threads,
        "num_windows": len(lengths),
        "mean_window_tokens": float(lengths.mean()),
        **ratio(our_rates, peer_rates, f"{device}_windows_per_second_ratio"),
        **of_side("", our_turns),
        **of_side("peer_", peer_turns),
        "first_turn_loss": first[0].loss,
        "peer_first_turn_loss": first[1].loss,
        "last_turn_loss": our_turns[-1].loss,
        "peer_last_turn_loss": peer_turns[-1].loss,
    }


def of_side(prefix: str, turns: Sequence[Turn]) -> dict[str, Any]:
    """Rate, tokens and padding of one side's turns."""
    tokens, padding = (
        sum(getattr(turn, name) for turn in turns) for name in ("num_tokens", "num_padding_tokens")
    )
    return {
        f"{prefix}windows_per_second": median(turn.rate for turn in turns),
        f"{prefix}tokens": tokens,
        f"{prefix}padding_tokens": padding,
        f"{prefix}padding_share": padding / (tokens + padding),
    }


def compare_workers(task: LoopTask, group: str) -> dict[str, Any]:
    """Two workers that train together, against two that train alone at the same time."""
    with ExitStack() as stack:

        def start(group: str | None) -> list[Side]:
            seats = [Seat(rank, 2, group) for rank in range(2)]
            return [stack.enter_context(Side(our_side, task, seat)) for seat in seats]

        together, alone = start(group), start(None)
        for side in (*together, *alone):
            side.answer()  # ready
        runs: list[Callable[[], list[Turn]]] = [
            lambda: ask_all(together, "turn"),
            lambda: ask_all(alone, "turn"),
        ]
        take_turns(task.warm_up_turns, *runs)
        pair_turns, alone_turns = take_turns(task.num_turns, *runs)
        lengths = [side.ask("lengths") for side in alone]
        reduce_seconds = [max(ask_all(together, "all_reduce")) for _ in range(task.num_turns)]
    # A step's windows are counted on every rank, for all of them.
    pair_rates = [min(turn.rate for turn in pair) for pair in pair_turns]
    alone_rates = [sum(turn.rate for turn in pair) for pair in alone_turns]
    pair_cpu, alone_cpu = (
        [sum(turn.cpu_seconds for turn in pair) for pair in side]
        for side in (pair_turns, alone_turns)
    )
    return {
        **ratio(pair_rates, alone_rates, "two_worker_share"),
        "two_worker_windows_per_second": median(pair_rates),
        "two_alone_windows_per_second": median(alone_rates),
        "two_worker_step_seconds": 2 * BATCH / median(pair_rates),
        "two_worker_cpu_seconds_ratio": ratio(pair_cpu, alone_cpu, "cpu")["cpu"],
        "two_worker_idle_share": median(map(idle_share, pair_turns)),
        "two_alone_idle_share": median(map(idle_share, alone_turns)),
        "all_reduce_alone_seconds": median(reduce_seconds[1:] or reduce_seconds),
        "two_worker_tokens_ratio": float(np.divide(*(each.sum() for each in lengths))),
    }


def idle_share(pair: Sequence[Turn]) -> float:
    """The part of its time that a process of one thread does not compute, waiting for the other."""
    return 1 - sum(turn.cpu_seconds for turn in pair) / sum(turn.seconds for turn in pair)


def show(figures: dict[str, Any]) -> None:
    """The figures, a line each."""
    table = Table(title="Training", title_justify="left", show_header=False)
    table.add_column("figure")
    table.add_column("value", justify="right")
    for name, value in figures.items():
        table.add_row(name, f"{value:,.3f}" if isinstance(value, float) else str(value))
    Console().print(table)


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
