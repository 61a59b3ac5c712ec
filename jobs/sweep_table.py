"""results.parquet: a row a trial, from the results of its legs."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from jobs.leg import LEGS
from jobs.trial import trial_folder
from qa_core.halving import Trial
from qa_core.storage import is_directory, join, list_files, read_bytes

Legs = Mapping[int, Sequence[dict[str, Any]]]  # the results of each trial's legs, by its number

RUNG = pa.struct(
    [
        ("num_tokens", pa.int64()),
        ("step", pa.int64()),
        ("total", pa.int64()),  # questions scored
        ("exact", pa.float64()),
        ("f1", pa.float64()),
        ("exact_error", pa.float64()),  # standard error of the mean over the questions
        ("f1_error", pa.float64()),
    ]
)
SIZE = pa.struct(
    [
        ("max_length", pa.int64()),
        ("doc_stride", pa.int64()),
        ("f1", pa.float64()),
        ("exact", pa.float64()),
        ("exact_error", pa.float64()),
        ("f1_error", pa.float64()),
    ]
)
COLUMNS = {
    "trial": pa.int64(),
    "kind": pa.string(),
    "seed": pa.int64(),
    "status": pa.string(),
    "is_winner": pa.bool_(),
    "cause": pa.string(),
    "total_tokens": pa.int64(),
    "num_tokens": pa.int64(),
    "exact": pa.float64(),
    "f1": pa.float64(),
    "eval_loss": pa.float64(),
    "null_threshold": pa.float64(),
    "best_max_length": pa.int64(),
    "best_doc_stride": pa.int64(),
    "best_score": pa.float64(),
    "train_seconds": pa.float64(),
    "score_seconds": pa.float64(),
    "times_halved": pa.int64(),
    "rungs": pa.list_(RUNG),
    "sizes": pa.list_(SIZE),
}


def read_legs(run: str, trial: Trial) -> list[dict[str, Any]]:
    """The results of a trial's legs, in order."""
    folder = join(trial_folder(run, trial.number), LEGS)
    files = list_files(folder) if is_directory(folder) else []
    return sorted((json.loads(read_bytes(file)) for file in files), key=lambda r: r["num_tokens"])


def best_score(trial: Trial, legs: Legs, metric: str) -> float:
    """The best score of a complete trial over all windows it was scored with, or its latest."""
    best = best_windows(trial, legs, metric)
    score = trial.score if best is None else best[metric]
    return -1.0 if score is None else float(score)


def best_windows(trial: Trial, legs: Legs, metric: str) -> dict[str, Any] | None:
    """The row of the windows that a complete trial does best with; None of any other.

    Of equals those it was trained with, then the shorter ones.
    """
    sizes = legs[trial.number][-1]["sizes"] if legs[trial.number] else []
    return min(
        sizes,
        key=lambda row: (-row[metric], row is not sizes[0], row["max_length"]),
        default=None,
    )


def trial_row(trial: Trial, legs: Legs, *, metric: str, is_winner: bool) -> dict[str, Any]:
    """A trial's row of results.parquet."""
    done = legs[trial.number]
    last = done[-1] if done else None
    best = best_windows(trial, legs, metric)
    return {
        "trial": trial.number,
        "kind": trial.kind,
        "seed": trial.seed,
        "status": "waiting" if trial.status == "running" else trial.status,  # its turn never came
        "is_winner": is_winner,
        "cause": trial.cause,
        **trial.point,
        "total_tokens": trial.total_tokens,
        "num_tokens": trial.num_tokens,
        "exact": last["metrics"]["exact"] if last else None,
        "f1": last["metrics"]["f1"] if last else None,
        "eval_loss": last["metrics"]["eval_loss"] if last else None,
        "null_threshold": last["metrics"].get("null_threshold") if last else None,
        "best_max_length": best["max_length"] if best else None,
        "best_doc_stride": best["doc_stride"] if best else None,
        "best_score": best[metric] if best else None,
        "train_seconds": sum(leg["train_seconds"] for leg in done),
        "score_seconds": sum(leg["score_seconds"] for leg in done),
        "times_halved": last["times_halved"] if last else 0,
        "rungs": [
            {
                "num_tokens": leg["num_tokens"],
                "step": leg["step"],
                "total": leg["metrics"]["total"],
                "exact": leg["metrics"]["exact"],
                "f1": leg["metrics"]["f1"],
                **leg.get("errors", {}),  # legs of former versions have none
            }
            for leg in done
        ],
        "sizes": last["sizes"] if last else [],
    }


def results_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """The rows as a table; keys whose values are of several kinds are text."""
    arrays = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        try:
            arrays[name] = pa.array(values, COLUMNS.get(name))
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            arrays[name] = pa.array([json.dumps(value) for value in values])
    return pa.table(arrays)
