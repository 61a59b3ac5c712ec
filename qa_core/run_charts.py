"""report: the charts of runs. With several runs the curves of all are in one chart."""

from collections.abc import Mapping, Sequence
from typing import Any

from qa_core.charts import BAD, GOOD, MUTED, SERIES, Chart, escape_plotly, number_text
from qa_core.run_files import RunFiles, bucketed

SLICES = {
    "question_word": "question word",
    "answer_words": "words of the answer",
    "context_tokens": "tokens of the context",
    "num_windows": "number of windows",
    "source": "source",
}
SOURCE_CHARACTERS = 40  # of a source's name in a chart, its end


def curve_charts(runs: Sequence[RunFiles]) -> list[Chart]:
    """Loss, scores, learning rate and speed over the steps; those there is something for."""
    charts = [loss_chart(runs), score_chart(runs), rate_chart(runs), speed_chart(runs)]
    return [chart for chart in charts if chart is not None]


def loss_chart(runs: Sequence[RunFiles]) -> Chart | None:
    """Loss of the training and of the dev data."""
    traces, rows = [], []
    for number, run in enumerate(runs):
        points = [_mean_loss(part) for part in bucketed(run.steps)]
        marks = [(s["step"], s["eval_loss"]) for s in run.scores if s.get("eval_loss") is not None]
        color, name = SERIES[number % len(SERIES)], _prefix(run, runs)
        if points:
            traces.append(line(f"{name}training", points, color=color))
        if marks:
            shape = {"dash": "dot"}
            traces.append(line(f"{name}dev", marks, color=color, mode="lines+markers", line=shape))
        rows += [(run.name, step, None, value) for step, value in marks]
        rows += [(run.name, step, value, None) for step, value in _thinned(points)]
    if not traces:
        return None
    lasts = [f"{run.name} {_mean_loss(run.steps[-20:])[1]:.3f}" for run in runs if run.steps]
    text = f"Mean loss of the last 20 steps: {', '.join(lasts)}." if lasts else ""
    return Chart(
        "curve-loss",
        "Loss",
        f"Mean loss of windows over the steps of training. {text}".strip(),
        {"data": traces, "layout": axes("step", "loss", rangemode="tozero")},
        ("run", "step", "training", "dev"),
        sorted(rows, key=lambda row: (row[0], row[1])),
    )


def score_chart(runs: Sequence[RunFiles]) -> Chart | None:
    """Exact match and F1 of every scored checkpoint."""
    traces, rows, words = [], [], []
    for number, run in enumerate(runs):
        if not run.scores:
            continue
        name = _prefix(run, runs)
        for place, (label, key) in enumerate((("F1", "f1"), ("exact match", "exact"))):
            color = SERIES[(number if len(runs) > 1 else place) % len(SERIES)]
            shape = {"dash": "dot"} if key == "exact" else {}
            points = [(score["step"], score[key]) for score in run.scores]
            traces.append(
                line(f"{name}{label}", points, color=color, mode="lines+markers", line=shape)
            )
        rows += [(run.name, s["step"], s["epoch"], s["exact"], s["f1"]) for s in run.scores]
        best = max(run.scores, key=lambda score: (score["f1"], -score["step"]))
        words.append(f"{run.name}: highest F1 {best['f1']:.2f} at step {best['step']}")
    if not traces:
        return None
    return Chart(
        "curve-scores",
        "Scores on the dev data",
        f"Scores of checkpoints, of whole questions. {'; '.join(words)}.",
        {"data": traces, "layout": axes("step", "0 to 100", rangemode="tozero")},
        ("run", "step", "epoch", "exact match", "F1"),
        rows,
    )


def rate_chart(runs: Sequence[RunFiles]) -> Chart | None:
    """The learning rate."""
    traces, rows = [], []
    for number, run in enumerate(runs):
        points = [(part[-1]["step"], part[-1]["learning_rate"]) for part in bucketed(run.steps)]
        if points:
            color = SERIES[number % len(SERIES)]
            traces.append(line(f"{_prefix(run, runs)}learning rate", points, color=color))
        rows += [(run.name, step, float(f"{rate:.3g}")) for step, rate in _thinned(points)]
    if not traces:
        return None
    top = max(float(step["learning_rate"]) for run in runs for step in run.steps)
    layout = axes("step", "learning rate", tickformat=".1e")
    return Chart(
        "curve-rate",
        "Learning rate",
        f"Learning rate of each step; the highest is {top:.3g}.",
        {"data": traces, "layout": layout},
        ("run", "step", "learning rate"),
        rows,
    )


def speed_chart(runs: Sequence[RunFiles]) -> Chart | None:
    """Real tokens a second."""
    traces, rows, words = [], [], []
    for number, run in enumerate(runs):
        tokens = {step["step"]: step["num_tokens"] for step in run.steps}
        timed = [
            {**row, "num_tokens": tokens[row["step"]]} for row in run.times if row["step"] in tokens
        ]
        points = [(part[-1]["step"], _speed(part)) for part in bucketed(timed, most=200)]
        if not points:
            continue
        color = SERIES[number % len(SERIES)]
        traces.append(line(f"{_prefix(run, runs)}tokens/s", points, color=color))
        rows += [(run.name, step, round(speed)) for step, speed in _thinned(points)]
        words.append(f"{run.name} {_speed(timed):,.0f} on average")
    if not traces:
        return None
    return Chart(
        "curve-speed",
        "Speed",
        f"Real tokens (no padding) trained in a second: {'; '.join(words)}.",
        {"data": traces, "layout": axes("step", "tokens/s", rangemode="tozero")},
        ("run", "step", "tokens/s"),
        rows,
    )


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


def axes(x: str, y: str, **y_axis: Any) -> dict[str, Any]:
    """A layout with titles of both axes; more for the y axis."""
    return {
        "xaxis": {"title": {"text": x}, "automargin": True},
        "yaxis": {"title": {"text": y}, "automargin": True, **y_axis},
    }


def line(
    name: str,
    points: Sequence[tuple[float, float]],
    *,
    color: str = SERIES[0],
    mode: str = "lines",
    **more: Any,
) -> dict[str, Any]:
    """A line through points."""
    return {
        "type": "scatter",
        "mode": mode,
        "name": escape_plotly(name),
        "x": [x for x, _ in points],
        "y": [y for _, y in points],
        "marker": {"color": color, "size": 7},
        **more,
        "line": {"color": color, "width": 2, **more.get("line", {})},
    }


def marker(
    name: str, points: Sequence[tuple[float, float]], *, color: str, symbol: str
) -> dict[str, Any]:
    """Points on their own."""
    trace = line(name, points, color=color, mode="markers")
    return trace | {"marker": {"color": color, "symbol": symbol, "size": 12}}


def vertical(x: float) -> dict[str, Any]:
    """A dashed line from bottom to top."""
    ends = {"x0": x, "x1": x, "y0": 0, "y1": 1, "yref": "paper"}
    return {"type": "line", **ends, "line": {"color": BAD, "dash": "dash", "width": 1}}


def _mean_loss(steps: Sequence[Mapping[str, Any]]) -> tuple[int, float]:
    """The last step of some, and the mean loss of their windows."""
    features = sum(step["num_features"] for step in steps)
    loss = sum(step["loss"] * step["num_features"] for step in steps) / max(1, features)
    return steps[-1]["step"], float(f"{loss:.5g}")


def _speed(rows: Sequence[Mapping[str, Any]]) -> float:
    seconds = sum(row["seconds"] for row in rows)
    return float(round(sum(row["num_tokens"] for row in rows) / max(seconds, 1e-9), 1))


def _thinned(points: Sequence[tuple[Any, Any]], most: int = 25) -> Sequence[tuple[Any, Any]]:
    """Some of the points, for a table that a person reads; the last among them."""
    return points[:: -max(1, len(points) // most)][::-1]


def _rounded(row: Mapping[str, float]) -> tuple[float, float]:
    return round(row["confidence"], 4), round(row["accuracy"], 4)


def _prefix(run: RunFiles, runs: Sequence[RunFiles]) -> str:
    return f"{run.name}: " if len(runs) > 1 else ""


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
