"""Folders of runs as the jobs leave them, of any size and with any text, without a model."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from jobs.configuration import EvaluateConfig, TrainConfig, dump_config
from qa_core.analysis import analyse
from qa_core.decoding import apply_null_threshold
from qa_core.exploring import CANDIDATES, Explorer, explored_rows
from qa_core.planning import WindowPlan
from qa_core.presenting import present_answers
from qa_core.schemas import ANSWERED, EXAMPLES
from qa_core.scoring import given_scores, score_answers, summarize_scores
from qa_core.slices import example_facts
from qa_core.storage import write_json_lines, write_parquet

WORDS = (
    *("bridge", "river", "who", "town", "mayor", "opened", "stone", "harbour", "winter"),
    *("library", "engine", "founded", "copper", "valley", "school", "painted", "railway"),
)
THRESHOLD = 0.5
STARTS = ("Who", "What", "When", "Where", "How", "Which")


def make_examples(
    num_questions: int, *, text: Callable[[str], str] = str, words: int = 60, seed: int = 0
) -> pa.Table:
    """Questions, five a context; every fifth has no answer. `text` changes every text."""
    random = np.random.default_rng(seed)
    rows = []
    for number in range(num_questions):
        if number % 5 == 0:
            drawn = random.choice(WORDS, words)
            context = text(" ".join(map(str, drawn)) + f" in {1800 + number % 200}.")
        first = int(random.integers(0, len(context) - 9))
        answers: dict[str, list[Any]] = {"text": [], "answer_start": []}
        if number % 5 != 4:
            answers = {"text": [context[first : first + 8]], "answer_start": [first]}
        question = f"{STARTS[number % len(STARTS)]} is number {number}?"
        rows.append(
            {
                "id": f"q{number:06d}" if text is str else text(f"q{number:06d}"),
                "title": "",
                "context": context,
                "question": text(question),
                "answers": answers,
                "source": text("data/part.json" if number % 2 else "data/other.json"),
            }
        )
    return pa.Table.from_pylist(rows, schema=EXAMPLES)


def make_answers(examples: pa.Table, *, seed: int = 0) -> pa.Table:
    """`ANSWERED`: two in three are the accepted answer, the others a place beside it."""
    random = np.random.default_rng(seed)
    rows = []
    for example in examples.to_pylist():
        context, starts = example["context"], example["answers"]["answer_start"]
        place = starts[0] if starts and random.random() < 0.7 else int(random.integers(0, 20))
        places = [(place, place + 8), (place + 1, place + 6), (3, 12)]
        scores = np.sort(random.normal(0, 2, 3))[::-1].tolist()
        null_score = float(random.normal(-2 if starts else 2, 2))
        candidates = [(context[a:b], a, b, s) for (a, b), s in zip(places, scores, strict=True)]
        candidates.append(("", -1, -1, null_score))
        candidates.sort(key=lambda row: -row[3])
        weights = np.exp([row[3] for row in candidates])
        keys = ("text", "start_char", "end_char", "score", "probability")
        n_best = [
            dict(zip(keys, (*row, weight), strict=True))
            for row, weight in zip(candidates, weights / weights.sum(), strict=True)
        ]
        rows.append(
            {
                "id": example["id"],
                "text": context[place : place + 8],
                "start_char": place,
                "end_char": place + 8,
                "score": scores[0],
                "null_score": null_score,
                "n_best": n_best,
            }
        )
    return pa.Table.from_pylist(rows, schema=ANSWERED)


def write_run(
    folder: Path,
    examples: pa.Table,
    *,
    seed: int = 0,
    has_null: bool = True,
    num_steps: int = 40,
    config: Any = None,
    rejections: Sequence[dict[str, Any]] = (),
) -> Path:
    """All files of a run that its page is made of; without steps that of an evaluation."""
    folder.mkdir(parents=True)
    default = TrainConfig() if num_steps else EvaluateConfig()
    (folder / "config.yaml").write_text(dump_config(config or default), encoding="utf-8")
    threshold = THRESHOLD if has_null else None
    metrics = _write_answers(folder, examples, seed=seed, threshold=threshold)
    _write(folder / "inputs.json", {"dev": "0123456789abcdef", "model": "fedcba9876543210"})
    number = len(examples)
    counts = (0, number, 0, 0, 0)  # two windows each
    sizes = (2 * number, counts, 120 * number, 9000, 10, number, 1, number - 1)
    plan = WindowPlan(96, 16, 30, number, 0, *sizes)
    row = {"plan": asdict(plan), "num_features": plan.num_windows, "num_rejected": len(rejections)}
    _write(folder / "plan.json", {"dev": row})
    _write(folder / "timings.json", {"stages": {"tokens and windows": 3.5, "training": 40.25}})
    write_json_lines(str(folder / "rejections.jsonl"), rejections)
    if num_steps:
        write_course(folder, num_steps, metrics)
        metrics = {**metrics, "best_epoch": 2.0, "best_step": num_steps}
    _write(folder / "metrics.json", metrics)
    return folder


def _write_answers(
    folder: Path, examples: pa.Table, *, seed: int, threshold: float | None
) -> dict[str, Any]:
    """analysis.json and explorer.parquet; the figures."""
    answers = make_answers(examples, seed=seed)
    scores = score_answers(answers, examples)
    sizes = np.array([len(text) for text in examples["context"].to_pylist()])
    facts = example_facts(
        answers, examples, num_windows=np.full(len(examples), 2), context_tokens=sizes // 4
    ).sort_by("id")
    _write(folder / "analysis.json", analyse(scores, facts, null_threshold=threshold))
    if threshold is not None:
        answers = apply_null_threshold(answers, threshold)
    explorer = Explorer()
    kept = pa.array(np.flatnonzero(explorer.wanted(examples["context"])))
    rows = explored_rows(
        examples.take(kept),
        present_answers(answers.take(kept), top_k=CANDIDATES, has_null=threshold is not None),
        given=given_scores(scores, null_threshold=threshold),
        facts=facts,
        windows=[([0, 40], [60, int(size)]) for size in sizes[kept.to_numpy()]],
    )
    explorer.add(rows)
    write_parquet(str(folder / "explorer.parquet"), explorer.table())
    metrics = dict(summarize_scores(scores, null_threshold=threshold))
    return metrics if threshold is None else {**metrics, "null_threshold": threshold}


def write_course(folder: Path, num_steps: int, metrics: dict[str, Any]) -> None:
    """metrics.jsonl and the times of the steps."""
    steps = [
        {
            "step": step,
            "num_steps": num_steps,
            "epoch": 2 * step / num_steps,
            "loss": 4 / step,
            "learning_rate": 1e-4 * (1 - step / num_steps),
            "num_features": 16,
            "num_tokens": 1600 + step,
            "num_padding_tokens": 100,
        }
        for step in range(1, num_steps + 1)
    ]
    scores = [
        {"step": 0, "epoch": 0.0, **metrics, "exact": 3.0, "f1": 4.0, "eval_loss": 5.0},
        {"step": num_steps, "epoch": 2.0, **metrics, "eval_loss": 1.0},
    ]
    events = [{"event": "step", **row} for row in steps]
    events += [{"event": "score", **row} for row in scores]
    write_json_lines(str(folder / "metrics.jsonl"), events)
    times = [{"step": row["step"], "seconds": 0.5, "feed_seconds": 0.01} for row in steps]
    write_json_lines(str(folder / "times" / f"step-{num_steps:08d}.jsonl"), times)


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")
