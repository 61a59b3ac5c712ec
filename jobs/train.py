"""Fine-tuning: SQuAD data and an encoder → a scored question-answering model.

Features are made by `jobs.prepare`; TorchTrainer trains on `scaling.num_workers` processes; after
each epoch remote tasks decode and score the dev data while training goes on; the best checkpoint
becomes `storage_path/run_name/model`. Run again with the same name, it continues.

    python -m jobs.train --run_name mine --data.train train.json --data.dev dev.json
"""

import json
import sys
import time
from collections.abc import Sequence
from typing import Any

from ray.train import (
    CheckpointConfig,
    FailureConfig,
    LoggingConfig,
    RunConfig,
    ScalingConfig,
    ValidationConfig,
)
from ray.train.torch import TorchTrainer
from rich.markup import escape

from jobs.artefacts import (
    begin_run,
    check_run,
    save_model,
    write_answers,
    write_json,
    write_rejections,
    write_report,
)
from jobs.cluster import (
    absolute_storage,
    check_workers,
    connect,
    console,
    run_folder,
    run_job,
    wants_gpu,
)
from jobs.configuration import TrainConfig, parse_config
from jobs.console import show_curve, show_scores
from jobs.models import check_model, model_digest
from jobs.prepare import (
    SPLITS,
    find_split,
    input_digest,
    prepare_split,
    warn_shared_contexts,
)
from jobs.shard_scoring import (
    epoch_name,
    read_curve,
    score_epoch,
    validate_checkpoint,
)
from jobs.token_pipeline import Split
from jobs.training_worker import HISTORY, TrainTask, train_worker
from qa_core.reporting import learning_curve
from qa_core.storage import (
    check_writable,
    is_directory,
    is_file,
    join,
    read_bytes,
    write_json_lines,
)

METRICS = "metrics.json"


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, score and save a model."""
    started = time.monotonic()
    config = parse_config(TrainConfig, arguments)
    run = run_folder(config.storage_path, config.run_name)
    splits = [find_split(config.data, name) for name in SPLITS]
    model = check_model(config.model.name_or_path, config.features)
    inputs = {split.name: input_digest(split, model) for split in splits}
    inputs["model"] = model_digest(model)
    check_run(run, config, inputs)
    if is_file(join(run, METRICS)):
        console.print(f"This run is finished already: [bold]{escape(run)}[/bold]")
        show_results(run)
        return
    check_writable(run)
    connect()
    check_workers(config.scaling)
    task = prepare_task(config, splits, model, run)
    begin_run(run, config, inputs)
    train(task)
    finish(task)
    show_results(run)
    console.print(f"Done in {time.monotonic() - started:.0f} s.")


def prepare_task(config: TrainConfig, splits: Sequence[Split], model: str, run: str) -> TrainTask:
    """Tokens of both splits and all else that workers are told."""
    storage_path = absolute_storage(config.storage_path)
    train, dev = (prepare_split(split, model, config.features, storage_path) for split in splits)
    write_rejections(run, (train, dev))
    warn_shared_contexts(train, dev)
    return TrainTask(
        config,
        model,
        train,
        dev,
        run,
        wants_gpu(config.scaling.use_gpu),
        is_terminal=sys.stdout.isatty(),
    )


def train(task: TrainTask) -> None:
    """Run, or continue, the training on Ray Train."""
    scaling = task.config.scaling
    console.print(
        f"Training on {scaling.num_workers} worker(s), "
        f"{'a GPU' if task.use_gpu else f'{scaling.cpus_per_worker} CPU'} each; "
        f"run folder [bold]{escape(task.run)}[/bold]"
    )
    resources = {"CPU": scaling.cpus_per_worker} | ({"GPU": 1} if task.use_gpu else {})
    TorchTrainer(
        train_worker,
        train_loop_config={"task": task},
        scaling_config=ScalingConfig(
            num_workers=scaling.num_workers,
            use_gpu=task.use_gpu,
            resources_per_worker=resources,
        ),
        run_config=RunConfig(
            name="checkpoints",
            storage_path=task.run,
            failure_config=FailureConfig(
                max_failures=scaling.max_failures, controller_failure_limit=3
            ),
            checkpoint_config=CheckpointConfig(num_to_keep=1, checkpoint_score_attribute="f1"),
            logging_config=LoggingConfig(log_level="ERROR"),
        ),
        # The task only waits for the pipeline it starts, which asks for CPUs of its own.
        validation_config=ValidationConfig(
            fn=validate_checkpoint, ray_remote_kwargs={"num_cpus": 0}
        ),
    ).fit()


def finish(task: TrainTask) -> None:
    """Choose the best epoch by F1 and write the run's files; metrics.json comes last."""
    config, run = task.config, task.run
    num_epochs = config.train.num_epochs
    score_missing(task)
    metrics = best_scores(run, num_epochs)
    best = metrics.pop("epoch")
    checkpoint = join(run, "checkpoints", epoch_name(best))
    scoring = join(run, "scoring", epoch_name(best))
    threshold = metrics.get("null_threshold")
    write_answers(run, task.dev, scoring=scoring, threshold=threshold)
    save_model(
        run,
        checkpoint=checkpoint,
        max_length=config.features.max_length,
        doc_stride=config.features.doc_stride,
        decoding=config.decoding,
        null_threshold=threshold,
    )
    curve = write_events(run, num_epochs)
    write_report(
        run,
        title=f"Run {config.run_name}",
        metrics=metrics,
        curve=curve,
        splits=(task.train, task.dev),
    )
    write_json(join(run, METRICS), {**metrics, "best_epoch": best})


def score_missing(task: TrainTask) -> None:
    """Score the checkpoints whose scoring beside the training failed, and say which are gone."""
    first = 0 if task.config.train.score_untrained else 1
    for epoch in range(first, task.config.train.num_epochs + 1):
        if is_file(join(task.run, "scoring", epoch_name(epoch), METRICS)):
            continue
        if not is_directory(join(task.run, "checkpoints", epoch_name(epoch))):
            console.print(f"[yellow]warning[/yellow]: epoch {epoch} could not be scored")
            continue
        score_epoch(
            task.run,
            task.dev,
            epoch=epoch,
            decoding=task.config.decoding,
            use_gpu=task.use_gpu,
        )


def best_scores(run: str, num_epochs: int) -> dict[str, Any]:
    """The figures of the scored and kept epoch with the highest F1; of equals, the first."""
    scored = [
        figures
        for figures in read_curve(run, num_epochs)
        if is_directory(join(run, "checkpoints", epoch_name(figures["epoch"])))
    ]
    return dict(min(scored, key=lambda figures: (-figures["f1"], figures["epoch"])))


def write_events(run: str, num_epochs: int) -> list[dict[str, Any]]:
    """metrics.jsonl, a line a step and a line a scored epoch; the learning curve of both."""
    last = join(run, "checkpoints", epoch_name(num_epochs))
    history = json.loads(read_bytes(join(last, HISTORY)))
    scores = read_curve(run, num_epochs)
    events = [{"event": "step", **step} for step in history]
    events += [{"event": "score", **figures} for figures in scores]
    write_json_lines(join(run, "metrics.jsonl"), events)
    return learning_curve(history, scores)


def show_results(run: str) -> None:
    """The curve, the scores, where the files are and what to do next."""
    lines = read_bytes(join(run, "metrics.jsonl")).decode().splitlines()
    events = [json.loads(line) for line in lines]
    history, scores = (
        [event for event in events if event["event"] == kind] for kind in ("step", "score")
    )
    curve = learning_curve(history, scores)
    metrics = json.loads(read_bytes(join(run, METRICS)))
    show_curve(curve)
    show_scores(metrics, "Best checkpoint on the dev data")
    untrained = [row["f1"] for row in curve if row["epoch"] == 0]
    if untrained and untrained[0] is not None:
        console.print(
            f"Dev F1 before training: [bold]{untrained[0]:.2f}[/bold], "
            f"after: [bold]{metrics['f1']:.2f}[/bold]"
        )
    console.print(
        f"\nResults: {run}\n"
        "  predictions.json, nbest_predictions.json, metrics.json, report.html\n"
        "  model/  loads with AutoModelForQuestionAnswering.from_pretrained\n"
        "Next:\n"
        f'  python -m jobs.predict --model {run}/model --ask "…" --context FILE\n'
        f"  python -m jobs.evaluate --model {run}/model --data.dev YOUR.json\n"
        "  python -m jobs.train --run_name NAME --data.train … --data.dev …",
        markup=False,
    )


if __name__ == "__main__":
    run_job(main)
