"""report: the files of runs → one page a person reads, that needs nothing but itself.

Texts of data reach the page escaped, in the packed data, or not at all; scripts are those whose
hashes the page names, and no request leaves it. Numbers are those of the run's files.
"""

import base64
import gzip
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from qa_core.charts import Chart, number_text
from qa_core.comparing import Comparison, compare_answers, pack_answers
from qa_core.planning import WindowPlan
from qa_core.run_charts import (
    calibration_chart,
    curve_charts,
    score_text,
    slice_charts,
    threshold_charts,
    time_chart,
    top_chart,
)
from qa_core.run_files import RunFiles
from qa_core.sweep_charts import sweep_charts, sweep_words

# Control characters but tab and line ends, as the pictures Unicode has of them: a browser drops or
# replaces them, and with them the count of characters.
PICTURES = {code: 0x2400 + code for code in range(32) if code not in (9, 10, 13)} | {127: 0x2421}
JOBS = {"train": "Training", "tune": "Sweep", "evaluate": "Evaluation"}


@dataclass(frozen=True)
class Numbers:
    """A table of the page."""

    columns: tuple[str, ...]
    rows: Sequence[Sequence[Any]]


@dataclass(frozen=True)
class Section:
    """A part of the page, with a place in its navigation."""

    name: str  # of its element
    title: str
    charts: Sequence[Chart] = ()
    words: Sequence[str] = ()
    tables: Sequence[tuple[str, Numbers]] = ()
    texts: Sequence[tuple[str, str]] = ()  # shown as they are, in a fixed pitch


def build_page(runs: Sequence[RunFiles]) -> str:
    """The page of a run, or of several beside each other.

    Raises `DataError` where several runs answered other questions, or the same names twice.
    """
    compared = compare_answers(runs)
    answers = pack_answers(compared)
    sections = [section for section in _sections(runs, compared) if section is not None]
    charts = {chart.name: chart.figure for section in sections for chart in section.charts}
    script, plotly = _text("report.js"), plotly_script()
    first = runs[0]
    title = f"{JOBS[first.job]} {first.name}" if len(runs) == 1 else f"{len(runs)} runs"
    page: str = _template().render(
        title=title,
        notes=[
            f"{run.name}: {note}" if len(runs) > 1 else note for run in runs for note in run.notes
        ],
        is_going=any(run.metrics is None for run in runs),
        cards=cards(first) if len(runs) == 1 else [],
        sections=sections,
        num_answers=len(compared.table),
        num_questions=compared.num_questions,
        charts=packed(charts),
        answers=packed(answers) if answers else "",
        plotly=packed_text(plotly) if charts else "",
        style=Markup(_text("report.css")),  # the project's own
        script=Markup(script),  # likewise
        script_hashes=[content_hash(script), *([content_hash(plotly)] if charts else [])],
    )
    return page


def cards(run: RunFiles) -> list[tuple[str, str, str]]:
    """What a person wants to know first: name, figure, and what more there is to say of it."""
    found = []
    if run.metrics is not None:
        for label, name in (("F1", "f1"), ("Exact match", "exact")):
            text = score_text(run, name)
            value, _, span = text.partition(" ")
            found.append((label, value, f"95 % {span}" if span else ""))
        found.append(("Questions", f"{run.metrics['total']:,}", ""))
    elif run.scores:
        last = run.scores[-1]
        found.append(("F1 so far", number_text(last["f1"]), f"step {last['step']}"))
    untrained = [score["f1"] for score in run.scores if score["epoch"] == 0]
    if untrained and run.metrics is not None:
        found.append(("F1 before training", number_text(untrained[0]), ""))
    threshold = (run.metrics or {}).get("null_threshold")
    if threshold is not None:
        found.append(("Null threshold", number_text(threshold, 3), "null odds above: no answer"))
    if run.steps:
        last_step = run.steps[-1]
        text = f"of {last_step['num_steps']:,}" if run.metrics is None else ""
        found.append(("Steps", f"{last_step['step']:,}", text))
    return found


def _sections(runs: Sequence[RunFiles], compared: Comparison) -> list[Section | None]:
    if len(runs) > 1:
        return [
            _comparison_section(runs, compared),
            Section("curves", "Learning curve", curve_charts(runs)) if _has_curve(runs) else None,
            _settings_section(runs),
        ]
    (run,) = runs
    return [
        _sweep_section(run),
        _score_section(run),
        Section("curves", "Learning curve", curve_charts(runs)) if _has_curve(runs) else None,
        _slice_section(run),
        _confidence_section(run),
        _cost_section(run),
        _data_section(run),
        _settings_section(runs),
    ]


def _has_curve(runs: Sequence[RunFiles]) -> bool:
    return any(run.steps or run.scores for run in runs)


def _sweep_section(run: RunFiles) -> Section | None:
    if run.sweep is None and run.trials:
        so_far = {"metric": run.config["tune"]["metric"], "keys": _searched_keys(run)}
        scored = sum(bool(row["rungs"]) for row in run.trials)
        words = [f"{len(run.trials)} trials have begun, {scored} of them have a score so far."]
        return Section("sweep", "Sweep so far", sweep_charts(so_far, run.trials), words)
    if run.sweep is None:
        return None
    return Section(
        "sweep",
        "Sweep",
        sweep_charts(run.sweep, run.trials),
        sweep_words(run.sweep, run.trials),
    )


def _searched_keys(run: RunFiles) -> list[str]:
    """The keys that a sweep's trials differ in, by what their rows have beside their standing."""
    known = {"trial", "kind", "seed", "num_tokens", "rungs", "f1", "exact"}
    return list(dict.fromkeys(key for row in run.trials for key in row if key not in known))


def _score_section(run: RunFiles) -> Section | None:
    """All figures of metrics.json, window sizes and the comparison that was asked for."""
    if run.metrics is None:
        return None
    rows = [(name, value) for name, value in run.metrics.items()]
    tables = [("Figures of metrics.json", Numbers(("figure", "value"), rows))]
    words = []
    if run.windows:
        columns = ("max_length", "doc_stride", "num_windows", "num_cut", "exact", "f1", "is_best")
        tables.append(
            ("Window sizes", Numbers(columns, [[row[c] for c in columns] for row in run.windows]))
        )
    if run.compared:
        words += [
            difference_words(run.name, str(run.compared["other"]), name, run.compared[name])
            for name in ("f1", "exact")
        ]
    return Section("scores", "Scores", words=words, tables=tables)


def difference_words(ours: str, other: str, name: str, found: Mapping[str, Any]) -> str:
    """A paired difference in a sentence."""
    label = {"f1": "F1", "exact": "Exact match"}[name]
    return (
        f"{label} of {ours} is {found['ours']:.2f}, of {other} {found['other']:.2f}: a difference "
        f"of {found['difference']:+.2f} (95 % {found['low']:+.2f} to {found['high']:+.2f}), "
        f"{found['verdict']}."
    )


def _slice_section(run: RunFiles) -> Section | None:
    charts = slice_charts(run)
    return Section("slices", "Where it is right", charts) if charts else None


def _confidence_section(run: RunFiles) -> Section | None:
    charts = [*threshold_charts(run), calibration_chart(run), top_chart(run)]
    found = [chart for chart in charts if chart is not None]
    return Section("confidence", "How sure it is", found) if found else None


def _cost_section(run: RunFiles) -> Section | None:
    chart = time_chart(run)
    return Section("time", "Time", [chart]) if chart else None


def _data_section(run: RunFiles) -> Section | None:
    """What windows hold and cut, and the records that could not be used."""
    tables = []
    if run.plans:
        rows = [_plan_row(name, values) for name, values in run.plans.items()]
        tables.append(("Windows", Numbers(PLAN_COLUMNS, rows)))
    words = []
    if run.rejections:
        tables.append(
            ("Rejected records", Numbers(("reason", "records"), [*run.rejections.items()]))
        )
        columns = ("source", "record", "id", "reason", "detail")
        rows = [[row[name] for name in columns] for row in run.rejected]
        total = sum(run.rejections.values())
        title = "All of them" if total == len(rows) else f"The first {len(rows)} of {total:,}"
        tables.append((title, Numbers(columns, rows)))
    else:
        words.append("No record was rejected.")
    return Section("data", "Data", words=words, tables=tables)


PLAN_COLUMNS = (
    *("split", "max_length", "doc_stride", "questions", "windows", "windows a question", "tokens"),
    *("padding if all were padded, %", "answers cut", "best exact match", "rejected records"),
)


def _plan_row(name: str, values: Mapping[str, Any]) -> list[Any]:
    """A split's row of the plan report."""
    plan = WindowPlan(**values["plan"])
    return [
        name,
        plan.max_length,
        plan.doc_stride,
        plan.num_examples,
        plan.num_windows,
        round(plan.windows_per_question, 3),
        plan.num_tokens,
        round(100 * plan.padding_share, 1),
        plan.num_cut,
        round(plan.ceiling, 2),
        values["num_rejected"],
    ]


def _settings_section(runs: Sequence[RunFiles]) -> Section:
    """Configuration with versions and commit, digests, and the command that makes it again."""
    texts = []
    for run in runs:
        prefix = _prefix(run, runs)
        command = f"python -m jobs.{run.job} --config {run.folder}/config.yaml --run_name NAME"
        digests = "\n".join(f"{name}: {digest}" for name, digest in run.inputs.items())
        texts += [
            (f"{prefix}the same again, under another name", command),
            (f"{prefix}configuration, versions and commit", run.config_text),
            (f"{prefix}digests of data and model", digests),
        ]
    return Section("settings", "Settings", texts=[(title, text) for title, text in texts if text])


def _prefix(run: RunFiles, runs: Sequence[RunFiles]) -> str:
    """Says which of several runs a text is about."""
    return f"{run.name}: " if len(runs) > 1 else ""


def _comparison_section(runs: Sequence[RunFiles], compared: Comparison) -> Section:
    """The figures of runs side by side, and whether the first two differ by more than chance."""
    names = [name for run in runs for name in run.metrics or {}]
    shown = [name for name in dict.fromkeys(names) if name not in ("best_step", "best_epoch")]
    rows = [[name, *((run.metrics or {}).get(name) for run in runs)] for name in shown]
    spans = [
        [f"{label}, 95 % interval", *(score_text(run, name) or None for run in runs)]
        for label, name in (("F1", "f1"), ("exact match", "exact"))
    ]
    columns = ("figure", *(run.name for run in runs))
    words = [
        difference_words(first, second, name, found[name])
        for first, second, found in compared.differences
        for name in ("f1", "exact")
    ]
    return Section(
        "scores", "Scores", words=words, tables=[("Figures", Numbers(columns, [*spans, *rows]))]
    )


def visible(value: Any) -> Any:
    """What the template puts out: None as nothing, control characters as their pictures."""
    if value is None:
        return ""
    return value.translate(PICTURES) if type(value) is str else value


def figure_text(value: Any) -> str:
    """A value of a table as people read it; the file's own digits are in its title."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.2f}" if abs(value) >= 0.1 or value == 0 else f"{value:.3g}"
    return str(value)


def packed(value: Any) -> Markup:
    """A value as JSON, compressed, in letters that HTML leaves alone."""
    return packed_text(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def packed_text(text: str) -> Markup:
    """A text, compressed, in letters that HTML leaves alone; the same bytes each time."""
    return Markup(base64.b64encode(gzip.compress(text.encode(), 6, mtime=0)).decode())


def content_hash(script: str) -> str:
    """What a Content-Security-Policy calls a script by."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


@cache
def plotly_script() -> str:
    """Plotly's own script."""
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


def _text(name: str) -> str:
    return (resources.files("qa_core") / "templates" / name).read_text(encoding="utf-8")


@cache
def _template() -> Any:
    environment = Environment(
        loader=PackageLoader("qa_core"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["figure_text"] = figure_text
    return environment.get_template("report.html")
