"""The end of a sweep: the winner's files, a table of all trials, and how sure it all is."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from jobs.artefacts import (
    save_model,
    write_analysis,
    write_answers,
    write_json,
    write_plan,
    write_rejections,
)
from jobs.cards import write_card
from jobs.configuration import FeatureSettings, SweepConfig
from jobs.explored import explore_scored, write_explorer
from jobs.leg import scored_windows, scoring_folder
from jobs.prepared import Prepared
from jobs.shard_scoring import Scored, load_scored, score_prepared, summarize
from jobs.space import with_point
from jobs.sweep_inputs import SweepInputs
from jobs.sweep_table import Legs, best_score, best_windows, read_legs, results_table, trial_row
from jobs.trial import trial_config, trial_folder
from qa_core.analysis import NOT_DISTINGUISHABLE, analyse, compare_scores
from qa_core.checkpoints import CHECKPOINTS, find_checkpoints
from qa_core.halving import Sweep, Trial
from qa_core.scoring import GivenScores, given_scores
from qa_core.search_space import same_point
from qa_core.sensitivity import key_sensitivities
from qa_core.storage import join, write_parquet

SWEEP, TABLE, METRICS = "sweep.json", "results.parquet", "metrics.json"


@dataclass(frozen=True)
class Chosen:
    """A trial's last checkpoint with the windows it does best with, scored on all dev questions."""

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
    """Write the winner's files and the results; with metrics.json the sweep is finished."""
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
    write_explorer(
        run,
        explore_scored(chosen.dev, chosen.scored, scoring=chosen.folder, threshold=threshold),
    )
    analysis = analyse(chosen.scored.scores, chosen.scored.facts, null_threshold=threshold)
    write_analysis(run, analysis)
    size, default = chosen.dev.settings, sweep.default_trial()
    save_model(
        run,
        checkpoint=chosen.checkpoint,
        max_length=size.max_length,
        doc_stride=size.doc_stride,
        decoding=with_point(config, best.point).decoding,
        null_threshold=threshold,
    )
    train = inputs.find(best.point).train
    write_card(
        run,
        trial_config(config, best.point, best.seed),
        (train, chosen.dev),
        metrics=chosen.metrics,
        analysis=analysis,
        chosen=f"trial {best.number}, the best of a sweep, at its last checkpoint",
        remarks=remarks(sweep, config, winner),
    )
    write_rejections(run, [train, chosen.dev])
    write_plan(run, {"train": train, "dev": chosen.dev})
    values = [best_score(trial, legs, metric) for trial in seeds]
    found = {
        "tune": asdict(config.tune),
        "metric": metric,
        "keys": list(inputs.space),
        "rungs": list(sweep.rules.rungs),
        "winner": best.number,
        "default_trial": default.number if default else None,
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
    rows = [trial_row(trial, legs, metric=metric, is_winner=trial is best) for trial in order]
    write_parquet(join(run, TABLE), results_table(rows))
    write_json(join(run, METRICS), {**chosen.metrics, "trial": best.number})


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
    config = with_point(inputs.config, trial.point)
    size = scored_windows(config.features)
    row = best_windows(trial, legs, inputs.config.tune.metric)
    if row is not None:
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
    return Chosen(checkpoint, dev, out_folder, scored, summarize(scored, dev, None))


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
        if same_point(other.point, inputs.default()):  # it has windows of its own
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
    if found["verdict"] == NOT_DISTINGUISHABLE:
        words = NOT_DISTINGUISHABLE
    return {"trial": other.number, "when": when, **found, "words": words}


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
