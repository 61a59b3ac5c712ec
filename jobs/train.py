"""Fine-tuning: SQuAD data and an encoder → a scored question-answering model.

Tokens are made by `jobs.prepare`; TorchTrainer trains on `scaling.num_workers` processes; remote
tasks decode and score the dev data after each epoch while training goes on; the best checkpoint
becomes `storage_path/run_name/model`. Run again with the same name, it continues.

    python -m jobs.train --run_name mine --data.train train.json --data.dev dev.json
"""

import json
import sys
import time
from collections.abc import Sequence
from typing import Any

from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from rich.markup import escape

from jobs.artefacts import (
    ANALYSIS,
    REPORT,
    begin_run,
    check_run,
    save_model,
    write_analysis,
    write_answers,
    write_json,
    write_plan,
    write_rejections,
    write_report,
)
from jobs.cards import write_card
from jobs.cluster import (
    absolute_storage,
    check_workers,
    console,
    run_folder,
    run_job,
    wants_gpu,
    workers_need,
)
from jobs.configuration import TrainConfig, parse_config
from jobs.console import show_analysis, show_curve, show_page, show_scores
from jobs.explored import explore_scored, write_explorer
from jobs.hub import check_hub, push_model
from jobs.models import check_model, model_digest, resolve_model
from jobs.nodes import join_cluster
from jobs.prepare import (
    SPLITS,
    find_split,
    input_digest,
    prepare_split,
    warn_shared_contexts,
)
from jobs.scoring_beside import ScoringBeside, score_missing, stopped_at
from jobs.shard_scoring import METRICS, SCORING, load_scored, read_curve
from jobs.teaching import find_teacher
from jobs.timings import Stages
from jobs.token_pipeline import Split
from jobs.tracking import Trackers, check_secrets, check_trackers
from jobs.training_worker import TrainTask, check_batches, train_worker, worker_resources
from qa_core.analysis import analyse
from qa_core.checkpoints import CHECKPOINTS, find_checkpoints, read_history, step_name
from qa_core.curves import learning_curve
from qa_core.errors import QAError
from qa_core.storage import check_writable, is_file, join, read_bytes, write_json_lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, score and save a model."""
    started, stages = time.monotonic(), Stages()
    config = parse_config(TrainConfig, arguments)
    check_trackers(config.tracking)
    run = run_folder(config.storage_path, config.run_name)
    is_finished = is_file(join(run, METRICS))
    check_hub(config.hub, run, is_finished=is_finished)
    splits = [find_split(config.data, name) for name in SPLITS]
    model = check_model(config.model.name_or_path, config.features)
    inputs = {split.name: input_digest(split, model) for split in splits}
    inputs["model"] = model_digest(model)
    check_run(run, config, inputs)
    if is_finished:
        console.print(f"This run is finished already: [bold]{escape(run)}[/bold]")
        if not is_file(join(run, REPORT)):
            write_report(run)
        show_results(run)
        push_model(config.hub, run)
        show_page(run)
        return
    check_writable(run)
    teachers = [config.distillation.teacher] if config.distillation.teacher else []
    with stages.stage("joining the cluster"):
        watch = join_cluster(
            absolute_storage(config.storage_path),
            sources=[source for split in splits for source in split.sources],
            models=[model, *map(resolve_model, teachers)],
        )
        check_secrets(config.tracking)
        check_workers(config.scaling)
        watch.needed = workers_need(config.scaling)
    with stages.stage("tokens and windows"):
        task = prepare_task(config, splits, model, run)
    begin_run(run, config, inputs)
    with stages.stage("training"):
        train(task)
    finish(task, stages)
    show_results(run)
    push_model(config.hub, run)
    console.print(f"Done in {time.monotonic() - started:.0f} s.")
    show_page(run)


def prepare_task(config: TrainConfig, splits: Sequence[Split], model: str, run: str) -> TrainTask:
    """Tokens of both splits and all else that workers are told."""
    storage_path = absolute_storage(config.storage_path)
    train, dev = (prepare_split(split, model, config.features, storage_path) for split in splits)
    write_rejections(run, (train, dev))
    warn_shared_contexts(train, dev)
    check_batches(config, train)
    use_gpu = wants_gpu(config.scaling.use_gpu)
    return TrainTask(
        config,
        model,
        train,
        dev,
        run,
        use_gpu,
        is_terminal=sys.stdout.isatty(),
        teacher=find_teacher(config, train, use_gpu=use_gpu),
    )


def train(task: TrainTask) -> None:
    """Run, or continue, the training on Ray Train, its checkpoints scored beside it."""
    scaling = task.config.scaling
    console.print(
        f"Training on {scaling.num_workers} worker(s), "
        f"{'a GPU' if task.use_gpu else f'{scaling.cpus_per_worker} CPU'} each; "
        f"run folder [bold]{escape(task.run)}[/bold]"
    )
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={"task": task},
        scaling_config=ScalingConfig(
            num_workers=scaling.num_workers,
            use_gpu=task.use_gpu,
            resources_per_worker=worker_resources(task.config, use_gpu=task.use_gpu),
        ),
        run_config=RunConfig(
            name="ray",
            storage_path=task.run,
            failure_config=FailureConfig(
                max_failures=scaling.max_failures, controller_failure_limit=3
            ),
            logging_config=LoggingConfig(log_level="ERROR"),
        ),
    )
    with ScoringBeside(task):
        failure = (trainer.fit().return_value or {}).get("failure")
        if failure is not None:
            raise with_checkpoint(failure, task.run)


def with_checkpoint(error: QAError, run: str) -> QAError:
    """The error that ended a training, with the checkpoint that is left of it."""
    whole, _ = find_checkpoints(join(run, CHECKPOINTS))
    found, where, expected, remedy = error.args
    last = join(run, CHECKPOINTS, whole[-1].name) if whole else "none"
    return type(error)(found, where, expected, f"{remedy}; last good checkpoint: {last}")


def finish(task: TrainTask, stages: Stages) -> None:
    """Choose the best checkpoint by F1 and write the run's files.

    With metrics.json the run is finished; report.html is made from all of them.
    """
    run = task.run
    with stages.stage("scores that were missing"):
        score_missing(task)
    with stages.stage("answers and analysis"):
        write_results(task)
    stages.write(run)
    write_report(run)


def write_results(task: TrainTask) -> None:
    """The best checkpoint's answers, figures and model; metrics.json comes last."""
    config, run = task.config, task.run
    track_scores(task)
    write_events(run)
    metrics = best_scores(run)
    place = {f"best_{name}": metrics.pop(name) for name in ("epoch", "step")}
    name = step_name(place["best_step"])
    threshold = metrics.get("null_threshold")
    scoring = join(run, SCORING, name)
    write_plan(run, {"train": task.train, "dev": task.dev})
    write_answers(run, task.dev, scoring=scoring, threshold=threshold)
    scored = load_scored(scoring)
    write_explorer(run, explore_scored(task.dev, scored, scoring=scoring, threshold=threshold))
    analysis = analyse(scored.scores, scored.facts, null_threshold=threshold)
    write_analysis(run, analysis)
    save_model(
        run,
        checkpoint=join(run, CHECKPOINTS, name),
        max_length=config.features.max_length,
        doc_stride=config.features.doc_stride,
        decoding=config.decoding,
        null_threshold=threshold,
    )
    write_card(
        run,
        config,
        (task.train, task.dev),
        metrics=metrics,
        analysis=analysis,
        chosen=f"step {place['best_step']} (epoch {place['best_epoch']:g}), the best by F1",
    )
    write_json(join(run, METRICS), {**metrics, **place})


def track_scores(task: TrainTask) -> None:
    """Send the trackers the scores that came after the training had ended."""
    trackers = Trackers(task.config, run=task.run, first_step=None)
    trackers.log_scores()
    trackers.close()


def counted_scores(run: str) -> list[dict[str, Any]]:
    """The figures of all scored checkpoints, up to where early stopping ended the run."""
    stop = stopped_at(run)
    return [row for row in read_curve(run) if stop is None or row["step"] <= stop]


def best_scores(run: str) -> dict[str, Any]:
    """The figures of the scored and kept checkpoint with the highest F1; of equals, the first."""
    kept = {facts.step for facts in find_checkpoints(join(run, CHECKPOINTS))[0]}
    scored = [figures for figures in counted_scores(run) if figures["step"] in kept]
    return dict(min(scored, key=lambda figures: (-figures["f1"], figures["step"])))


def write_events(run: str) -> None:
    """metrics.jsonl: a line a step and a line a score."""
    scores = counted_scores(run)
    history = list(read_history(run, scores[-1]["step"]))
    events = [{"event": "step", **step} for step in history]
    events += [{"event": "score", **figures} for figures in scores]
    write_json_lines(join(run, "metrics.jsonl"), events)


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
    show_analysis(json.loads(read_bytes(join(run, ANALYSIS))))
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
