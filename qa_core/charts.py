"""report: what a chart is. Figures are Plotly's, as JSON, drawn in the page's own colours."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

# Colours a figure may name; the page has one of each for light and for dark.
SERIES = tuple(f"@{number}" for number in range(1, 7))  # of lines and bars, in their order
GOOD, BAD, MUTED, TEXT, PAPER = "@good", "@bad", "@muted", "@text", "@paper"
# Cells of a heat map, low to high; text stands out from all of them.
SCALE = [[0.0, "@low"], [1.0, "@high"]]


@dataclass(frozen=True)
class Chart:
    """A figure with what it says in words, and its numbers as a table, for who cannot see it."""

    name: str  # of its element, once on a page
    title: str  # plain text, as all texts here: the page escapes them
    text: str  # what it says, in a sentence or two
    figure: dict[str, Any]  # `data` and `layout` of Plotly, JSON-ready, without fonts and colours
    columns: tuple[str, ...]  # of the table
    rows: Sequence[Sequence[str | int | float | None]]  # numbers as they are; None: not known


def escape_plotly(text: str) -> str:
    """A text of data for a figure: Plotly reads a few tags, and entities.

    >>> escape_plotly("a <b>bold</b> key")
    'a &lt;b&gt;bold&lt;/b&gt; key'
    """
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def number_text(value: float | None, digits: int = 2) -> str:
    """A number as people read it; nothing where it is not known."""
    return "" if value is None else f"{value:,.{digits}f}"


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
