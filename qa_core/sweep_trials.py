"""sweep report: trials as its charts take them, from the content of sweep.json and results.parquet.

Nothing here fails on what a file may lack: a number that is not there, or is none, is None.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qa_core.charts import escape_plotly
from qa_core.search_space import show_value

METRIC_NAMES = {"f1": "F1", "exact": "exact match"}
LONGEST_VALUE = 60  # characters of a value that are shown
COMPLETE, STOPPED, FAILED = "complete", "stopped early", "failed"


@dataclass(frozen=True)
class Measured:
    """A score (0 to 100) after some real tokens, or with windows of a size."""

    score: float
    error: float | None  # standard error over the questions; runs of former versions have none
    num_tokens: float | None = None
    windows: tuple[int, int] | None = None  # max_length, doc_stride


@dataclass(frozen=True)
class TrialView:
    """A trial: its setting, how far it came, and what it reached."""

    number: int
    point: dict[str, Any]  # the searched keys
    seed: int
    state: str  # COMPLETE, STOPPED or FAILED
    cause: str  # of a failure
    is_winner: bool
    is_default: bool
    num_tokens: float | None
    seconds: float | None  # of training and scoring
    reached: Measured | None  # at the end with the best windows, else the latest
    rungs: tuple[Measured, ...]  # with its own windows, by tokens
    sizes: tuple[Measured, ...]  # at its end, with windows of each size

    @property
    def score(self) -> float:
        """What it reached, of a trial that has a score."""
        assert self.reached is not None
        return self.reached.score

    @property
    def role(self) -> str:
        """What it is in the sweep beside a trial; empty of most."""
        names = [("winner", self.is_winner), ("default setting", self.is_default)]
        return ", ".join(name for name, holds in names if holds)

    def hover(self, metric: str) -> str:
        """What is shown beside the pointer: a line a key, and what it reached."""
        role = f" ({self.role})" if self.role else ""
        lines = [f"<b>trial {self.number}{role}</b>, {self.state}"]
        lines += [escape_plotly(f"{key} {value_text(v)}") for key, v in self.point.items()]
        if self.seed:
            lines.append(f"seed + {self.seed}")
        if self.reached:
            lines.append(f"{METRIC_NAMES.get(metric, metric)} {score_text(self.reached)}")
        if self.num_tokens is not None:
            lines.append(f"{self.num_tokens:,.0f} real tokens")
        return "<br>".join(lines)


@dataclass(frozen=True)
class SweepView:
    """What the charts of a sweep are made from."""

    metric: str
    keys: tuple[str, ...]
    trials: tuple[TrialView, ...]
    rungs: tuple[int, ...]  # real tokens after which trials are scored and compared

    @property
    def metric_name(self) -> str:
        """The score as people call it."""
        return METRIC_NAMES.get(self.metric, self.metric)

    @property
    def scored(self) -> list[TrialView]:
        """The trials that reached any score, the lowest first, so that the best are drawn last."""
        return sorted((one for one in self.trials if one.reached), key=lambda one: one.score)

    @property
    def winner(self) -> TrialView | None:
        """The winner, where there is one."""
        return next((one for one in self.trials if one.is_winner), None)

    def left_out(self) -> str:
        """A sentence on the trials that no chart of scores can show; empty where all have one."""
        without = [str(one.number) for one in self.trials if not one.reached]
        if not without:
            return ""
        return f" Left out, without a score: {plural(len(without), 'trial')} ({listed(without)})."


def view_sweep(found: Mapping[str, Any], trials: Sequence[Mapping[str, Any]]) -> SweepView:
    """The trials of a sweep; `found` is sweep.json, `trials` the rows of results.parquet."""
    metric = str(found.get("metric") or "f1")
    keys = tuple(found.get("keys") or ())
    default = found.get("default_trial")
    if "default_trial" not in found:  # as in former versions
        compared = (found.get("comparisons") or {}).get("default_setting") or {}
        default = compared.get("trial")
    views = [view_trial(row, keys, metric, default) for row in trials]
    rungs = [int(r) for r in found.get("rungs") or () if finite(r)]
    return SweepView(metric, keys, tuple(views), tuple(rungs))


def view_trial(
    row: Mapping[str, Any], keys: Sequence[str], metric: str, default: int | None
) -> TrialView:
    """A row of results.parquet."""
    status = row.get("status")
    rungs = [measured(one, metric) for one in row.get("rungs") or ()]
    sizes = [measured(one, metric) for one in row.get("sizes") or ()]
    own = tuple(one for one in rungs if one and one.num_tokens is not None)
    ends = tuple(one for one in sizes if one and one.windows)
    times = [finite(row.get(name)) for name in ("train_seconds", "score_seconds")]
    return TrialView(
        number=int(row["trial"]),
        point={key: row.get(key) for key in keys},
        seed=int(row.get("seed") or 0),
        state=str(status) if status in (COMPLETE, FAILED) else STOPPED,
        cause=str(row.get("cause") or ""),
        is_winner=bool(row.get("is_winner")),
        is_default=row.get("kind") == "default" or row["trial"] == default,
        num_tokens=finite(row.get("num_tokens")),
        seconds=sum(one for one in times if one) if any(times) else None,
        reached=find_reached(row, metric, own, ends),
        rungs=own,
        sizes=ends,
    )


def find_reached(
    row: Mapping[str, Any], metric: str, rungs: Sequence[Measured], sizes: Sequence[Measured]
) -> Measured | None:
    """The score of a complete trial with its best windows; of another its latest one."""
    best = finite(row.get("best_score"))
    if row.get("status") == COMPLETE and best is not None:
        windows = (row.get("best_max_length"), row.get("best_doc_stride"))
        error = next((one.error for one in sizes if one.windows == windows), None)
        return Measured(best, error)
    latest = finite(row.get(metric))
    if latest is None:
        return None
    return Measured(latest, rungs[-1].error if rungs else None)


def measured(row: Mapping[str, Any], metric: str) -> Measured | None:
    """A score of a rung, or of windows of a size; None where there is no number."""
    score = finite(row.get(metric))
    if score is None:
        return None
    size = (row.get("max_length"), row.get("doc_stride"))
    windows = None if size[0] is None or size[1] is None else (int(size[0]), int(size[1]))
    return Measured(
        score, finite(row.get(f"{metric}_error")), finite(row.get("num_tokens")), windows
    )


def finite(value: Any) -> float | None:
    """A number as it is; None of anything else: no number, not finite, True and False."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value


def value_text(value: Any, longest: int = LONGEST_VALUE) -> str:
    """A value of a key as people read it, its middle left out where it is long.

    >>> value_text("/models/a/very/long/path/to/one", 15)
    '/models…/to/one'
    """
    text = "none" if value is None else show_value(value)
    if len(text) <= longest:
        return text
    end = longest // 2
    return f"{text[: longest - 1 - end]}…{text[-end:]}"


def score_text(one: Measured, digits: int = 2) -> str:
    """A score with its standard error, where it is known."""
    text = f"{one.score:.{digits}f}"
    return text if one.error is None else f"{text} ± {one.error:.{digits}f}"


def setting_text(trial: TrialView) -> str:
    """A trial's setting in one line, for tables and sentences."""
    parts = [f"{key.rpartition('.')[2]} {value_text(v)}" for key, v in trial.point.items()]
    return ", ".join([*parts, *([f"seed + {trial.seed}"] if trial.seed else [])])


def plural(count: int, noun: str) -> str:
    """How many there are of what.

    >>> plural(1, "trial"), plural(1200, "trial")
    ('1 trial', '1,200 trials')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def listed(names: Sequence[str], most: int = 6) -> str:
    """Names with commas between them, the first few where they are many."""
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
