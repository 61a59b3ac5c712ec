"""sweep report: places of values on an axis, the few labels it has, and the frame of a figure.

A phone has room for four or five short labels: they are chosen here, so that none meets another.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from qa_core.charts import escape_plotly
from qa_core.sweep_trials import finite, value_text

DECADE = 10.0  # numbers that spread over more are placed by their logarithm
MOST_LABELS = 5
LEAST_GAP = 0.19  # between two labels, of the axis' length
LABEL_ROOM = 40  # characters of all labels of an axis together, on a phone
MARGIN = {"l": 12, "r": 12, "t": 12, "b": 12}


@dataclass(frozen=True)
class Axis:
    """An axis from 0 to 1, and where each value is on it."""

    places: tuple[float | None, ...]  # of the values, in their order; None: not known
    labels: tuple[tuple[float, str], ...]  # where, and plain text
    least_gap: float  # between two different places; 1 where there is one place


def make_axis(values: Sequence[Any]) -> Axis:
    """Numbers by size; where there is anything else among them, evenly spread places."""
    numbers = [finite(value) for value in values]
    return category_axis(values) if None in numbers else number_axis(numbers)


def number_axis(numbers: Sequence[float | None]) -> Axis:
    """Numbers from the least to the largest, by their logarithm where they spread far.

    One at least is known.
    """
    known = [number for number in numbers if number is not None]
    low, high = min(known), max(known)
    distinct = sorted(set(known))
    places = [None if n is None else place_between(n, low, high) for n in numbers]
    marks = distinct if len(distinct) <= MOST_LABELS else round_numbers(low, high)
    ticks = spaced([low, high, *marks], low, high)
    between = sorted({place for place in places if place is not None})
    return Axis(
        tuple(places),
        tuple((place_between(tick, low, high), number_label(tick)) for tick in ticks),
        gap_of(between),
    )


def category_axis(values: Sequence[Any]) -> Axis:
    """Values of any kind: a place for each, numbers first by size, then texts by name."""

    def order(value: Any) -> tuple[bool, float, str]:
        number = finite(value)
        return number is None, number or 0.0, value_text(value)

    names = {repr(value): value for value in sorted(values, key=order)}
    place_of = {
        name: number / (len(names) - 1) if len(names) > 1 else 0.5
        for number, name in enumerate(names)
    }
    count = min(len(names), MOST_LABELS)
    chosen = {round(n * (len(names) - 1) / (count - 1)) if count > 1 else 0 for n in range(count)}
    texts = short_labels([value for n, value in enumerate(names.values()) if n in chosen])
    shown = [place for n, place in enumerate(place_of.values()) if n in chosen]
    return Axis(
        tuple(place_of[repr(value)] for value in values),
        tuple(zip(shown, texts, strict=True)),
        gap_of(sorted(place_of.values())),
    )


def is_log(low: float, high: float) -> bool:
    """Whether numbers spread over more than a decade.

    >>> is_log(1e-5, 1e-3), is_log(0, 100)
    (True, False)
    """
    return low > 0 and high / low > DECADE


def place_between(number: float, low: float, high: float) -> float:
    """Where a number is from `low`, 0, to `high`, 1; in the middle where they are the same."""
    if low == high:
        return 0.5
    if is_log(low, high):
        return (math.log(number) - math.log(low)) / (math.log(high) - math.log(low))
    return (number - low) / (high - low)


def round_numbers(low: float, high: float) -> list[float]:
    """Numbers between two that are easily read; 1, 2 or 5 times a power of ten, or steps of it.

    >>> round_numbers(0.3, 1.7)
    [0.5, 1.0, 1.5]
    """
    if low == high:
        return []
    if is_log(low, high):
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        decades = [10.0**power for power in powers]
        found = decades + [number * digit for digit in (2, 5) for number in decades]
    else:
        raw = (high - low) / (MOST_LABELS - 1)
        power = 10.0 ** math.floor(math.log10(raw))
        step = min((s * power for s in (1, 2, 2.5, 5, 10)), key=lambda s: abs(s - raw))
        first, last = math.ceil(low / step), math.floor(high / step)
        found = [number * step for number in range(first, last + 1)]
    return [number for number in found if low < number < high]


def spaced(numbers: Sequence[float], low: float, high: float) -> list[float]:
    """Those of `numbers` whose labels do not meet those of the ones before them, by size."""
    kept: list[float] = []
    for number in numbers:
        place = place_between(number, low, high)
        if all(abs(place - place_between(one, low, high)) >= LEAST_GAP for one in kept):
            kept.append(number)
    return sorted(kept)


def number_label(number: float) -> str:
    """A number in a few characters.

    >>> [number_label(one) for one in (384, 12_345, 2_500_000, 0.00003, 71.234)]
    ['384', '12.3k', '2.5M', '3e-05', '71.2']
    """
    for least, size, unit in ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if abs(number) >= least:
            return f"{number / size:.3g}{unit}"
    return f"{number:.4g}" if number == int(number) else f"{number:.3g}"


def short_labels(values: Sequence[Any]) -> list[str]:
    """Labels of categories, without the folders they share, short enough to stand side by side."""
    texts = [value_text(value, 200) for value in values]
    shared = ""
    if len(texts) > 1:
        first, last = min(texts), max(texts)
        end = next((n for n, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), 0)
        shared = first[: first.rfind("/", 0, end) + 1]
    longest = max(6, LABEL_ROOM // len(texts))
    return [value_text(text.removeprefix(shared), longest) for text in texts]


def gap_of(places: Sequence[float]) -> float:
    """The least distance of neighbours, 1 where there are none."""
    return min((b - a for a, b in pairwise(places)), default=1.0)


def tick_settings(numbers: Sequence[float], title: str) -> dict[str, Any]:
    """An axis of Plotly's for positive amounts: few round labels, a logarithm over a decade."""
    low, high = min(numbers, default=0.0), max(numbers, default=0.0)
    axis: dict[str, Any] = {"title": {"text": title}, "zeroline": False}
    marks = spaced(round_numbers(low, high), low, high)
    if len(marks) > 1:
        axis |= {"tickvals": marks, "ticktext": [number_label(mark) for mark in marks]}
    if is_log(low, high):
        room = 0.04 * math.log10(high / low)
        axis |= {"type": "log", "range": [math.log10(low) - room, math.log10(high) + room]}
    return axis


def frame(height: int, **parts: Mapping[str, Any] | Sequence[Any] | bool) -> dict[str, Any]:
    """The layout of a figure: as wide as its place, the legend below it."""
    return {
        "height": height,
        "margin": dict(MARGIN),
        "hovermode": "closest",
        "legend": {
            "orientation": "h",
            "x": 0,
            "y": 0,
            "yref": "container",
            "yanchor": "bottom",
        },
        **parts,
    }


def show_once(traces: Sequence[dict[str, Any]]) -> None:
    """Let the last trace of each name, the best, stand for all in the legend."""
    last = {trace["name"]: trace for trace in traces}
    for trace in traces:
        trace["showlegend"] = trace is last[trace["name"]]


def broken_key(key: str) -> str:
    """A key as a label in two lines: it may be long, and the page narrow.

    >>> broken_key("features.max_length")
    'features.<br>max_length'
    """
    group, dot, name = key.rpartition(".")
    return f"{escape_plotly(group)}.<br>{escape_plotly(name)}" if dot else escape_plotly(key)
