"""What a person sees in the terminal at the end of a job."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from jobs.cluster import console


def show_curve(curve: Sequence[Mapping[str, Any]]) -> None:
    """The learning curve, a line an epoch; epoch 0 is the untrained model."""
    table = Table(title="Learning curve", title_justify="left")
    for name in ("epoch", "step", "loss", "exact", "F1", "real tokens", "padding"):
        table.add_column(name, justify="right")
    for row in curve:
        share = row["padding_share"]
        table.add_row(
            str(row["epoch"]),
            str(row["step"]),
            _number(row["loss"], 3),
            _number(row["exact"], 2),
            _number(row["f1"], 2),
            str(row["num_tokens"]),
            "" if share is None else f"{100 * share:.1f} %",
        )
    console.print(table)


def show_scores(metrics: Mapping[str, Any], title: str) -> None:
    """Figures, a line each."""
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column("figure")
    table.add_column("value", justify="right")
    for name, value in metrics.items():
        table.add_row(name, _number(value, 2) if isinstance(value, float) else str(value))
    console.print(table)


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
