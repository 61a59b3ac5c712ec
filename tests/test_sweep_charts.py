"""Charts and sentences of a sweep: numbers of its files, whatever of them is missing."""

import json
from typing import Any

import plotly.graph_objects as go
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qa_core.charts import Chart
from qa_core.sweep_charts import sweep_charts, sweep_words
from tests.sweeps import KEYS, failed, recorded_sweep, trial

COLOR = "#123456"


def colored(value: Any) -> Any:
    """A figure with a colour in the place of each name of one."""
    if isinstance(value, str):
        return COLOR if value.startswith("@") else value
    if isinstance(value, list):
        return [colored(one) for one in value]
    if isinstance(value, dict):
        return {name: colored(one) for name, one in value.items()}
    return value


def check(charts: list[Chart]) -> None:
    """Every figure is one of Plotly's, in JSON, of traces that need no WebGL."""
    for chart in charts:
        figure = json.loads(json.dumps(chart.figure, allow_nan=False))
        drawn = go.Figure(colored(figure))
        assert {trace.type for trace in drawn.data} <= {"scatter", "bar", "heatmap"}
        assert chart.text
        assert all(len(row) == len(chart.columns) for row in chart.rows)
    assert len({chart.name for chart in charts}) == len(charts)


def by_name(charts: list[Chart], word: str) -> Chart:
    """The one chart with a word in its name."""
    [found] = [chart for chart in charts if word in chart.name]
    return found


def test_a_sweep_has_all_its_charts() -> None:
    """Coordinates, windows, curves, importance, cost: each valid, with a table."""
    found, trials = recorded_sweep()
    charts = sweep_charts(found, trials)
    check(charts)
    assert len(charts) == 5


def test_tables_have_the_numbers_of_the_files() -> None:
    """Scores at rungs, of trials, of keys."""
    found, trials = recorded_sweep()
    charts = sweep_charts(found, trials)
    numbers = {round(v, 2) for c in charts for r in c.rows for v in r if isinstance(v, int | float)}
    for row in trials:
        for rung in row["rungs"]:
            assert round(rung["f1"], 2) in numbers
    for row in found["sensitivities"]:
        assert any(row["key"] in map(str, r) for c in charts for r in c.rows)


def test_words_name_the_winner_and_how_sure_it_is() -> None:
    """With the difference, its interval and the verdict, and what is to be known."""
    found, trials = recorded_sweep()
    text = " ".join(sweep_words(found, trials))
    assert f"Trial {found['winner']} won" in text
    assert "+8.00" in text
    assert "+3.00 to +13.00" in text
    assert "better" in text
    assert "the loss is nan" in text
    assert "chosen among 18 trials" in text


def with_scores(points: list[tuple[int, float]]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A sweep whose trials ended after so many tokens with such scores."""
    rows = []
    for number, (tokens, score) in enumerate(points):
        row = trial(3 * number, (128, 16, 1e-5))
        rung = {**row["rungs"][-1], "num_tokens": tokens, "f1": score}
        row |= {"num_tokens": tokens, "f1": score, "best_score": score, "rungs": [rung]}
        rows.append({**row, "sizes": [], "best_max_length": None, "best_doc_stride": None})
    return {"metric": "f1", "keys": list(KEYS)}, rows


@given(
    st.lists(st.tuples(st.integers(1, 30), st.integers(0, 20).map(float)), min_size=2, max_size=12)
)
def test_the_pareto_front_is_what_nothing_beats(points: list[tuple[int, float]]) -> None:
    """None is as good for fewer tokens, or better for as many; of equals one stands for all."""
    found, trials = with_scores(points)
    chart = by_name(sweep_charts(found, trials), "cost")
    place = chart.columns.index("on the front")
    on_front = [points[int(str(row[0])) // 3] for row in chart.rows if row[place] == "yes"]
    beaten = {
        (tokens, score)
        for tokens, score in points
        if any(t <= tokens and s >= score and (t, s) != (tokens, score) for t, s in points)
    }
    assert len(chart.rows) == len(points)
    assert sorted(on_front) == sorted(set(points) - beaten)


@pytest.mark.parametrize(
    ("found", "trials"),
    [
        ({"metric": "f1", "keys": []}, []),
        ({"metric": "f1", "keys": list(KEYS)}, [failed(0)]),
        ({"metric": "f1", "keys": list(KEYS)}, [trial(0, (128, 16, 1e-5))]),
        ({"metric": "exact", "keys": [KEYS[0]]}, [trial(n, (128, 16, 1e-5)) for n in range(3)]),
        ({}, [{"trial": 0}, {"trial": 1, "status": None, "rungs": None, "sizes": None}]),
    ],
    ids=["nothing", "failed", "one", "one key", "empty rows"],
)
def test_what_is_missing_is_left_out(found: dict[str, Any], trials: list[dict[str, Any]]) -> None:
    """No trial, none with a score, one, one key, none of the columns."""
    check(sweep_charts(found, trials))
    assert sweep_words(found, trials)


def test_rows_of_former_versions_have_charts() -> None:
    """Without standard errors, rungs or the default's number in sweep.json."""
    found, trials = recorded_sweep()
    for name in ("rungs", "default_trial"):
        del found[name]
    for row in trials:
        for one in (*row["rungs"], *row["sizes"]):
            del one["f1_error"], one["exact_error"]
    charts = sweep_charts(found, trials)
    check(charts)
    assert len(charts) == 5


@pytest.mark.parametrize("value", [float("nan"), None, "a", [1, 2], True, {"a": 1}])
def test_values_of_any_kind_have_a_place(value: Any) -> None:
    """Keys of mixed types are places on an axis; no number that is none reaches a figure."""
    found, trials = recorded_sweep()
    trials[0][KEYS[2]] = value
    trials[3]["best_score"] = trials[4]["f1"] = float("nan")
    check(sweep_charts(found, trials))


def test_markup_in_values_is_escaped_in_figures() -> None:
    """Plotly would take it for its own."""
    found, trials = recorded_sweep()
    for number, row in enumerate(trials):
        row["model.name_or_path"] = f"<b>bold</b>/{number % 2}"
    found["keys"] = [*KEYS, "model.name_or_path"]
    charts = sweep_charts(found, trials)
    check(charts)
    figures = json.dumps([chart.figure for chart in charts])
    assert "&lt;b&gt;bold" in figures
    assert "<b>bold</b>" not in figures
