"""sweep report: a sweep in charts and in sentences, from what its run has left."""

from collections.abc import Mapping, Sequence
from typing import Any

from qa_core.charts import Chart
from qa_core.sweep_coordinates import coordinates_chart
from qa_core.sweep_costs import cost_chart, curves_chart
from qa_core.sweep_importance import importance_chart
from qa_core.sweep_trials import view_sweep
from qa_core.sweep_windows import windows_chart
from qa_core.sweep_words import sweep_words

__all__ = ["sweep_charts", "sweep_words"]


def sweep_charts(found: Mapping[str, Any], trials: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """The charts of a sweep, those left out that there is nothing to draw for.

    `found` is the content of sweep.json, `trials` the rows of results.parquet (`to_pylist()`).
    """
    view = view_sweep(found, trials)
    charts = (
        coordinates_chart(view),
        windows_chart(view),
        curves_chart(view),
        importance_chart(found),
        cost_chart(view),
    )
    return [chart for chart in charts if chart is not None]
