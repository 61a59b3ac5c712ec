"""What each training process of `jobs.train` does: feed the loop, report its checkpoints."""

import json
import logging
import os
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
import torch
from ray.experimental import tqdm_ray
from ray.train import Checkpoint, ValidationTaskConfig

from jobs.configuration import DecodingSettings, TrainConfig
from jobs.models import local_model
from jobs.prepared import Prepared, window_blocks
from jobs.shard_scoring import epoch_name
from jobs.token_store import cached_tokenizer
from qa_core.batching import padding_rules
from qa_core.feeding import WindowFeed
from qa_core.training import EpochDone, Process, StepDone, Trainer, TrainingSettings, load_model

HISTORY = "history.json"
SECONDS_OF_BAR = 0.5
SECONDS_OF_LINE = 15.0


@dataclass(frozen=True)
class TrainTask:
    """All that a training process is told."""

    config: TrainConfig
    model: str  # folder or Hub name to start from
    train: Prepared
    dev: Prepared
    run: str  # folder or URI of the run
    use_gpu: bool
    is_terminal: bool  # whether a person watches, so that a progress bar can be drawn


def train_worker(arguments: dict[str, Any]) -> None:
    """Train on one of the processes, from the last checkpoint where there is one."""
    task: TrainTask = arguments["task"]
    logging.getLogger("ray.train").setLevel(logging.WARNING)  # each report would be a line
    set_threads(task.config.scaling.threads_per_worker)
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        train_from(task, None)
        return
    with checkpoint.as_directory() as folder:
        train_from(task, Path(folder))


def train_from(task: TrainTask, folder: Path | None) -> None:
    """Train from a checkpoint's folder, or from the start."""
    trainer = make_trainer(task, folder)
    history = json.loads((folder / HISTORY).read_text()) if folder else []
    done = epoch_of(folder)
    progress = None
    if trainer.process.rank == 0:
        progress = Progress(trainer.num_steps, trainer.step, is_bar=task.is_terminal)
    for event in trainer.run():
        if isinstance(event, StepDone):
            history.append(asdict(event))
            if progress:
                progress.show(event)
        elif event.epoch > done and (event.epoch or task.config.train.score_untrained):
            report_epoch(task, trainer, event, history)
    if progress:
        progress.close()


def make_trainer(task: TrainTask, folder: Path | None) -> Trainer:
    """The loop's trainer, its state that of the checkpoint where there is one."""
    context = ray.train.get_context()
    config = task.config
    source = str(folder) if folder else local_model(task.model)
    trainer = Trainer(
        load_model(source, seed=config.train.seed, dropout=config.model.dropout),
        WindowFeed(window_blocks(task.train)),
        settings=training_settings(config),
        rules=padding_rules(cached_tokenizer(task.model)),
        process=Process(
            rank=context.get_world_rank(),
            world_size=context.get_world_size(),
            device=ray.train.torch.get_device() if task.use_gpu else torch.device("cpu"),
        ),
    )
    if folder:
        trainer.load_state(folder)
    return trainer


def training_settings(config: TrainConfig) -> TrainingSettings:
    """What of a configuration decides the course of the training."""
    train = config.train
    return TrainingSettings(
        num_epochs=train.num_epochs,
        global_batch_size=train.per_worker_batch_size * config.scaling.num_workers,
        learning_rate=train.learning_rate,
        warmup_ratio=train.warmup_ratio,
        weight_decay=train.weight_decay,
        max_grad_norm=train.max_grad_norm,
        seed=train.seed,
    )


def report_epoch(
    task: TrainTask, trainer: Trainer, event: EpochDone, history: list[dict[str, Any]]
) -> None:
    """Hand a checkpoint to Ray Train, which has it scored while the next steps run."""
    # Until it is scored, a checkpoint ranks below every scored one.
    metrics = {"epoch": event.epoch, "step": event.step, "f1": -1.0}
    name = epoch_name(event.epoch)
    if trainer.process.rank != 0:
        ray.train.report(metrics, checkpoint_dir_name=name)
        return
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        trainer.model.save_pretrained(folder)
        cached_tokenizer(task.model).save_pretrained(folder)
        trainer.save_state(folder)
        (folder / HISTORY).write_text(json.dumps(history))
        (folder / "epoch.json").write_text(json.dumps(metrics))
        ray.train.report(
            metrics,
            checkpoint=Checkpoint.from_directory(folder),
            checkpoint_dir_name=name,
            validation=ValidationTaskConfig(fn_kwargs=validation_arguments(task, event.epoch)),
        )


def validation_arguments(task: TrainTask, epoch: int) -> dict[str, Any]:
    """Arguments of `validate_checkpoint`."""
    decoding: DecodingSettings = task.config.decoding
    return {
        "run": task.run,
        "prepared_folder": task.dev.folder,
        "tokenizer": task.model,
        "features": asdict(task.dev.settings),
        "epoch": epoch,
        "decoding": asdict(decoding),
        "use_gpu": task.use_gpu,
    }


def epoch_of(folder: Path | None) -> int:
    """The epoch after which a checkpoint was made; -1 without a checkpoint."""
    return int(json.loads((folder / "epoch.json").read_text())["epoch"]) if folder else -1


def set_threads(threads_per_worker: int | None) -> None:
    """Give this process its threads: as configured, else its share of the node's cores."""
    share = (os.cpu_count() or 1) // ray.train.get_context().get_local_world_size()
    torch.set_num_threads(threads_per_worker or max(1, share))


class Progress:
    """How far rank 0 is: a bar on a terminal, now and then a line in a log."""

    def __init__(self, num_steps: int, step: int, *, is_bar: bool) -> None:
        self.shown = time.monotonic()
        self.bar = tqdm_ray.tqdm(total=num_steps, desc="train") if is_bar else None
        if self.bar:
            self.bar.update(step)
        self.step = step

    def show(self, event: StepDone) -> None:
        """Tell of a step, unless the last one told of is too recent."""
        interval = SECONDS_OF_BAR if self.bar else SECONDS_OF_LINE
        if time.monotonic() - self.shown < interval and event.step < event.num_steps:
            return
        self.shown = time.monotonic()
        text = f"epoch {event.epoch:.2f} loss {event.loss:.3f} lr {event.learning_rate:.1e}"
        if self.bar:
            self.bar.set_description(f"train {text}")
            self.bar.update(event.step - self.step)
        else:
            print(f"step {event.step}/{event.num_steps} {text}", flush=True)
        self.step = event.step

    def close(self) -> None:
        """Remove the bar."""
        if self.bar:
            self.bar.close()
