"""Evaluation: a trained model and a data set → predictions and official scores.

python -m jobs.evaluate --model runs/demo/model --data.dev dev.json --run_name dev-scores
"""

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from jobs.artefacts import (
    begin_run,
    check_run,
    write_answers,
    write_json,
    write_rejections,
    write_report,
)
from jobs.cluster import (
    absolute_storage,
    connect,
    console,
    count_scorers,
    run_folder,
    run_job,
    wants_gpu,
)
from jobs.configuration import (
    DecodingSettings,
    EvaluateConfig,
    FeatureSettings,
    parse_config,
)
from jobs.console import show_scores
from jobs.models import check_model, load_model_config, model_digest, resolve_model
from jobs.prepare import find_split, input_digest, prepare_split
from jobs.shard_scoring import score_prepared, summarize
from qa_core.answering import SETTINGS_KEY
from qa_core.storage import check_writable, join


def main(arguments: Sequence[str] | None = None) -> None:
    """Score a model on data.dev."""
    started = time.monotonic()
    config = parse_config(EvaluateConfig, arguments)
    storage_path = absolute_storage(config.storage_path)
    run = run_folder(config.storage_path, config.run_name)
    split = find_split(config.data, "dev")
    stored = stored_settings(config.model)
    features = window_settings(config, stored)
    model = check_model(config.model, features)
    check_writable(run)
    inputs = {"dev": input_digest(split, model), "model": model_digest(model)}
    check_run(run, config, inputs)
    connect()
    use_gpu = wants_gpu(config.use_gpu)
    count_scorers(use_gpu=use_gpu)  # before any work
    prepared = prepare_split(split, model, features, storage_path)
    begin_run(run, config, inputs)
    write_rejections(run, [prepared])
    scoring = join(run, "scoring")
    given = config.null_threshold
    threshold = stored.get("null_threshold") if given is None else given
    scored = score_prepared(
        model,
        prepared,
        out_folder=scoring,
        decoding=decoding_settings(config, stored),
        has_null=prepared.has_unanswerable or threshold is not None,
        use_gpu=use_gpu,
    )
    metrics = summarize(scored, prepared, threshold)
    write_answers(run, prepared, scoring=scoring, threshold=metrics.get("null_threshold"))
    write_report(
        run,
        title=f"Evaluation {config.run_name}",
        metrics=metrics,
        curve=[],
        splits=[prepared],
    )
    write_json(join(run, "metrics.json"), metrics)
    show_scores(metrics, "Scores")
    console.print(_threshold_origin(given, stored, metrics))
    done = f"Results: {run}\nDone in {time.monotonic() - started:.0f} s."
    console.print(done, markup=False)


def stored_settings(model: str) -> dict[str, Any]:
    """Windows, decoding and null threshold stored with a model of ours; {} for others."""
    config = load_model_config(resolve_model(model))
    return dict(getattr(config, SETTINGS_KEY, None) or {})


def window_settings(config: EvaluateConfig, stored: dict[str, Any]) -> FeatureSettings:
    """Window sizes: as configured, else as the model was trained, else the defaults."""
    default = FeatureSettings()
    max_length, doc_stride = config.max_length, config.doc_stride
    return FeatureSettings(
        max_length=max_length or stored.get("max_length", default.max_length),
        doc_stride=stored.get("doc_stride", default.doc_stride)
        if doc_stride is None
        else doc_stride,
    )


def decoding_settings(config: EvaluateConfig, stored: dict[str, Any]) -> DecodingSettings:
    """How to decode: as configured, else as the model was scored in training, else the defaults."""
    chosen = {}
    for name, default in asdict(DecodingSettings()).items():
        configured = getattr(config, name)
        chosen[name] = stored.get(name, default) if configured is None else configured
    return DecodingSettings(**chosen)


def _threshold_origin(given: float | None, stored: dict[str, Any], metrics: dict[str, Any]) -> str:
    """In words, where the null threshold came from."""
    if "null_threshold" not in metrics:
        return "Null threshold: none; the best span is given for every question (v1.1)."
    origin = "found on this data for the best F1 (the model has none)"
    if stored.get("null_threshold") is not None:
        origin = "stored with the model"
    if given is not None:
        origin = "as configured"
    return f"Null threshold: {metrics['null_threshold']:.4g}, {origin}."


if __name__ == "__main__":
    run_job(main)
