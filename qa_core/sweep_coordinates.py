"""sweep report: parallel coordinates, a line a trial through its setting, cost and score.

The axes lie, one below the other: names of keys have room above them, on a phone, too.
"""

from collections.abc import Sequence
from typing import Any

from qa_core.charts import GOOD, MUTED, PAPER, SERIES, TEXT, Chart, escape_plotly
from qa_core.sweep_axes import Axis, frame, make_axis, number_axis, show_once
from qa_core.sweep_trials import COMPLETE, SweepView, TrialView, plural, value_text

MOST_LINES = 200  # of trials that are drawn, the best ones; the table has all
ROW_HEIGHT = 76  # of an axis, pixels
WIDEST_SPREAD = 0.06  # of the lines through one value, of the axis' length
FAINTEST = 0.25  # opacity of the lowest line


def coordinates_chart(view: SweepView) -> Chart | None:
    """A line a trial that has a score; None where there are no keys, or no scores."""
    scored = view.scored
    if not scored or not view.keys:
        return None
    marked = [one for one in scored if one.role]
    drawn = [one for one in scored if not one.role][-MOST_LINES:] + marked
    axes = make_axes(view, drawn)
    shades = axes[-1][1].places  # by score
    traces = [
        line_of(one, n, axes, shade=shades[n] or 0.0, metric=view.metric)
        for n, one in enumerate(drawn)
    ]
    show_once(traces)
    count = len(axes)
    figure = {
        "data": traces,
        "layout": frame(
            ROW_HEIGHT * count + 70,
            xaxis={"visible": False, "range": [-0.04, 1.04], "fixedrange": True},
            yaxis={"visible": False, "range": [0.55 - count, 0.55], "fixedrange": True},
            shapes=[axis_line(row) for row in range(count)],
            annotations=[
                label
                for row, (name, axis) in enumerate(axes)
                for label in axis_labels(row, name, axis)
            ],
        ),
    }
    return Chart(
        name="sweep-coordinates",
        title="Settings and what they reached",
        text=coordinates_text(view, scored, len(drawn)),
        figure=figure,
        columns=("trial", *view.keys, "seed", "state", "real tokens", view.metric_name, "error"),
        rows=[table_row(one) for one in (*reversed(scored), *without_score(view))],
    )


def coordinates_text(view: SweepView, scored: Sequence[TrialView], num_drawn: int) -> str:
    """What the lines say; `scored` the lowest first."""
    worst, best = scored[0], scored[-1]
    text = (
        f"A line a trial, from its setting down to its real tokens and {view.metric_name}: "
        f"{plural(len(scored), 'trial')}, {worst.score:.2f} (trial {worst.number}) to "
        f"{best.score:.2f} (trial {best.number}). The stronger a line, the higher the score; lines "
        "through one value lie side by side, by their scores."
    )
    stopped = sum(one.state != COMPLETE for one in scored)
    if stopped:
        text += f" {stopped} ended early: their scores are the latest, after fewer tokens."
    if num_drawn < len(scored):
        text += f" Drawn are the {num_drawn} best."
    return text + view.left_out()


def without_score(view: SweepView) -> list[TrialView]:
    """The trials that reached no score."""
    return [one for one in view.trials if not one.reached]


def table_row(one: TrialView) -> list[str | int | float | None]:
    """A trial in the table below the chart."""
    role = f" ({one.role})" if one.role else ""
    return [
        f"{one.number}{role}",
        *(value_text(value) for value in one.point.values()),
        one.seed,
        one.state,
        one.num_tokens,
        one.reached.score if one.reached else None,
        one.reached.error if one.reached else None,
    ]


def make_axes(view: SweepView, drawn: Sequence[TrialView]) -> list[tuple[str, Axis]]:
    """An axis a key, one of the tokens where they are known, and last the score."""
    axes = [(key, make_axis([one.point[key] for one in drawn])) for key in view.keys]
    tokens = [one.num_tokens for one in drawn]
    if any(number is not None for number in tokens):
        axes.append(("real tokens", number_axis(tokens)))
    scores = [one.reached.score if one.reached else None for one in drawn]
    return [*axes, (view.metric_name, number_axis(scores))]


def line_of(
    one: TrialView, number: int, axes: Sequence[tuple[str, Axis]], *, shade: float, metric: str
) -> dict[str, Any]:
    """The line of the trial that is `number` of those drawn; `shade` is 0 to 1 by score."""
    places = []
    for name, axis in axes:
        place = axis.places[number]
        aside = min(WIDEST_SPREAD, axis.least_gap / 2) * (shade - 0.5) if name in one.point else 0
        places.append(None if place is None else place + aside)
    line: dict[str, Any] = {"color": SERIES[0], "width": 1.5 if one.state == COMPLETE else 1}
    symbol = "circle" if one.state == COMPLETE else "circle-open"
    opacity = FAINTEST + (0.9 - FAINTEST) * shade
    if one.is_winner:
        line, symbol, opacity = {"color": GOOD, "width": 4}, "star", 1
    elif one.is_default:
        line, symbol, opacity = {"color": TEXT, "width": 2, "dash": "dash"}, "diamond", 1
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "x": places,
        "y": [-row for row in range(len(axes))],
        "line": line,
        "marker": {"symbol": symbol, "size": 11 if one.role else 6, "color": line["color"]},
        "opacity": opacity,
        "hoverinfo": "text",
        "hovertext": one.hover(metric),
        "name": one.role or one.state,
        "legendgroup": one.role or one.state,
    }


def axis_line(row: int) -> dict[str, Any]:
    """The line that is an axis, below the trials."""
    return {
        "type": "line",
        "x0": 0,
        "x1": 1,
        "y0": -row,
        "y1": -row,
        "line": {"color": MUTED, "width": 1},
        "layer": "below",
    }


def axis_labels(row: int, name: str, axis: Axis) -> list[dict[str, Any]]:
    """The name of an axis above it, the labels of its values below."""
    common = {"showarrow": False, "bgcolor": PAPER, "opacity": 0.9, "borderpad": 1}
    title = {**common, "x": -0.02, "xanchor": "left", "y": 0.3 - row, "yanchor": "middle"}
    labels = [{**title, "text": f"<b>{escape_plotly(name)}</b>"}]
    for place, text in axis.labels:
        side = "left" if place < 0.05 else "right" if place > 0.95 else "center"
        x = {"left": place - 0.02, "right": place + 0.02}.get(side, place)
        label = {**common, "x": x, "xanchor": side, "y": -0.26 - row, "yanchor": "middle"}
        labels.append({**label, "text": escape_plotly(text)})
    return labels
