"""report: the course of trainings over real tokens; of several runs, all in one chart."""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from qa_core.charts import SERIES, Chart, axes, line
from qa_core.run_files import RunFiles, bucketed

TOKENS = "real tokens trained"


def curve_charts(runs: Sequence[RunFiles]) -> list[Chart]:
    """Loss, scores, learning rate and speed over real tokens; those there is something for."""
    charts = [loss_chart(runs), score_chart(runs), rate_chart(runs), speed_chart(runs)]
    return [chart for chart in charts if chart is not None]


def loss_chart(runs: Sequence[RunFiles]) -> Chart | None:
    """Loss of the training and of the dev data."""
    traces, rows = [], []
    for number, run in enumerate(runs):
        tokens, name, color = tokens_at(run), run_prefix(run, runs), SERIES[number % len(SERIES)]
        points = [(part[-1]["step"], _mean_loss(part)) for part in bucketed(run.steps)]
        marks = [(s["step"], s["eval_loss"]) for s in run.scores if s.get("eval_loss") is not None]
        traces += course(f"{name}training", points, tokens, color=color)
        dots = {"mode": "lines+markers", "line": {"dash": "dot"}}
        traces += course(f"{name}dev", marks, tokens, color=color, **dots)
        rows += [(run.name, step, tokens.get(step), None, value) for step, value in marks]
        rows += [(run.name, step, tokens.get(step), v, None) for step, v in _thinned(points)]
    lasts = [f"{run.name} {_mean_loss(run.steps[-20:]):.3f}" for run in runs if run.steps]
    words = f" Mean loss of the last 20 steps: {', '.join(lasts)}." if lasts else ""
    return _curve_chart(
        "curve-loss",
        "Loss",
        f"Mean loss of windows, as training went on.{words}",
        traces,
        axes(TOKENS, "loss", rangemode="tozero"),
        ("training", "dev"),
        sorted(rows, key=lambda row: (row[0], row[1])),
    )


def score_chart(runs: Sequence[RunFiles]) -> Chart | None:
    """Exact match and F1 of every scored checkpoint."""
    traces, rows, words = [], [], []
    for number, run in enumerate(runs):
        tokens, name = tokens_at(run), run_prefix(run, runs)
        for place, (label, key) in enumerate((("F1", "f1"), ("exact match", "exact"))):
            color = SERIES[(number if len(runs) > 1 else place) % len(SERIES)]
            shape = {"dash": "dot"} if key == "exact" else {}
            points = [(score["step"], score[key]) for score in run.scores]
            more = {"mode": "lines+markers", "line": shape}
            traces += course(f"{name}{label}", points, tokens, color=color, **more)
        rows += [
            (run.name, s["step"], tokens.get(s["step"]), s["epoch"], s["exact"], s["f1"])
            for s in run.scores
        ]
        if run.scores:
            best = max(run.scores, key=lambda score: (score["f1"], -score["step"]))
            words.append(f"{run.name}: highest F1 {best['f1']:.2f} at step {best['step']}")
    return _curve_chart(
        "curve-scores",
        "Scores on the dev data",
        f"Scores of checkpoints, of whole questions. {'; '.join(words)}.",
        traces,
        axes(TOKENS, "0 to 100", rangemode="tozero"),
        ("epoch", "exact match", "F1"),
        rows,
    )


def rate_chart(runs: Sequence[RunFiles]) -> Chart | None:
    """The learning rate."""
    traces, rows = [], []
    for number, run in enumerate(runs):
        tokens, color = tokens_at(run), SERIES[number % len(SERIES)]
        points = [(part[-1]["step"], part[-1]["learning_rate"]) for part in bucketed(run.steps)]
        traces += course(f"{run_prefix(run, runs)}learning rate", points, tokens, color=color)
        rows += [(run.name, n, tokens[n], float(f"{rate:.3g}")) for n, rate in _thinned(points)]
    top = max((float(step["learning_rate"]) for run in runs for step in run.steps), default=0.0)
    return _curve_chart(
        "curve-rate",
        "Learning rate",
        f"Learning rate of each step; the highest is {top:.3g}.",
        traces,
        axes(TOKENS, "learning rate", tickformat=".1e"),
        ("learning rate",),
        rows,
    )


def speed_chart(runs: Sequence[RunFiles]) -> Chart | None:
    """Real tokens a second."""
    traces, rows, words = [], [], []
    for number, run in enumerate(runs):
        tokens, color = tokens_at(run), SERIES[number % len(SERIES)]
        real = {step["step"]: step["num_tokens"] for step in run.steps}
        timed = [{**t, "num_tokens": real[t["step"]]} for t in run.times if t["step"] in real]
        points = [(part[-1]["step"], _speed(part)) for part in bucketed(timed, most=200)]
        traces += course(f"{run_prefix(run, runs)}tokens/s", points, tokens, color=color)
        rows += [(run.name, step, tokens[step], round(v)) for step, v in _thinned(points)]
        if points:
            words.append(f"{run.name} {_speed(timed):,.0f} on average")
    return _curve_chart(
        "curve-speed",
        "Speed",
        f"Real tokens (no padding) trained in a second: {'; '.join(words)}.",
        traces,
        axes(TOKENS, "tokens/s", rangemode="tozero"),
        ("tokens/s",),
        rows,
    )


def tokens_at(run: RunFiles) -> dict[int, int]:
    """Real tokens trained up to the end of each step; 0 for the untrained model."""
    sums = accumulate((step["num_tokens"] for step in run.steps), initial=0)
    return dict(zip((0, *(step["step"] for step in run.steps)), sums, strict=True))


def course(
    name: str, points: Sequence[tuple[int, float]], tokens: Mapping[int, int], **more: Any
) -> list[dict[str, Any]]:
    """A line through values of steps, over the tokens trained by then; none without a point."""
    known = [(step, value) for step, value in points if step in tokens]
    if not known:
        return []
    trace = line(name, [(tokens[step], value) for step, value in known], **more)
    trace["customdata"] = [step for step, _ in known]
    return [trace | {"hovertemplate": "%{y:.5g}, step %{customdata}, %{x:,} tokens"}]


def _curve_chart(
    name: str,
    title: str,
    text: str,
    traces: Sequence[dict[str, Any]],
    layout: dict[str, Any],
    columns: tuple[str, ...],
    rows: Sequence[tuple[Any, ...]],
) -> Chart | None:
    """A chart over tokens, its table with run, step and tokens first; None without a line."""
    if not traces:
        return None
    figure = {"data": list(traces), "layout": layout}
    return Chart(name, title, text, figure, ("run", "step", "real tokens", *columns), rows)


def _mean_loss(steps: Sequence[Mapping[str, Any]]) -> float:
    """The mean loss of the windows of some steps."""
    features = sum(step["num_features"] for step in steps)
    loss = sum(step["loss"] * step["num_features"] for step in steps) / max(1, features)
    return float(f"{loss:.5g}")


def _speed(rows: Sequence[Mapping[str, Any]]) -> float:
    seconds = sum(row["seconds"] for row in rows)
    return float(round(sum(row["num_tokens"] for row in rows) / max(seconds, 1e-9), 1))


def _thinned(points: Sequence[tuple[Any, Any]], most: int = 25) -> Sequence[tuple[Any, Any]]:
    """Some of the points, for a table that a person reads; the last among them."""
    return points[:: -max(1, len(points) // most)][::-1]


def run_prefix(run: RunFiles, runs: Sequence[RunFiles]) -> str:
    """Says which of several runs a text is about."""
    return f"{run.name}: " if len(runs) > 1 else ""
