"""report: what stands on a page: cards, and sections of sentences, charts, tables and texts."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qa_core.charts import Chart, number_text
from qa_core.comparing import Comparison
from qa_core.planning import WindowPlan
from qa_core.run_charts import (
    calibration_chart,
    score_text,
    slice_charts,
    threshold_charts,
    time_chart,
    top_chart,
)
from qa_core.run_curves import curve_charts, run_prefix
from qa_core.run_files import RunFiles
from qa_core.sweep_charts import sweep_charts, sweep_words


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


def page_sections(runs: Sequence[RunFiles], compared: Comparison) -> list[Section]:
    """The parts of a page, those left out that there is nothing for."""
    found = _several(runs, compared) if len(runs) > 1 else _alone(runs[0])
    return [section for section in found if section is not None]


def _several(runs: Sequence[RunFiles], compared: Comparison) -> list[Section | None]:
    return [_comparison_section(runs, compared), _curve_section(runs), _settings_section(runs)]


def _alone(run: RunFiles) -> list[Section | None]:
    return [
        _sweep_section(run),
        _score_section(run),
        _curve_section([run]),
        _slice_section(run),
        _confidence_section(run),
        _cost_section(run),
        _data_section(run),
        _settings_section([run]),
    ]


def _curve_section(runs: Sequence[RunFiles]) -> Section | None:
    charts = curve_charts(runs)
    return Section("curves", "Learning curve", charts) if charts else None


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
    by_title: dict[str, list[tuple[str, Any]]] = {}
    for name, value in run.metrics.items():
        by_title.setdefault(_figure_title(name), []).append((name, value))
    tables = [(title, Numbers(("figure", "value"), rows)) for title, rows in by_title.items()]
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


def _figure_title(name: str) -> str:
    """What a figure of metrics.json is listed under."""
    if name == "null_threshold" or name.startswith(("best_exact", "best_f1")):
        return "Thresholds"
    is_score = name in ("exact", "f1", "total") or name.startswith(("HasAns_", "NoAns_"))
    return "Answers" if is_score else "Model"


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
        prefix = run_prefix(run, runs)
        command = f"python -m jobs.{run.job} --config {run.folder}/config.yaml --run_name NAME"
        digests = "\n".join(f"{name}: {digest}" for name, digest in run.inputs.items())
        texts += [
            (f"{prefix}the same again, under another name", command),
            (f"{prefix}configuration, versions and commit", run.config_text),
            (f"{prefix}digests of data and model", digests),
        ]
    tables = []
    if len(runs) > 1:
        columns = ("setting", *(run.name for run in runs))
        tables.append(("Settings that differ", Numbers(columns, differing_settings(runs))))
    shown = [(title, text) for title, text in texts if text]
    return Section("settings", "Settings", tables=tables, texts=shown)


def differing_settings(runs: Sequence[RunFiles]) -> list[list[str]]:
    """A row a setting that is not the same in all runs: its key and its values."""
    settings = [dict(_settings(run.config)) for run in runs]
    keys = dict.fromkeys(key for one in settings for key in one if key != "run_name")
    rows = [[key, *(str(one.get(key, "")) for one in settings)] for key in keys]
    return [row for row in rows if len(set(row[1:])) > 1]


def _settings(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values."""
    for name, value in config.items():
        if isinstance(value, dict):
            yield from _settings(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


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
