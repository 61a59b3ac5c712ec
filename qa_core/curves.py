"""report: the learning curve of a training, as its rows are read on the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any


def learning_curve(
    history: Sequence[Mapping[str, Any]], scores: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """A row for the end of every epoch and every score: what the steps since the last row were.

    `history` holds the steps in order (the fields of `qa_core.training.StepDone`), `scores` the
    figures of scored checkpoints with their `step` and `epoch`; step 0 is the untrained model.
    A row has the mean training loss, tokens and share of padding of its steps, and eval loss,
    exact match and F1 where there is a score.
    """
    scored = {int(row["step"]): row for row in scores}
    rows, steps = [], []
    if 0 in scored:
        rows.append(_curve_row(scored[0], [], scored[0]))
    for step in history:
        steps.append(step)
        if step["step"] in scored or step["epoch"] % 1 == 0:
            rows.append(_curve_row(step, steps, scored.get(step["step"], {})))
            steps = []
    return rows


def _curve_row(
    place: Mapping[str, Any], steps: Sequence[Mapping[str, Any]], scores: Mapping[str, Any]
) -> dict[str, Any]:
    num_features = sum(step["num_features"] for step in steps)
    num_tokens = sum(step["num_tokens"] for step in steps)
    num_padding = sum(step["num_padding_tokens"] for step in steps)
    weighted = sum(step["loss"] * step["num_features"] for step in steps)
    return {
        "epoch": place["epoch"],
        "step": place["step"],
        "loss": weighted / num_features if steps else None,
        "num_tokens": num_tokens,
        "padding_share": num_padding / (num_tokens + num_padding) if steps else None,
        "eval_loss": scores.get("eval_loss"),
        "exact": scores.get("exact"),
        "f1": scores.get("f1"),
    }
