"""report: the charts of a run's scores: where they are right, how sure they are, what they took."""

from collections.abc import Mapping, Sequence
from typing import Any

from qa_core.charts import (
    GOOD,
    MUTED,
    SERIES,
    Chart,
    axes,
    escape_plotly,
    line,
    marker,
    number_text,
    vertical,
)
from qa_core.run_files import RunFiles

SLICES = {
    "question_word": "question word",
    "answer_words": "words of the answer",
    "context_tokens": "tokens of the context",
    "num_windows": "number of windows",
    "source": "source",
}
SOURCE_CHARACTERS = 40  # of a source's name in a chart, its end


def threshold_charts(run: RunFiles) -> list[Chart]:
    """Precision and recall, and the scores, over the null threshold; none without one."""
    points = run.analysis.get("precision_recall", {}).get("points", [])
    if not points or run.metrics is None:
        return []
    chosen = run.metrics.get("null_threshold")
    place = None
    if chosen is not None:
        below = [row for row in points if row["threshold"] <= chosen]
        place = below[-1] if below else None
    rows = [
        tuple(round(row[name], 4) for name in ("threshold", "precision", "recall", "f1", "exact"))
        for row in points
    ]
    columns = ("threshold", "precision", "recall", "F1", "exact match")
    curve = line("F1's precision and recall", [(p["recall"], p["precision"]) for p in points])
    scores = [
        line(label, [(p["threshold"], p[key]) for p in points], color=color)
        for label, key, color in (("F1", "f1", SERIES[0]), ("exact match", "exact", SERIES[1]))
    ]
    layout = axes("null threshold", "0 to 100", rangemode="tozero")
    words = "No threshold was set."
    traces = [curve]
    if chosen is not None:
        words = f"The chosen threshold is {chosen:.3f}, with F1 {run.metrics['f1']:.2f}."
        layout["shapes"] = [vertical(chosen)]
        scores.append(marker("chosen", [(chosen, run.metrics["f1"])], color=GOOD, symbol="diamond"))
    if place is not None:
        at = [(place["recall"], place["precision"])]
        traces.append(marker("chosen", at, color=GOOD, symbol="diamond"))
        words += f" There precision is {place['precision']:.1f} and recall {place['recall']:.1f}."
    average = run.analysis["precision_recall"]["pr_f1_ap"]
    recall_axes = axes("recall", "precision", rangemode="tozero")
    return [
        Chart(
            "threshold-scores",
            "Scores over the null threshold",
            f"F1 and exact match of all questions as the threshold rises. {words}",
            {"data": scores, "layout": layout},
            columns,
            rows,
        ),
        Chart(
            "threshold-curve",
            "Precision and recall",
            f"Average precision of F1 {average:.1f}. {words}",
            {"data": traces, "layout": recall_axes},
            columns,
            rows,
        ),
    ]


def calibration_chart(run: RunFiles) -> Chart | None:
    """How often answers of a probability are right."""
    found = run.analysis.get("calibration", {})
    if "before" not in found:
        return None
    diagonal = line("perfect", [(0, 0), (1, 1)], color=MUTED, line={"dash": "dash"})
    traces, rows = [diagonal], []
    most = max(row["total"] for when in ("before", "after") for row in found[when]["bins"])
    for number, (when, label) in enumerate((("before", "as given"), ("after", "with temperature"))):
        bins = found[when]["bins"]
        points = [(row["confidence"], row["accuracy"]) for row in bins]
        trace = line(label, points, color=SERIES[number], mode="lines+markers")
        trace["marker"]["size"] = [round(6 + 14 * (b["total"] / most) ** 0.5, 1) for b in bins]
        trace["customdata"] = [b["total"] for b in bins]
        trace["hovertemplate"] = "%{x:.3f}: right %{y:.3f}, %{customdata} questions"
        traces.append(trace)
        rows += [
            (label, f"{b['low']:.1f} to {b['high']:.1f}", b["total"], *_rounded(b)) for b in bins
        ]
    errors = [100 * found[when]["error"] for when in ("before", "after")]
    return Chart(
        "calibration",
        "Calibration",
        "How often answers were right, by the probability they were given with (larger marks: "
        "more questions); on the dashed line they keep their promise. Expected error "
        f"{errors[0]:.1f} %, with temperature {found['temperature']:.2f} {errors[1]:.1f} %, of "
        f"{found['num_measured']} questions.",
        {"data": traces, "layout": axes("probability", "part that was right", range=[0, 1.02])},
        ("which", "probability", "questions", "mean probability", "part right"),
        rows,
    )


def slice_charts(run: RunFiles) -> list[Chart]:
    """F1 and exact match by slice; slicings with one group are left out."""
    return [
        slice_chart(name, SLICES.get(name, name), rows)
        for name, rows in run.analysis.get("slices", {}).items()
        if len(rows) > 1
    ]


def slice_chart(name: str, words: str, rows: Sequence[Mapping[str, Any]]) -> Chart:
    """Scores of groups of questions."""
    labels = [f"{_short(str(row['slice']))} ({row['total']:,})" for row in rows]
    traces = [
        {
            "type": "bar",
            "name": label,
            "x": [escape_plotly(text) for text in labels],
            "y": [row[key] for row in rows],
            "marker": {"color": color},
            "hovertemplate": "%{x}: %{y:.2f}",
        }
        for label, key, color in (("F1", "f1", SERIES[0]), ("exact match", "exact", SERIES[1]))
    ]
    worst = min(rows, key=lambda row: row["f1"])
    layout = axes("", "0 to 100", range=[0, 100]) | {"barmode": "group"}
    layout["xaxis"]["type"] = "category"
    return Chart(
        f"slice-{name}",
        f"By {words}",
        f"Scores by {words}, numbers of questions in parentheses. The lowest F1 is "
        f"{worst['f1']:.2f}, of {_short(str(worst['slice']))}.",
        {"data": traces, "layout": layout},
        (words, "questions", "exact match", "F1"),
        [(str(r["slice"]), r["total"], round(r["exact"], 2), round(r["f1"], 2)) for r in rows],
    )


def top_chart(run: RunFiles) -> Chart | None:
    """What the best of the first n candidates would score."""
    rows = run.analysis.get("top_n", [])
    if not rows:
        return None
    traces = [
        line(label, [(row["n"], row[key]) for row in rows], color=color, mode="lines+markers")
        for label, key, color in (("F1", "f1", SERIES[0]), ("exact match", "exact", SERIES[1]))
    ]
    layout = axes("candidates", "0 to 100", rangemode="tozero")
    return Chart(
        "top-n",
        "Best of the first candidates",
        f"The best of {rows[-1]['n']} candidates would have F1 {rows[-1]['f1']:.2f}; the first "
        f"has {rows[0]['f1']:.2f} (before any null threshold).",
        {"data": traces, "layout": layout},
        ("candidates", "exact match", "F1"),
        [(row["n"], round(row["exact"], 2), round(row["f1"], 2)) for row in rows],
    )


def time_chart(run: RunFiles) -> Chart | None:
    """Where the time went."""
    stages = [(name, seconds) for name, seconds in run.timings.get("stages", {}).items()]
    if not stages:
        return None
    rows: list[tuple[str, float]] = [(name, round(seconds, 1)) for name, seconds in stages]
    within = []
    if run.times:
        feed = sum(row["feed_seconds"] for row in run.times)
        total = sum(row["seconds"] for row in run.times)
        within = [("steps, of all attempts", total), ("of them waiting for batches", feed)]
    if run.scoring_seconds:
        within.append(("scoring checkpoints, beside the steps", run.scoring_seconds))
    rows += [(name, round(seconds, 1)) for name, seconds in within]
    shown = [*stages, *within][::-1]
    colors = [*[SERIES[0]] * len(stages), *[SERIES[1]] * len(within)][::-1]
    trace = {
        "type": "bar",
        "orientation": "h",
        "y": [name for name, _ in shown],
        "x": [round(seconds, 1) for _, seconds in shown],
        "marker": {"color": colors},
        "hovertemplate": "%{y}: %{x:.1f} s",
    }
    total = sum(seconds for _, seconds in stages)
    layout = axes("seconds", "") | {"showlegend": False, "height": 60 + 32 * len(shown)}
    layout["yaxis"]["automargin"] = True
    return Chart(
        "time",
        "Where the time went",
        f"{total:,.0f} s by the clock in the job that ended the run{padding_words(run)}.",
        {"data": [trace], "layout": layout},
        ("stage", "seconds"),
        rows,
    )


def padding_words(run: RunFiles) -> str:
    """The share of padding among the tokens computed, as the end of a sentence."""
    real = sum(step["num_tokens"] for step in run.steps)
    padding = sum(step["num_padding_tokens"] for step in run.steps)
    if not real:
        return ""
    return f"; {100 * padding / (real + padding):.1f} % of the tokens computed were padding"


def _rounded(row: Mapping[str, float]) -> tuple[float, float]:
    return round(row["confidence"], 4), round(row["accuracy"], 4)


def _short(text: str) -> str:
    """The end of a long name."""
    return text if len(text) <= SOURCE_CHARACTERS else f"…{text[1 - SOURCE_CHARACTERS :]}"


def score_text(run: RunFiles, name: str) -> str:
    """A score with its 95 % interval, as people read it."""
    metrics = run.metrics or {}
    if name not in metrics:
        return ""
    low, high = run.analysis.get("intervals", {}).get(name, (None, None))
    span = f" ({number_text(low)} to {number_text(high)})" if low is not None else ""
    return f"{number_text(metrics[name])}{span}"
