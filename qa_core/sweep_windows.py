"""sweep report: the heat map of the score over doc_stride and max_length."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qa_core.charts import SCALE, TEXT, Chart
from qa_core.sweep_axes import frame
from qa_core.sweep_trials import Measured, SweepView, finite, plural

LENGTH, STRIDE = "features.max_length", "features.doc_stride"
ROW_HEIGHT = 56  # of a row of cells, pixels


@dataclass(frozen=True)
class Cell:
    """The scores with windows of one size, taken together."""

    mean: float
    error: float | None  # standard error of the mean; None where it is not known
    best: float
    count: int

    @property
    def text(self) -> str:
        """The mean with its uncertainty.

        >>> Cell(71.24, 1.31, 72.0, 3).text
        '71.2 ± 1.3 (n=3)'
        """
        error = "" if self.error is None else f" ± {self.error:.1f}"
        return f"{self.mean:.1f}{error} (n={self.count})"


def windows_chart(view: SweepView) -> Chart | None:
    """The mean score of each (doc_stride, max_length); None where fewer than two were scored.

    Scores are those of trials' ends; where none was trained to its end those of the first rung,
    after about as many tokens, with the windows that each trial was trained with.
    """
    scores = end_scores(view)
    source = "of every trial that was trained to its end"
    if not scores:
        scores = first_scores(view)
        source = "at the first rung, each trial with its own windows: none was trained to its end"
    cells = {size: make_cell(found) for size, found in scores.items()}
    if len(cells) < 2:
        return None
    top = max(cells, key=lambda size: cells[size].mean)
    low = min(cells, key=lambda size: cells[size].mean)
    return Chart(
        name="sweep-windows",
        title=f"{view.metric_name} by windows",
        text=(
            f"The mean {view.metric_name} {source}, by max_length and doc_stride. Highest with "
            f"{size_text(top)}: {cells[top].text}; lowest with {size_text(low)}: "
            f"{cells[low].text}. {explain_errors(cells)}"
        ),
        figure=heat_map(cells, view.metric_name),
        columns=("max_length", "doc_stride", f"mean {view.metric_name}", "error", "best", "scores"),
        rows=[
            [length, stride, cell.mean, cell.error, cell.best, cell.count]
            for (length, stride), cell in sorted(cells.items())
        ],
    )


def end_scores(view: SweepView) -> dict[tuple[int, int], list[Measured]]:
    """The scores of trials' ends, by (max_length, doc_stride)."""
    found: dict[tuple[int, int], list[Measured]] = {}
    for trial in view.trials:
        for one in trial.sizes:
            if one.windows:
                found.setdefault(one.windows, []).append(one)
    return found


def first_scores(view: SweepView) -> dict[tuple[int, int], list[Measured]]:
    """The trials' first scores, by the windows they were trained with, where both vary."""
    found: dict[tuple[int, int], list[Measured]] = {}
    if not {LENGTH, STRIDE} <= set(view.keys):
        return found
    for trial in view.trials:
        length, stride = finite(trial.point[LENGTH]), finite(trial.point[STRIDE])
        if trial.rungs and length is not None and stride is not None:
            found.setdefault((int(length), int(stride)), []).append(trial.rungs[0])
    return found


def make_cell(scores: Sequence[Measured]) -> Cell:
    """The mean of scores and its standard error.

    All are over the same questions, whose sampling moves them together: it adds in full to the
    spread between trials, which falls with their number.
    """
    values = [one.score for one in scores]
    errors = [one.error for one in scores if one.error is not None]
    variance = statistics.mean(errors) ** 2 if errors else 0.0
    if len(values) > 1:
        variance += statistics.variance(values) / len(values)
    is_known = bool(errors) or len(values) > 1
    error = math.sqrt(variance) if is_known else None
    return Cell(statistics.mean(values), error, max(values), len(values))


def explain_errors(cells: Mapping[tuple[int, int], Cell]) -> str:
    """What stands behind the ± of the cells."""
    if all(cell.error is None for cell in cells.values()):
        return "Of one score each; this run has kept no standard errors."
    several = any(cell.count > 1 for cell in cells.values())
    spread = ", and of the spread of its n trials" if several else ""
    return f"± is one standard error: of the questions{spread}."


def size_text(size: tuple[int, int]) -> str:
    """Windows of a size, in words."""
    return f"max_length {size[0]} and doc_stride {size[1]}"


def heat_map(cells: Mapping[tuple[int, int], Cell], metric: str) -> dict[str, Any]:
    """A row a length, a column a stride; nothing where no score is."""
    lengths = sorted({length for length, _ in cells})
    strides = sorted({stride for _, stride in cells})
    rows = [[cells.get((length, stride)) for stride in strides] for length in lengths]
    texts = [[cell.text.replace(" ", "<br>", 1) if cell else "" for cell in row] for row in rows]
    hover = [
        [
            f"max_length {length}, doc_stride {stride}<br>{cell.text}<br>"
            f"best of {plural(cell.count, 'score')} {cell.best:.2f}"
            if cell
            else ""
            for stride, cell in zip(strides, row, strict=True)
        ]
        for length, row in zip(lengths, rows, strict=True)
    ]
    trace = {
        "type": "heatmap",
        "x": [str(stride) for stride in strides],
        "y": [str(length) for length in lengths],
        "z": [[cell.mean if cell else None for cell in row] for row in rows],
        "text": texts,
        "texttemplate": "%{text}",
        "textfont": {"color": TEXT},
        "hovertext": hover,
        "hoverinfo": "text",
        "hoverongaps": False,
        "colorscale": SCALE,
        "xgap": 2,
        "ygap": 2,
        "showscale": False,  # every cell has its number
    }
    category = {"type": "category", "showgrid": False, "automargin": True}
    return {
        "data": [trace],
        "layout": frame(
            ROW_HEIGHT * len(lengths) + 90,
            xaxis={**category, "title": {"text": "doc_stride"}},
            yaxis={**category, "title": {"text": "max_length"}},
        ),
    }
