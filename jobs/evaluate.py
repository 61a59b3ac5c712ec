"""Evaluation: a trained model, or predictions made elsewhere, and a data set → official scores.

python -m jobs.evaluate --model runs/demo/model --data.dev dev.json --run_name dev-scores
python -m jobs.evaluate --predictions predictions.json --data.dev dev.json --run_name theirs
python -m jobs.evaluate --model runs/demo/model --max_length '[256, 384]' --doc_stride '[64, 128]'
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from jobs.artefacts import (
    begin_run,
    check_run,
    write_analysis,
    write_answers,
    write_json,
    write_plan,
    write_rejections,
    write_report,
)
from jobs.cluster import (
    absolute_storage,
    console,
    count_scorers,
    run_folder,
    run_job,
    wants_gpu,
)
from jobs.configuration import EvaluateConfig, FeatureSettings, parse_config
from jobs.console import show_analysis, show_page, show_scores, show_sizes, warn
from jobs.explored import explore_scored, write_explorer
from jobs.given_predictions import compare_runs, evaluate_predictions
from jobs.model_settings import (
    decoding_settings,
    model_limit,
    stored_settings,
    threshold_setting,
    threshold_words,
    window_settings,
)
from jobs.models import check_model, model_digest
from jobs.nodes import join_cluster
from jobs.prepare import find_split, input_digest, prepare_split
from jobs.prepared import Prepared, check_not_empty
from jobs.shard_scoring import Scored, score_prepared, summarize
from jobs.timings import Stages
from qa_core.analysis import analyse
from qa_core.errors import ConfigError, QAError
from qa_core.scoring import given_scores
from qa_core.storage import check_writable, join


@dataclass(frozen=True)
class SizeScores:
    """What the model makes of the data, cut into windows of one size."""

    prepared: Prepared
    scored: Scored
    metrics: dict[str, Any]
    folder: str  # of its answers


def main(arguments: Sequence[str] | None = None) -> None:
    """Score a model, or a file of predictions, on data.dev."""
    started = time.monotonic()
    config = parse_config(EvaluateConfig, arguments)
    check_asked(config)
    run = run_folder(config.storage_path, config.run_name)
    if config.predictions is None:
        evaluate_model(config, run)
    else:
        evaluate_predictions(config, run)
    console.print(f"Results: {run}\nDone in {time.monotonic() - started:.0f} s.", markup=False)
    show_page(run)


def check_asked(config: EvaluateConfig) -> None:
    """Raise `ConfigError` for settings that would do nothing."""
    if config.null_odds is not None and config.predictions is None:
        raise ConfigError(
            "null_odds without predictions",
            where="null_odds",
            expected="--predictions, the file they belong to (a model has odds of its own)",
        )
    if config.allow_missing and config.predictions is None and config.compare is None:
        raise ConfigError(
            "allow_missing without a file of predictions",
            where="allow_missing",
            expected="--predictions or --compare (a model answers every question)",
        )


def evaluate_model(config: EvaluateConfig, run: str) -> None:
    """Score a model with the windows asked for; the best become the run's files."""
    storage_path = absolute_storage(config.storage_path)
    split = find_split(config.data, "dev")
    stored = stored_settings(config.model)
    model, sizes = check_sizes(
        config.model, window_sizes(config, stored, model_limit(config.model))
    )
    check_writable(run)
    inputs = {"dev": input_digest(split, model), "model": model_digest(model)}
    check_run(run, config, inputs)
    stages = Stages()
    with stages.stage("joining the cluster"):
        join_cluster(storage_path, sources=split.sources, models=[model])
        use_gpu = wants_gpu(config.use_gpu)
        count_scorers(use_gpu=use_gpu)  # before any work
    with stages.stage("tokens and windows"):
        prepared = [prepare_split(split, model, size, storage_path) for size in sizes]
    for one in prepared:
        check_not_empty(one, "data.dev")
    begin_run(run, config, inputs)
    threshold, origin = threshold_setting(config, stored)
    with stages.stage("logits, decoding and scores"):
        found = [
            score_size(config, model, one, run, stored=stored, threshold=threshold, use_gpu=use_gpu)
            for one in prepared
        ]
    best = min(found, key=lambda one: (-one.metrics["f1"], one.prepared.num_tokens))
    if len(found) > 1:
        rows = [{**size_row(one), "is_best": one is best} for one in found]
        write_json(join(run, "windows.json"), rows)
        show_sizes(rows)
    with stages.stage("answers and analysis"):
        write_results(run, best)
    used = best.metrics.get("null_threshold")
    if threshold is None and used is not None:
        origin = "found on this data for the best F1 (the model has none)"
    console.print(threshold_words(used, origin), markup=False)
    if config.compare is not None:
        scores = given_scores(best.scored.scores, null_threshold=used)
        compare_runs(config, run, split, scores)
    stages.write(run)
    write_report(run)


def window_sizes(
    config: EvaluateConfig, stored: dict[str, Any], limit: int | None
) -> list[FeatureSettings]:
    """The sizes of windows asked for: every max_length with every doc_stride."""
    lengths, strides = (
        value if isinstance(value, list) else [value]
        for value in (config.max_length, config.doc_stride)
    )
    for name, values in (("max_length", lengths), ("doc_stride", strides)):
        if not values:
            raise ConfigError("an empty list", name, "one value at least, or null")
    pairs = dict.fromkeys(product(lengths, strides))
    return [window_settings(*pair, stored, limit=limit) for pair in pairs]


def check_sizes(
    name_or_path: str, sizes: Sequence[FeatureSettings]
) -> tuple[str, list[FeatureSettings]]:
    """The resolved model and those of `sizes` it can be used with; raises where there are none."""
    possible, problems = [], []
    for size in sizes:
        try:
            model = check_model(name_or_path, size)
        except QAError as error:
            problems.append(error)
        else:
            possible.append(size)
    if not possible:
        raise problems[0]
    for problem in problems:
        warn(f"left out: {problem}")
    return model, possible


def score_size(
    config: EvaluateConfig,
    model: str,
    prepared: Prepared,
    run: str,
    *,
    stored: dict[str, Any],
    threshold: float | None,
    use_gpu: bool,
) -> SizeScores:
    """The scores with windows of one size."""
    size = prepared.settings
    folder = join(run, "scoring", f"{size.max_length}-{size.doc_stride}")
    scored = score_prepared(
        model,
        prepared,
        out_folder=folder,
        decoding=decoding_settings(config, stored),
        language=config.scoring.language,
        has_null=prepared.has_unanswerable or threshold is not None,
        use_gpu=use_gpu,
    )
    return SizeScores(prepared, scored, summarize(scored, prepared, threshold), folder)


def size_row(one: SizeScores) -> dict[str, Any]:
    """A line of windows.json."""
    size, plan = one.prepared.settings, one.prepared.plan
    return {
        "max_length": size.max_length,
        "doc_stride": size.doc_stride,
        "num_windows": plan.num_windows,
        "num_tokens": plan.num_tokens,
        "num_cut": plan.num_cut,
        **one.metrics,
    }


def write_results(run: str, best: SizeScores) -> None:
    """The files of a run, and its scores on the terminal."""
    metrics, prepared = best.metrics, best.prepared
    threshold = metrics.get("null_threshold")
    write_rejections(run, [prepared])
    write_plan(run, {"dev": prepared})
    write_answers(run, prepared, scoring=best.folder, threshold=threshold)
    analysis = analyse(best.scored.scores, best.scored.facts, null_threshold=threshold)
    write_analysis(run, analysis)
    write_explorer(
        run, explore_scored(prepared, best.scored, scoring=best.folder, threshold=threshold)
    )
    write_json(join(run, "metrics.json"), metrics)
    show_scores(metrics, "Scores")
    show_analysis(analysis)


if __name__ == "__main__":
    run_job(main)
