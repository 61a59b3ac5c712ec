"""sweep report: the share of the scores' variance that each key accounts for."""

from collections.abc import Mapping, Sequence
from typing import Any

from qa_core.charts import SERIES, TEXT, Chart
from qa_core.sweep_axes import broken_key, frame
from qa_core.sweep_trials import METRIC_NAMES, finite

ROW_HEIGHT = 52  # of a key, pixels


def importance_chart(found: Mapping[str, Any]) -> Chart | None:
    """A bar a key beside what chance gives; None where no key could be judged."""
    rows = [row for row in found.get("sensitivities") or () if finite(row.get("share")) is not None]
    if not rows:
        return None
    metric = METRIC_NAMES.get(found.get("metric") or "f1", "score")
    above = [row for row in rows if row["share"] > (finite(row.get("chance")) or 0)]
    top = rows[0]
    chance = finite(top.get("chance"))
    beside = "" if chance is None else f", where chance alone gives {chance:.0%}"
    return Chart(
        name="sweep-importance",
        title="What mattered",
        text=(
            f"The share of the variance of {metric} that each key accounts for alone "
            f"({found.get('sensitivity_of') or 'all trials'}). Most: {top['key']}, "
            f"{top['share']:.0%}{beside}; {len(above)} of {len(rows)} are above chance. "
            "Beside each bar: the best minus the worst mean, in points."
        ),
        figure=bars(rows),
        columns=("key", "share", "chance", "range", f"mean {metric} by value"),
        rows=[
            [
                *(row["key"], row["share"], finite(row.get("chance")), finite(row.get("range"))),
                means_text(row),
            ]
            for row in rows
        ],
    )


def means_text(row: Mapping[str, Any]) -> str:
    """The mean of each value of a key."""
    means = [one for one in row.get("means") or () if finite(one.get("mean")) is not None]
    return ", ".join(f"{m['value']}: {m['mean']:.2f} (n={m.get('num_trials')})" for m in means)


def bars(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The shares, the first on top, and a mark a key where chance would be."""
    names = [broken_key(row["key"]) for row in rows]
    shares = [row["share"] for row in rows]
    chances = [finite(row.get("chance")) for row in rows]
    ranges = [finite(row.get("range")) for row in rows]
    most = max([*shares, *(c for c in chances if c is not None), 0.01])
    return {
        "data": [
            {
                "type": "bar",
                "orientation": "h",
                "x": shares,
                "y": names,
                "marker": {"color": SERIES[0]},
                "text": ["" if one is None else f"{one:.1f} points" for one in ranges],
                "textposition": "outside",
                "cliponaxis": False,
                "hovertemplate": "%{y}: %{x:.1%}<extra></extra>",
                "name": "share of the variance",
            },
            {
                "type": "scatter",
                "mode": "markers",
                "x": chances,
                "y": names,
                "marker": {
                    "symbol": "line-ns",
                    "size": 26,
                    "color": TEXT,
                    "line": {"color": TEXT, "width": 3},
                },
                "hovertemplate": "%{y} by chance: %{x:.1%}<extra></extra>",
                "name": "by chance",
            },
        ],
        "layout": frame(
            ROW_HEIGHT * len(rows) + 110,
            xaxis={
                "title": {"text": "share of the variance"},
                "tickformat": ".0%",
                "range": [0, most * 1.35],
                "nticks": 5,
            },
            yaxis={"autorange": "reversed", "automargin": True},
        ),
    }
