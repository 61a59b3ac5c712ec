"""What a person sees of a sweep: while it runs, and at its end."""

import json
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from ray.tune import Callback
from rich import box
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from jobs.artefacts import ANALYSIS
from jobs.cluster import console
from jobs.console import show_analysis, show_scores
from jobs.sweep_results import METRICS, SWEEP, TABLE
from qa_core.halving import Event, Sweep, Trial
from qa_core.search_space import point_name, show_value
from qa_core.storage import join, read_bytes, read_parquet

ROWS_SHOWN = 30  # of trials, while a sweep runs


class SweepShow(Callback):  # type: ignore[misc]  # Ray has no types here
    """A table of the trials on a terminal; in a log a line when something happens."""

    def __init__(self, sweep: Sweep, *, metric: str, is_terminal: bool) -> None:
        self.sweep, self.metric = sweep, metric
        self.progress: dict[int, Mapping[str, Any]] = {}  # of running trials, the latest
        self.live = None
        if is_terminal:
            self.live = Live(
                get_renderable=self.table, console=console, refresh_per_second=1, transient=True
            )

    def __enter__(self) -> "SweepShow":
        if self.live:
            self.live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.live:
            self.live.stop()

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Ray Tune keeps its own parts by pickling them, and never needs this one."""
        return {}

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Called by Ray Tune when a leg tells how far it is."""
        self.progress[trial.config["leg"]["trial"]] = result

    def event(self, event: Event) -> None:
        """Tell of what has just happened to the sweep."""
        if self.live or "trial" not in event:
            return
        trial = self.sweep.trials[event["trial"]]
        name = f"trial {trial.number} ({escape(trial_name(trial))})"
        match event["event"]:
            case "leg":
                start = f"from {trial.num_tokens:,} " if trial.num_tokens else ""
                console.print(
                    f"{name}: training {start}to {event['until_tokens']:,} of "
                    f"{trial.total_tokens:,} real tokens"
                )
            case "score":
                console.print(
                    f"{name}: {self.metric} {event['score']:.2f} after {event['num_tokens']:,} "
                    f"tokens; {self.sweep.num_tokens:,} in all"
                )
            case "death":
                console.print(f"[yellow]{name}[/yellow]: {escape(event['cause'])}")
            case "failure":
                console.print(f"[yellow]{name}: failed[/yellow]: {escape(event['cause'])}")

    def table(self) -> Table:
        """The trials as they stand, those in training first, then the best."""
        sweep = self.sweep
        ranked = sweep.ranking()
        rest = [trial for trial in sweep.trials if trial not in ranked]
        order = sorted([*ranked, *rest], key=lambda trial: trial.status != "running")
        table = Table(
            title=f"{len(sweep.trials)} trials, {sweep.num_tokens:,} real tokens trained",
            title_justify="left",
            box=box.SIMPLE_HEAD,
        )
        for column in ("trial", "setting", "tokens", "of", self.metric, "loss", "status"):
            table.add_column(column, justify="left" if column == "setting" else "right")
        for trial in order[:ROWS_SHOWN]:
            now = self.progress.get(trial.number, {}) if trial.status == "running" else {}
            loss = now.get("loss")
            table.add_row(
                str(trial.number),
                escape(trial_name(trial)),
                f"{max(trial.num_tokens, now.get('num_tokens', 0)):,}",
                f"{trial.total_tokens:,}",
                "" if trial.score is None else f"{trial.score:.2f}",
                "" if loss is None else f"{loss:.3f}",
                trial.status,
            )
        if len(order) > ROWS_SHOWN:
            table.caption = f"and {len(order) - ROWS_SHOWN} more"
        return table


def trial_name(trial: Trial) -> str:
    """A trial as people read it."""
    seed = f", seed + {trial.seed}" if trial.seed else ""
    kind = "default: " if trial.kind == "default" else ""
    return f"{kind}{point_name(trial.point)}{seed}"


def show_sweep(run: str) -> None:
    """The table of trials, what mattered, how sure it is, and where the winner is."""
    found = json.loads(read_bytes(join(run, SWEEP)))
    rows = read_parquet(join(run, TABLE)).to_pylist()
    show_trials(rows, found)
    show_sensitivities(found)
    for name, compared in found["comparisons"].items():
        show_comparison(name, compared, found["metric"])
    if len(found["seeds"]) > 1:
        values = [row["score"] for row in found["seeds"]]
        mean, deviation = found["seed_mean"], found["seed_deviation"]
        listed = ", ".join(f"{value:.2f}" for value in values)
        console.print(
            f"The winner with {len(values)} seeds: {found['metric']} {mean:.2f} on average, "
            f"standard deviation {deviation:.2f} ({listed}); the best of them is saved"
        )
    show_scores(json.loads(read_bytes(join(run, METRICS))), "The winner on the dev data")
    show_analysis(json.loads(read_bytes(join(run, ANALYSIS))))
    for text in found["remarks"]:
        console.print(f"[yellow]note[/yellow]: {escape(text)}")
    console.print(
        f"\nResults: {run}\n"
        "  results.parquet  a row a trial; sweep.json  comparisons and sensitivities\n"
        "  model/  the winner, loads with AutoModelForQuestionAnswering.from_pretrained\n"
        "Next:\n"
        f'  python -m jobs.predict --model {run}/model --ask "…" --context FILE\n'
        f"  python -m jobs.evaluate --model {run}/model --data.dev ANOTHER.json",
        markup=False,
    )


def show_trials(rows: Sequence[Mapping[str, Any]], found: Mapping[str, Any]) -> None:
    """A line a trial, as `results.parquet` has them."""
    keys = found["keys"]
    metric = found["metric"]
    table = Table(
        title=f"{len(rows)} trials, {found['num_tokens']:,} real tokens trained",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    names = [key.rpartition(".")[2] for key in keys]
    for column in ("trial", *names, "tokens", metric, "best windows", "status"):
        table.add_column(column, justify="right")
    for row in rows:
        best = ""
        if row["best_max_length"] is not None:
            best = f"{row['best_max_length']}/{row['best_doc_stride']} {row['best_score']:.2f}"
        note = {"default": " (default)", "seed": f" (seed + {row['seed']})"}.get(row["kind"], "")
        table.add_row(
            f"{row['trial']}{note}",
            *(show_value(row[key]) for key in keys),
            f"{row['num_tokens']:,}",
            "" if row[metric] is None else f"{row[metric]:.2f}",
            best,
            "[bold]winner[/bold]" if row["is_winner"] else row["status"],
        )
    console.print(table)
    for row in rows:
        if row["cause"]:
            console.print(f"  trial {row['trial']} failed: {row['cause']}", markup=False)


def show_sensitivities(found: Mapping[str, Any]) -> None:
    """Which keys mattered."""
    if not found["sensitivities"]:
        return
    table = Table(
        title=f"What mattered, of {found['sensitivity_of']}",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        caption="share: of the scores' variance, by this key alone; chance: what a key that does "
        "nothing would have",
        caption_justify="left",
    )
    for column in ("key", "share", "chance", "range", f"mean {found['metric']} by value"):
        table.add_column(column, justify="left" if column[0] in "km" else "right")
    for row in found["sensitivities"]:
        means = ", ".join(f"{one['value']}: {one['mean']:.2f}" for one in row["means"])
        table.add_row(
            row["key"],
            f"{row['share']:.2f}",
            f"{row['chance']:.2f}",
            f"{row['range']:.2f}",
            escape(means),
        )
    console.print(table)


def show_comparison(name: str, compared: Mapping[str, Any], metric: str) -> None:
    """The winner beside another trial, in plain words."""
    console.print(
        f"Winner against the {name.replace('_', ' ')} (trial {compared['trial']}), "
        f"{compared['when']}: {metric} {compared['ours']:.2f} against {compared['other']:.2f}, "
        f"{compared['difference']:+.2f} ({compared['low']:+.2f} to {compared['high']:+.2f}): "
        f"[bold]{compared['words']}[/bold]"
    )
