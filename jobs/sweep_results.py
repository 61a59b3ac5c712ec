"""The end of a sweep: the winner's files, a table of all trials, and how sure it all is."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from jobs.artefacts import (
    save_model,
    write_analysis,
    write_answers,
    write_json,
    write_rejections,
    write_report,
)
from jobs.configuration import FeatureSettings, SweepConfig
from jobs.prepared import Prepared
from jobs.shard_scoring import Scored, load_scored, score_prepared, summarize
from jobs.space import with_point
from jobs.sweep_inputs import SweepInputs
from jobs.trial import LEGS, scored_windows, scoring_folder, trial_folder
from qa_core.analysis import analyse, compare_scores
from qa_core.checkpoints import CHECKPOINTS, find_checkpoints
from qa_core.halving import Sweep, Trial
from qa_core.scoring import GivenScores, given_scores
from qa_core.search_space import same_point
from qa_core.sensitivity import key_sensitivities
from qa_core.storage import is_directory, join, list_files, read_bytes, write_parquet

SWEEP, TABLE, METRICS = "sweep.json", "results.parquet", "metrics.json"


@dataclass(frozen=True)
class Chosen:
    """A trial's last checkpoint with the windows it does best with, scored on all dev questions."""

    trial: Trial
    checkpoint: str
    dev: Prepared
    folder: str  # of its answers
    scored: Scored
    metrics: dict[str, Any]

    @property
    def given(self) -> GivenScores:
        """Its scores, with its null threshold."""
        return given_scores(self.scored.scores, null_threshold=self.metrics.get("null_threshold"))


def finish(sweep: Sweep, inputs: SweepInputs, run: str, *, use_gpu: bool) -> None:
    """Write the winner's files and the results; metrics.json comes last."""
    config = inputs.config
    metric = config.tune.metric
    legs = {trial.number: read_legs(run, trial) for trial in sweep.trials}
    ranking = ranked(sweep, legs, metric)
    winner = ranking[0]
    others = [t for t in sweep.trials if t.kind == "seed" and t.status == "complete"]
    seeds = [winner, *(t for t in others if same_point(t.point, winner.point))]
    best = max(seeds, key=lambda trial: best_score(trial, legs, metric))
    chosen = choose(best, legs, inputs, run, use_gpu=use_gpu)
    threshold = chosen.metrics.get("null_threshold")
    write_answers(run, chosen.dev, scoring=chosen.folder, threshold=threshold)
    write_analysis(
        run, analyse(chosen.scored.scores, chosen.scored.facts, null_threshold=threshold)
    )
    size = chosen.dev.settings
    save_model(
        run,
        checkpoint=chosen.checkpoint,
        max_length=size.max_length,
        doc_stride=size.doc_stride,
        decoding=with_point(config, best.point).decoding,
        null_threshold=threshold,
    )
    train = inputs.find(best.point).train
    rejections = write_rejections(run, [train, chosen.dev])
    values = [best_score(trial, legs, metric) for trial in seeds]
    found = {
        "tune": asdict(config.tune),
        "metric": metric,
        "keys": list(inputs.space),
        "winner": best.number,
        "winner_point": best.point,
        "windows": {"max_length": size.max_length, "doc_stride": size.doc_stride},
        "num_tokens": sweep.num_tokens,
        "spare_tokens": sweep.spare_tokens,
        "comparisons": compare(sweep, ranking, legs, inputs, run, use_gpu=use_gpu),
        **sensitivities(sweep, inputs),
        "seeds": [
            {"trial": trial.number, "seed": config.train.seed + trial.seed, "score": value}
            for trial, value in zip(seeds, values, strict=True)
        ],
        "seed_mean": statistics.mean(values),
        "seed_deviation": statistics.stdev(values) if len(values) > 1 else None,
        "remarks": remarks(sweep, config, winner),
    }
    write_json(join(run, SWEEP), found)
    order = [*ranking, *(trial for trial in sweep.trials if trial not in ranking)]
    rows = [trial_row(trial, legs, inputs, is_winner=trial is best) for trial in order]
    write_parquet(join(run, TABLE), results_table(rows))
    write_report(
        run,
        title=f"Sweep {config.run_name}",
        metrics=chosen.metrics,
        curve=[],
        rejections=rejections,
    )
    write_json(join(run, METRICS), {**chosen.metrics, "trial": best.number})


def read_legs(run: str, trial: Trial) -> list[dict[str, Any]]:
    """The results of a trial's legs, in order."""
    folder = join(trial_folder(run, trial.number), LEGS)
    files = list_files(folder) if is_directory(folder) else []
    return sorted((json.loads(read_bytes(file)) for file in files), key=lambda r: r["num_tokens"])


Legs = Mapping[int, Sequence[dict[str, Any]]]


def best_score(trial: Trial, legs: Legs, metric: str) -> float:
    """The best score of a complete trial over all windows it was scored with, or its latest."""
    sizes = legs[trial.number][-1]["sizes"] if legs[trial.number] else []
    scores = [row[metric] for row in sizes] or [trial.score if trial.score is not None else -1.0]
    return float(max(scores))


def ranked(sweep: Sweep, legs: Legs, metric: str) -> list[Trial]:
    """The sweep's ranking, complete trials by what they reach with their best windows."""
    order = sweep.ranking()

    def standing(trial: Trial) -> tuple[bool, int, float, int]:
        is_complete = trial.status == "complete"
        score = best_score(trial, legs, metric) if is_complete else trial.score or 0.0
        rung = 0 if is_complete else trial.rung
        return not is_complete, -rung, -score, order.index(trial)

    return sorted(order, key=standing)


def choose(trial: Trial, legs: Legs, inputs: SweepInputs, run: str, *, use_gpu: bool) -> Chosen:
    """A trial's last checkpoint with its best windows; scored now where it was not yet."""
    metric = inputs.config.tune.metric
    config = with_point(inputs.config, trial.point)
    size = scored_windows(config.features)
    sizes = legs[trial.number][-1]["sizes"] if legs[trial.number] else []
    if sizes:
        # Of equals the windows it was trained with, then the shorter ones.
        row = min(sizes, key=lambda row: (-row[metric], row is not sizes[0], row["max_length"]))
        size = FeatureSettings(max_length=row["max_length"], doc_stride=row["doc_stride"])
    return score_now(trial, size, inputs, run, use_gpu=use_gpu)


def score_now(
    trial: Trial, size: FeatureSettings, inputs: SweepInputs, run: str, *, use_gpu: bool
) -> Chosen:
    """The scores of a trial's last checkpoint with windows of a size, on all dev questions."""
    config = with_point(inputs.config, trial.point)
    folder = trial_folder(run, trial.number)
    last = find_checkpoints(join(folder, CHECKPOINTS))[0][-1]
    dev = inputs.counted_windows(inputs.dev, inputs.find(trial.point).model, size)
    out_folder = scoring_folder(folder, last.step, size)
    checkpoint = join(folder, CHECKPOINTS, last.name)
    scored = score_prepared(
        checkpoint,
        dev,
        out_folder=out_folder,
        decoding=config.decoding,
        language=config.scoring.language,
        has_null=dev.has_unanswerable,
        use_gpu=use_gpu,
    )
    return Chosen(trial, checkpoint, dev, out_folder, scored, summarize(scored, dev, None))


def compare(
    sweep: Sweep,
    ranking: Sequence[Trial],
    legs: Legs,
    inputs: SweepInputs,
    run: str,
    *,
    use_gpu: bool,
) -> dict[str, Any]:
    """The winner beside the runner-up and the default setting, by a paired bootstrap.

    Trials that are both complete are compared with the windows they do best with (the default
    setting with its own), others at the last rung both were scored at: after as many tokens.
    """
    winner, metric = ranking[0], inputs.config.tune.metric
    compared = {}
    others = [trial for trial in ranking[1:] if common_leg(winner, trial, legs, metric)]
    if others:
        compared["runner_up"] = compare_with(winner, others[0], legs, inputs, run, use_gpu=use_gpu)
    default = sweep.default_trial()
    if default is not None and default is not winner:
        found = compare_with(winner, default, legs, inputs, run, use_gpu=use_gpu)
        if found is not None:
            compared["default_setting"] = found
    return {name: one for name, one in compared.items() if one is not None}


def compare_with(
    winner: Trial, other: Trial, legs: Legs, inputs: SweepInputs, run: str, *, use_gpu: bool
) -> dict[str, Any] | None:
    """The paired difference of two trials; None where they have no score to compare."""
    metric = inputs.config.tune.metric
    if winner.status == other.status == "complete":
        ours = choose(winner, legs, inputs, run, use_gpu=use_gpu).given
        if same_setting(other, inputs):
            size = scored_windows(with_point(inputs.config, other.point).features)
            theirs = score_now(other, size, inputs, run, use_gpu=use_gpu).given
        else:
            theirs = choose(other, legs, inputs, run, use_gpu=use_gpu).given
        when = "both trained to their end"
    else:
        pair = common_leg(winner, other, legs, metric)
        if pair is None:
            return None
        ours = leg_scores(winner, pair[0], inputs, run)
        theirs = leg_scores(other, pair[1], inputs, run)
        when = f"both after {pair[1]['num_tokens']:,} real tokens"
    found = compare_scores(*common_examples(ours, theirs))[metric]
    words = "better" if found["difference"] > 0 else "worse"
    if found["low"] <= 0 <= found["high"]:
        words = "not distinguishable at this size"
    return {"trial": other.number, "when": when, **found, "words": words}


def same_setting(trial: Trial, inputs: SweepInputs) -> bool:
    """Whether a trial is the default setting's, which has windows of its own."""
    return all(trial.point[key] == value for key, value in inputs.default().items())


def common_leg(
    first: Trial, second: Trial, legs: Legs, metric: str
) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """The results of the last rung that both trials were scored at; None where there is none."""
    rungs = sorted(first.rung_scores.keys() & second.rung_scores.keys())
    for rung in reversed(rungs):
        pair = [
            next((g for g in legs[t.number] if g["metrics"][metric] == t.rung_scores[rung]), None)
            for t in (first, second)
        ]
        if pair[0] is not None and pair[1] is not None:
            return pair[0], pair[1]
    return None


def leg_scores(trial: Trial, leg: Mapping[str, Any], inputs: SweepInputs, run: str) -> GivenScores:
    """The scores of a leg's end, as they were kept."""
    size = scored_windows(with_point(inputs.config, trial.point).features)
    folder = scoring_folder(trial_folder(run, trial.number), leg["step"], size, part=leg["part"])
    threshold = leg["metrics"].get("null_threshold")
    return given_scores(load_scored(folder).scores, null_threshold=threshold)


def common_examples(first: GivenScores, second: GivenScores) -> tuple[GivenScores, GivenScores]:
    """Both scores of the questions that both have: small windows may leave one no room."""
    ids = np.intersect1d(first.ids.astype(str), second.ids.astype(str))
    one, two = (
        scores.take(np.flatnonzero(np.isin(scores.ids.astype(str), ids)))
        for scores in (first, second)
    )
    return one, two


def sensitivities(sweep: Sweep, inputs: SweepInputs) -> dict[str, Any]:
    """Which keys mattered, to the scores of the first rung, where all trials were, or the end."""
    search = [t for t in sweep.trials if t.kind == "search" and t.rung_scores]
    first = min((rung for t in search for rung in t.rung_scores), default=0)
    at = [t for t in search if first in t.rung_scores]
    is_end = first > len(sweep.rules.rungs)
    return {
        "sensitivity_of": "the trials' ends" if is_end else f"scores at rung {first}",
        "sensitivities": key_sensitivities(
            [t.point for t in at], [t.rung_scores[first] for t in at]
        ),
    }


def remarks(sweep: Sweep, config: SweepConfig, winner: Trial) -> list[str]:
    """What a person should know about the results."""
    found = []
    if winner.status != "complete":
        found.append(
            "the sweep ended before a trial was complete: the winner has seen "
            f"{winner.num_tokens:,} of {winner.total_tokens:,} tokens; give the same command "
            "with a larger budget"
        )
    elif sweep.is_stopped:
        found.append("a budget ended the sweep; the same command with a larger one continues it")
    num_trials = sum(trial.kind == "search" for trial in sweep.trials)
    if num_trials > 1:
        found.append(
            f"the winner was chosen among {num_trials} trials by these dev questions: its score on "
            "them is a little too high; other questions tell"
        )
    halved = [e["spare_of"] for e in sweep.events if e["event"] == "spare"]
    if halved:
        found.append(
            f"trial(s) {', '.join(map(str, halved))} ran out of memory and trained with a smaller "
            f"batch, accumulated; {sweep.spare_tokens:,} tokens were trained in vain"
        )
    return found


def trial_row(trial: Trial, legs: Legs, inputs: SweepInputs, *, is_winner: bool) -> dict[str, Any]:
    """A trial's row of results.parquet."""
    metric = inputs.config.tune.metric
    done = legs[trial.number]
    last = done[-1] if done else None
    sizes = last["sizes"] if last else []
    best = min(sizes, key=lambda row: (-row[metric], row is not sizes[0]), default=None)
    return {
        "trial": trial.number,
        "kind": trial.kind,
        "seed": trial.seed,
        "status": "waiting" if trial.status == "running" else trial.status,  # its turn never came
        "is_winner": is_winner,
        "cause": trial.cause,
        **trial.point,
        "total_tokens": trial.total_tokens,
        "num_tokens": trial.num_tokens,
        "exact": last["metrics"]["exact"] if last else None,
        "f1": last["metrics"]["f1"] if last else None,
        "eval_loss": last["metrics"]["eval_loss"] if last else None,
        "null_threshold": last["metrics"].get("null_threshold") if last else None,
        "best_max_length": best["max_length"] if best else None,
        "best_doc_stride": best["doc_stride"] if best else None,
        "best_score": best[metric] if best else None,
        "train_seconds": sum(leg["train_seconds"] for leg in done),
        "score_seconds": sum(leg["score_seconds"] for leg in done),
        "times_halved": last["times_halved"] if last else 0,
        "rungs": [
            {
                "num_tokens": leg["num_tokens"],
                "step": leg["step"],
                "total": leg["metrics"]["total"],
                "exact": leg["metrics"]["exact"],
                "f1": leg["metrics"]["f1"],
            }
            for leg in done
        ],
        "sizes": sizes,
    }


RUNG = pa.struct(
    [
        ("num_tokens", pa.int64()),
        ("step", pa.int64()),
        ("total", pa.int64()),  # questions scored
        ("exact", pa.float64()),
        ("f1", pa.float64()),
    ]
)
SIZE = pa.struct(
    [
        ("max_length", pa.int64()),
        ("doc_stride", pa.int64()),
        ("f1", pa.float64()),
        ("exact", pa.float64()),
    ]
)
COLUMNS = {
    "trial": pa.int64(),
    "kind": pa.string(),
    "seed": pa.int64(),
    "status": pa.string(),
    "is_winner": pa.bool_(),
    "cause": pa.string(),
    "total_tokens": pa.int64(),
    "num_tokens": pa.int64(),
    "exact": pa.float64(),
    "f1": pa.float64(),
    "eval_loss": pa.float64(),
    "null_threshold": pa.float64(),
    "best_max_length": pa.int64(),
    "best_doc_stride": pa.int64(),
    "best_score": pa.float64(),
    "train_seconds": pa.float64(),
    "score_seconds": pa.float64(),
    "times_halved": pa.int64(),
    "rungs": pa.list_(RUNG),
    "sizes": pa.list_(SIZE),
}


def results_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """The rows as a table; keys whose values are of several kinds are text."""
    arrays = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        try:
            arrays[name] = pa.array(values, COLUMNS.get(name))
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            arrays[name] = pa.array([json.dumps(value) for value in values])
    return pa.table(arrays)
