"""report: scores, curves and answers → one page a person reads. Numbers equal the score's."""

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def learning_curve(
    history: Sequence[Mapping[str, Any]], scores: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """A row an epoch: mean training loss, tokens and share of padding, exact match and F1.

    `history` holds the steps (the fields of `qa_core.training.StepDone`), `scores` the figures
    of scored epochs with their `epoch`; epoch 0 is the untrained model.
    """
    by_epoch = {int(row["epoch"]): row for row in scores}
    steps: dict[int, list[Mapping[str, Any]]] = {}
    for step in history:
        steps.setdefault(-int(-step["epoch"] // 1), []).append(step)  # ceiling
    return [
        _curve_row(epoch, steps.get(epoch, []), by_epoch.get(epoch, {}))
        for epoch in sorted(steps.keys() | by_epoch.keys())
    ]


def _curve_row(
    epoch: int, steps: Sequence[Mapping[str, Any]], scores: Mapping[str, Any]
) -> dict[str, Any]:
    num_features = sum(step["num_features"] for step in steps)
    num_tokens = sum(step["num_tokens"] for step in steps)
    num_padding = sum(step["num_padding_tokens"] for step in steps)
    weighted = sum(step["loss"] * step["num_features"] for step in steps)
    return {
        "epoch": epoch,
        "step": steps[-1]["step"] if steps else 0,
        "loss": weighted / num_features if steps else None,
        "num_tokens": num_tokens,
        "padding_share": num_padding / (num_tokens + num_padding) if steps else None,
        "exact": scores.get("exact"),
        "f1": scores.get("f1"),
    }


def render_report(
    *,
    title: str,
    metrics: Mapping[str, Any],
    curve: Sequence[Mapping[str, Any]],
    rejections: Mapping[str, int],
    config: str,
) -> str:
    """A self-contained HTML page; every text is escaped."""
    environment = Environment(
        loader=PackageLoader("qa_core"), autoescape=True, undefined=StrictUndefined
    )
    return environment.get_template("report.html").render(
        title=title, metrics=metrics, curve=curve, rejections=rejections, config=config
    )
