"""What a person sees in the terminal at the end of a job."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from rich import box
from rich.markup import escape
from rich.table import Table

from jobs.artefacts import REPORT
from jobs.cluster import console
from jobs.prepared import Prepared, read_rejections
from jobs.token_store import REJECTED, REMARKS
from qa_core.planning import WindowPlan, epoch_cost, find_dominated
from qa_core.reading import count_reasons
from qa_core.storage import join


def show_curve(curve: Sequence[Mapping[str, Any]]) -> None:
    """The learning curve, a line an epoch and a score; epoch 0 is the untrained model."""
    table = Table(title="Learning curve", title_justify="left")
    for name in ("epoch", "step", "loss", "eval loss", "exact", "F1", "real tokens", "padding"):
        table.add_column(name, justify="right")
    for row in curve:
        share = row["padding_share"]
        table.add_row(
            f"{row['epoch']:.4g}",
            str(row["step"]),
            _number(row["loss"], 3),
            _number(row["eval_loss"], 3),
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


def show_analysis(analysis: Mapping[str, Any]) -> None:
    """How sure the scores are, and the largest differences between slices of the data."""
    spans = [
        f"{name} {low:.2f} to {high:.2f}" for name, (low, high) in analysis["intervals"].items()
    ]
    console.print(f"95 % intervals (bootstrap): {', '.join(spans)}")
    table = Table(title="By slice", title_justify="left", box=box.SIMPLE_HEAD)
    for name in ("of", "slice", "questions", "exact", "F1"):
        table.add_column(name, justify="left" if name in ("of", "slice") else "right")
    for name, rows in analysis["slices"].items():
        for row in rows if len(rows) > 1 else ():
            scores = (_number(row[score], 2) for score in ("exact", "f1"))
            table.add_row(
                name.replace("_", " "), escape(str(row["slice"])), str(row["total"]), *scores
            )
    console.print(table)
    found = analysis.get("calibration", {})
    if "before" in found:
        errors = [100 * found[when]["error"] for when in ("before", "after")]
        console.print(
            f"Calibration: expected error {errors[0]:.1f} %, with temperature "
            f"{found['temperature']:.2f} {errors[1]:.1f} %"
        )


def show_sizes(rows: Sequence[Mapping[str, Any]]) -> None:
    """Scores by window size, a line each; the best is marked."""
    table = Table(title="Scores by max_length/doc_stride", title_justify="left")
    for name in ("size", "questions", "windows", "tokens", "exact", "F1", ""):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            f"{row['max_length']}/{row['doc_stride']}",
            str(row["total"]),
            str(row["num_windows"]),
            _count(row["num_tokens"]),
            _number(row["exact"], 2),
            _number(row["f1"], 2),
            "best" if row["is_best"] else "",
        )
    console.print(table)


def show_difference(compared: Mapping[str, Any], other: str) -> None:
    """Whether scores differ by more than noise from another run's."""
    for name in ("exact", "f1"):
        found = compared[name]
        console.print(
            f"{name} {found['ours']:.2f} against {found['other']:.2f} of {escape(other)}: "
            f"{found['difference']:+.2f} ({found['low']:+.2f} to {found['high']:+.2f}), "
            f"{found['verdict']}"
        )


def show_page(run: str) -> None:
    """Where the run's page is."""
    console.print(
        f"Open {join(run, REPORT)} in a browser: scores, curves, every answer.", markup=False
    )


def warn(text: str) -> None:
    """A line that begins with the word warning."""
    console.print(f"[yellow]warning[/yellow]: {escape(text)}")


def show_prepared(name: str, prepared: Prepared, *, is_new: bool, seconds: float) -> None:
    """What a split comes to: a line, and others for what was left out or remarked on."""
    made = f"made in {seconds:.1f} s" if is_new else "found on storage"
    plan, settings = prepared.plan, prepared.settings
    answers = f" ({prepared.num_unanswerable} unanswerable)" if plan.num_answerable else ""
    console.print(
        f"[bold]{name}[/bold]: {prepared.num_examples} questions{answers}, "
        f"{prepared.num_features} windows, {prepared.num_tokens} tokens, {made}"
    )
    if prepared.num_features < plan.num_windows:
        console.print(
            f"  null windows sampled: {plan.num_windows - prepared.num_features} of "
            f"{plan.num_null_windows} left out (features.null_window_fraction "
            f"{settings.null_window_fraction:g}, features.null_window_seed "
            f"{settings.null_window_seed})"
        )
    if plan.num_cut:
        console.print(
            f"  {plan.num_cut} of {plan.num_answerable} answerable questions have their answer "
            f"whole in no window; the best exact match these windows allow is {plan.ceiling:.2f}"
        )
    if prepared.store.num_remarks:
        listed_in = escape(join(prepared.folder, REMARKS))
        console.print(f"  {prepared.store.num_remarks} records were remarked on; see {listed_in}")
    if prepared.num_rejected:
        reasons = count_reasons(read_rejections(prepared))
        listed = ", ".join(f"{reason}: {count}" for reason, count in reasons.items())
        console.print(
            f"  [yellow]{prepared.num_rejected} of {prepared.store.num_read} records rejected"
            f"[/yellow] ({listed}); see {escape(join(prepared.folder, REJECTED))}"
        )


STAGE_FACTS = ("num_examples", "read_seconds", "tokenize_seconds", "write_seconds")


def show_stages(facts: pa.Table, prepared: Prepared, *, window_seconds: float) -> None:
    """Rows and time of each stage.

    Reading to writing in seconds of the processes that worked at it, summed; windows by the clock.
    """
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("stage", "rows", "seconds", "rows/s"):
        table.add_column(name, justify="left" if name == "stage" else "right")
    num_questions = int(pc.sum(facts["num_examples"]).as_py())
    stages = [
        (stage, num_questions, float(pc.sum(facts[f"{stage}_seconds"]).as_py()))
        for stage in ("read", "tokenize", "write")
    ]
    for stage, rows, seconds in (*stages, ("window", prepared.plan.num_windows, window_seconds)):
        table.add_row(stage, str(rows), f"{seconds:.2f}", f"{rows / max(seconds, 1e-9):.0f}")
    console.print(table)


def show_plans(name: str, plans: Sequence[WindowPlan], *, hidden_size: int) -> None:
    """What each window size costs and could reach; the first is the configured one.

    Warns where another one beats it.
    """
    costs = [epoch_cost(plan, hidden_size=hidden_size) for plan in plans]
    dominated = find_dominated(plans, hidden_size=hidden_size)
    table = Table(
        title=f"Windows of {name}, by max_length/doc_stride",
        title_justify="left",
        caption="cost: arithmetic of an epoch over real tokens, the cheapest is 1; best EM: the "
        "highest exact match any model could reach; [yellow]dominated[/yellow]: the other "
        "size costs at most as much and reaches at least as much",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for column in ("size", "windows", "per question", "with 1 2 3 4 5+", "tokens", "padded"):
        table.add_column(column, justify="right", no_wrap=True)
    for column in ("cut", "best EM", "cost", "dominated by"):
        table.add_column(column, justify="right", no_wrap=True)
    for number, (plan, cost) in enumerate(zip(plans, costs, strict=True)):
        better = dominated.get(number)
        table.add_row(
            _size(plan),
            _count(plan.num_windows),
            f"{plan.windows_per_question:.2f}",
            " ".join(map(_count, plan.window_counts)),
            _count(plan.num_tokens),
            _count(plan.num_padded_tokens),
            _count(plan.num_cut),
            f"{plan.ceiling:.2f}",
            f"{cost / min(costs):.2f}",
            "" if better is None else f"[yellow]{_size(plans[better])}[/yellow]",
        )
    console.print(table)
    if 0 in dominated:
        warn(
            f"{_size(plans[0])}, as configured, is dominated by {_size(plans[dominated[0]])}: "
            f"{costs[dominated[0]] / costs[0]:.2f} of its cost, best exact match "
            f"{plans[dominated[0]].ceiling:.2f} against {plans[0].ceiling:.2f}"
        )


def _count(number: int) -> str:
    """A number as it is, from 100,000 on in millions."""
    return str(number) if number < 10**5 else f"{number / 10**6:.2f}M"


def _size(plan: WindowPlan) -> str:
    return f"{plan.max_length}/{plan.doc_stride}"


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
