"""sweep report: what a score costs. Scores over real tokens, cost beside quality, Pareto front."""

from collections.abc import Sequence
from typing import Any

from qa_core.charts import GOOD, MUTED, SERIES, TEXT, Chart
from qa_core.sweep_axes import frame, show_once, tick_settings
from qa_core.sweep_trials import (
    COMPLETE,
    FAILED,
    STOPPED,
    Measured,
    SweepView,
    TrialView,
    listed,
    plural,
    score_text,
    setting_text,
)

HEIGHT = 400  # pixels
COSTED = ("error", "on the front")  # last columns
MOST_LINES = 200  # of trials that are drawn, the best ones; the table has all
# Told apart by shape, too: not everybody sees the colours.
SYMBOLS = {COMPLETE: "circle", STOPPED: "circle-open", FAILED: "x"}


def curves_chart(view: SweepView) -> Chart | None:
    """The score over real tokens, a line a trial through its rungs; None without scores."""
    trials = [one for one in view.scored if one.rungs]
    if not trials:
        return None
    drawn = [one for one in trials if not one.role][-MOST_LINES:]
    drawn += [one for one in trials if one.role]
    traces = [curve_of(one, view.metric) for one in drawn]
    show_once(traces)
    tokens = [float(one.num_tokens or 0) for trial in drawn for one in trial.rungs]
    xaxis = tick_settings(tokens, "real tokens trained")
    cut = f" Drawn are the {len(drawn)} best." if len(drawn) < len(trials) else ""
    return Chart(
        name="sweep-curves",
        title=f"{view.metric_name} over real tokens",
        text=curves_text(view, trials) + cut + view.left_out(),
        figure={
            "data": traces,
            "layout": frame(
                HEIGHT,
                xaxis=xaxis,
                yaxis={"title": {"text": view.metric_name}, "automargin": True},
                shapes=[rung_line(tokens) for tokens in view.rungs],
            ),
        },
        columns=("trial", "real tokens", view.metric_name, "error"),
        rows=[
            [trial.number, one.num_tokens, one.score, one.error]
            for trial in view.trials
            for one in trial.rungs
        ],
    )


def curves_text(view: SweepView, trials: Sequence[TrialView]) -> str:
    """What the curves say."""
    ended = [one for one in trials if one.state == COMPLETE]
    text = (
        f"{view.metric_name} of each trial with its own windows, wherever it was scored: "
        f"{plural(len(trials), 'trial')}, {len(ended)} of them trained to the end."
    )
    if view.rungs:
        rungs = listed([f"{tokens:,}" for tokens in view.rungs])
        text += f" At the vertical lines, after {rungs} real tokens, only the best went on."
    winner = view.winner
    if winner and winner.rungs:
        first, last = winner.rungs[0], winner.rungs[-1]
        text += (
            f" The winner, trial {winner.number}, came from {first.score:.2f} after "
            f"{first.num_tokens:,.0f} tokens to {last.score:.2f} after {last.num_tokens:,.0f}."
        )
    return text


def curve_of(trial: TrialView, metric: str) -> dict[str, Any]:
    """The line of a trial through its scores."""
    color = SERIES[0] if trial.state == COMPLETE else MUTED
    line: dict[str, Any] = {"color": color, "width": 1.5}
    marker: dict[str, Any] = {"symbol": SYMBOLS[trial.state], "size": 6, "color": color}
    if trial.is_winner:
        line, marker = {"color": GOOD, "width": 4}, {"symbol": "star", "size": 12, "color": GOOD}
    elif trial.is_default:
        line = {"color": TEXT, "width": 2, "dash": "dash"}
        marker = {"symbol": "diamond", "size": 9, "color": TEXT}
    heads = trial.hover(metric)
    name = trial.role or trial.state
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "x": [one.num_tokens for one in trial.rungs],
        "y": [one.score for one in trial.rungs],
        "line": line,
        "marker": marker,
        "opacity": 1 if trial.role else 0.75,
        "hoverinfo": "text",
        "hovertext": [
            f"{score_text(one)} after {one.num_tokens:,.0f}<br>{heads}" for one in trial.rungs
        ],
        "name": name,
        "legendgroup": name,
    }


def rung_line(tokens: int) -> dict[str, Any]:
    """A vertical line where trials are compared."""
    return {
        "type": "line",
        "x0": tokens,
        "x1": tokens,
        "yref": "paper",
        "y0": 0,
        "y1": 1,
        "line": {"color": MUTED, "width": 1, "dash": "dot"},
        "layer": "below",
    }


def pareto_front(costs: Sequence[float], scores: Sequence[float]) -> list[int]:
    """Places of those that no other beats: none is as good for less, or better for as much.

    By rising cost; of equals the first.

    >>> pareto_front([3, 1, 2, 4], [70.0, 60.0, 55.0, 71.0])
    [1, 0, 3]
    """
    order = sorted(range(len(costs)), key=lambda place: (costs[place], -scores[place], place))
    front: list[int] = []
    for place in order:
        if not front or scores[place] > scores[front[-1]]:
            front.append(place)
    return front


def cost_chart(view: SweepView) -> Chart | None:
    """Score beside real tokens, a point a trial, and the front; None where no trial has both."""
    costed = [
        (float(one.num_tokens), one.reached, one)
        for one in view.scored
        if one.num_tokens is not None and one.reached
    ]
    if not costed:
        return None
    costs = [cost for cost, _, _ in costed]
    front = pareto_front(costs, [reached.score for _, reached, _ in costed])
    best = [costed[place] for place in front]
    groups: dict[str, list[tuple[float, Measured, TrialView]]] = {}
    for point in costed:
        groups.setdefault(point[2].role or point[2].state, []).append(point)
    names = listed([f"trial {one.number} ({reached.score:.2f})" for _, reached, one in best])
    numbers = {one.number for _, _, one in best}
    return Chart(
        name="sweep-cost",
        title="Cost and quality",
        text=(
            f"{view.metric_name} beside the real tokens trained, "
            f"{plural(len(costed), 'trial')}; bars are one standard error of the questions. On the "
            f"Pareto front, where more {view.metric_name} costs more tokens: {names}."
            f"{view.left_out()}"
        ),
        figure={
            "data": [front_line(best), *(points_of(name, g, view) for name, g in groups.items())],
            "layout": frame(
                HEIGHT,
                xaxis=tick_settings(costs, "real tokens trained"),
                yaxis={"title": {"text": view.metric_name}, "automargin": True},
            ),
        },
        columns=("trial", "setting", "state", "real tokens", "seconds", view.metric_name, *COSTED),
        rows=[
            [
                *(one.number, setting_text(one), one.state, one.num_tokens, one.seconds),
                *(reached.score, reached.error, "yes" if one.number in numbers else "no"),
            ]
            for _, reached, one in reversed(costed)
        ],
    )


def front_line(best: Sequence[tuple[float, Measured, TrialView]]) -> dict[str, Any]:
    """The best score for each amount of tokens, a staircase."""
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [cost for cost, _, _ in best],
        "y": [reached.score for _, reached, _ in best],
        "line": {"color": SERIES[1], "width": 2, "shape": "hv"},
        "hoverinfo": "skip",
        "name": "Pareto front",
    }


def points_of(
    name: str, group: Sequence[tuple[float, Measured, TrialView]], view: SweepView
) -> dict[str, Any]:
    """The points of trials of one kind."""
    first = group[0][2]
    color = SERIES[0] if first.state == COMPLETE else MUTED
    marker: dict[str, Any] = {"symbol": SYMBOLS[first.state], "size": 9, "color": color}
    if first.is_winner:
        marker = {"symbol": "star", "size": 15, "color": GOOD}
    elif first.is_default:
        marker = {"symbol": "diamond", "size": 11, "color": TEXT}
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [cost for cost, _, _ in group],
        "y": [reached.score for _, reached, _ in group],
        "error_y": {
            "type": "data",
            "array": [reached.error or 0 for _, reached, _ in group],
            "thickness": 1,
            "width": 2,
            "color": MUTED,
        },
        "marker": marker,
        "hoverinfo": "text",
        "hovertext": [one.hover(view.metric) for _, _, one in group],
        "name": name,
    }
