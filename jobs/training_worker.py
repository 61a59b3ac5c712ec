"""What each training process of `jobs.train` does: feed the loop, keep its checkpoints."""

import contextlib
import logging
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ray.train
import torch

from jobs.configuration import TrainConfig
from jobs.models import model_here
from jobs.node_copies import on_this_node
from jobs.prepared import Prepared, window_blocks
from jobs.progress import Progress
from jobs.ranks import Ranks, ranks_of_ray_train
from jobs.teaching import teacher_blocks
from jobs.token_store import cached_tokenizer
from jobs.tracking import StepValues, Trackers
from qa_core.batch_plan import BatchSize, check_budget, check_ranks
from qa_core.batching import padding_rules
from qa_core.checkpoints import (
    CHECKPOINTS,
    CheckpointFacts,
    CheckpointWriter,
    find_checkpoints,
)
from qa_core.errors import QAError, StorageError
from qa_core.fast_cpu import keep_freed_memory
from qa_core.feeding import WindowFeed
from qa_core.storage import is_file, join
from qa_core.training import StepDone, Trainer, TrainingSettings, load_model

STOP_FILE = "stop.json"  # written by the driver when scores no longer rise
POLL_SECONDS = 5.0  # between looks for a stop and for a notice of pre-emption
STOP, LOOK = 1, 2  # signals that rank 0 gives all ranks with a step


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
    teacher: str | None = None  # folder or URI of the teacher's logits


def train_worker(arguments: dict[str, Any]) -> dict[str, Any]:
    """Train on one of the processes, from the last checkpoint where there is one.

    Errors that all ranks meet alike (a loss that is no number, a checkpoint of other data), or
    that rank 0 made all ranks stop for, are returned as `failure`: raised, they would be taken for
    a lost worker and tried again.
    """
    task: TrainTask = arguments["task"]
    logging.getLogger("ray.train").setLevel(logging.WARNING)
    set_threads(task.config.scaling.threads_per_worker)
    keep_freed_memory()
    try:
        return {"failure": train_rank(task)}
    except StorageError:  # of this rank alone
        raise
    except QAError as error:
        return {"failure": error}


def train_rank(task: TrainTask) -> QAError | None:
    """Train on this rank until the last step or until rank 0 says stop; why, if it failed."""
    if is_file(join(task.run, STOP_FILE)):
        return None
    ranks = ranks_of_ray_train(use_gpu=task.use_gpu)
    start = last_checkpoint(task.run, ranks)
    trainer = make_trainer(task, start, ranks)
    keeper = None
    if ranks.process.rank == 0:
        every = task.config.train.score_every_steps
        keeper = Keeper(
            task,
            trainer,
            scored=score_steps(trainer.epoch_ends.tolist(), every),
            progress=Progress(trainer.num_steps, trainer.step, is_bar=task.is_terminal),
        )
    try:
        if keeper and start is None:
            keeper.begin()
        is_leaving = False
        for done in trainer.run():
            if keeper:
                keeper.after(done)
            if done.signal & LOOK and not is_leaving:
                is_leaving = ray.train.get_preemption_info() is not None
                if keeper and is_leaving:
                    print(f"a node is taken away: keeping step {done.step}", flush=True)
                    keeper.save_now(done)
            if done.signal & STOP:
                break
    finally:
        if keeper:
            keeper.close()
    return keeper.failure if keeper else None


def last_checkpoint(run: str, ranks: Ranks) -> CheckpointFacts | None:
    """The last whole checkpoint, the same one on every rank; None before the first."""
    whole, broken = find_checkpoints(join(run, CHECKPOINTS))
    names = [name for name in broken if not name.startswith(".")]
    found = whole[-1] if whole else None
    chosen: CheckpointFacts | None = ranks.from_first(found)
    if names and ranks.process.rank == 0:
        place = chosen.name if chosen else "the beginning"
        print(f"checkpoints not whole, ignored: {', '.join(names)}; going on from {place}")
    return chosen


def make_trainer(task: TrainTask, start: CheckpointFacts | None, ranks: Ranks) -> Trainer:
    """The loop's trainer, its state that of the checkpoint where there is one."""
    config = task.config
    folder = join(task.run, CHECKPOINTS, start.name) if start else task.model
    train = on_this_node(task.train, is_first=ranks.is_first_on_node, wait=ranks.wait)
    blocks = window_blocks(train)
    if task.teacher:
        blocks = teacher_blocks(blocks, train, task.teacher)
    with model_here(folder) as source:
        trainer = Trainer(
            load_model(source, seed=config.train.seed, dropout=config.model.dropout),
            WindowFeed(blocks),
            settings=training_settings(config),
            rules=padding_rules(cached_tokenizer(task.model)),
            process=ranks.process,
        )
        if start:
            trainer.load_state(Path(source))
    return trainer


def training_settings(config: TrainConfig) -> TrainingSettings:
    """What of a configuration decides the course of the training."""
    train, distillation = config.train, config.distillation
    return TrainingSettings(
        num_epochs=train.num_epochs,
        batch_size=batch_size(config),
        learning_rate=train.learning_rate,
        warmup_ratio=train.warmup_ratio,
        weight_decay=train.weight_decay,
        max_grad_norm=train.max_grad_norm,
        seed=train.seed,
        schedule=train.schedule,
        layer_decay=train.layer_decay,
        null_weight=train.null_weight,
        gradient_checkpointing=train.gradient_checkpointing,
        teacher_weight=distillation.weight if distillation.teacher else 0.0,
        teacher_temperature=distillation.temperature,
    )


def batch_size(config: TrainConfig) -> BatchSize:
    """The size of a step: workers x accumulation micro-batches of so many features or tokens."""
    train = config.train
    return BatchSize(
        num_micro_batches=config.scaling.num_workers * train.gradient_accumulation_steps,
        num_features=0 if train.tokens_per_batch else train.per_worker_batch_size,
        num_tokens=train.tokens_per_batch or 0,
    )


def check_batches(config: TrainConfig, train: Prepared) -> None:
    """Raise where the training windows cannot be dealt to the workers in such batches."""
    check_ranks(
        train.num_features,
        world_size=config.scaling.num_workers,
        batch_size=batch_size(config),
    )
    if config.train.tokens_per_batch:
        check_budget(train.longest, config.train.tokens_per_batch)


class Keeper:
    """What rank 0 does beside training: progress, checkpoints, and what others are told."""

    def __init__(
        self, task: TrainTask, trainer: Trainer, *, scored: set[int], progress: Progress | None
    ) -> None:
        self.task, self.trainer, self.progress = task, trainer, progress
        self.scored = scored  # steps after which the dev data is to be scored
        self.every = task.config.train.checkpoint_every_steps
        self.writer = CheckpointWriter(
            task.run,
            patience_seconds=task.config.scaling.storage_patience_seconds,
            tell=lambda text: print(f"warning: {text}", flush=True),
        )
        self.trackers = Trackers(task.config, run=task.run, first_step=trainer.step)
        self.values = StepValues()
        self.steps: list[dict[str, Any]] = []  # since the last checkpoint
        self.times: list[dict[str, Any]] = []  # of these
        self.polled = self.stepped = time.monotonic()
        self.failure: StorageError | None = None  # of keeping; ends the training on all ranks

    def begin(self) -> None:
        """Keep the untrained model, to be scored where that is asked for."""
        if self.task.config.train.score_untrained:
            self._save(CheckpointFacts(0, 0.0, is_scored=True))

    def after(self, done: StepDone) -> None:
        """Tell of a step, keep a checkpoint where one is due, signal what all ranks must do."""
        record = asdict(done)
        del record["signal"]  # comes by the clock
        self._time(done.step, record.pop("feed_seconds"))
        self.steps.append(record)
        if self.progress:
            self.progress.show(done)
        self.values.add(done)
        is_scored = done.step in self.scored
        is_kept = is_scored or bool(self.every and done.step % self.every == 0)
        if is_kept or self.values.is_due():
            self.trackers.log(done.step, self.values.take())
        if is_kept:
            self._save(CheckpointFacts(done.step, done.epoch, is_scored=is_scored))
        now = time.monotonic()
        if now - self.polled >= POLL_SECONDS:
            self.polled = now
            self.trackers.log_scores()
            self.trainer.signal = LOOK | (STOP if self._is_over() else 0)
        if self.failure:
            self.trainer.signal = STOP

    def _time(self, step: int, feed_seconds: float) -> None:
        """Note what a step took, from the end of the last one: also what is done between them."""
        before, self.stepped = self.stepped, time.monotonic()
        seconds = round(self.stepped - before, 4)
        feed = round(feed_seconds, 4)
        self.times.append({"step": step, "seconds": seconds, "feed_seconds": feed})

    def _is_over(self) -> bool:
        """Whether scores no longer rise, or the last checkpoint could not be written."""
        if self.writer.failed():
            return True
        try:
            return is_file(join(self.task.run, STOP_FILE))
        except StorageError:  # gone for the moment: checkpoints will tell if it stays away
            return False

    def save_now(self, done: StepDone) -> None:
        """Keep the state after `done` and wait until it is on storage."""
        if self.steps:  # else it was kept just now
            if self.values.num_features:
                self.trackers.log(done.step, self.values.take())
            self._save(CheckpointFacts(done.step, done.epoch, is_scored=False))
        with self._noting_failure():
            self.writer.wait()

    def close(self) -> None:
        """Wait for the last checkpoint, then for the trackers; remove the bar."""
        if self.progress:
            self.progress.close()
        with self._noting_failure():
            self.writer.close()
        self.trackers.close()

    def _save(self, facts: CheckpointFacts) -> None:
        if self.failure:
            return
        with self._noting_failure():
            self.writer.save(
                facts,
                model=self.trainer.model,
                state=self.trainer.state(),
                tokenizer=cached_tokenizer(self.task.model),
                steps=self.steps,
                times=self.times,
            )
            self.steps.clear()
            self.times.clear()

    @contextlib.contextmanager
    def _noting_failure(self) -> Iterator[None]:
        """Keeps an error of storage until all ranks have been told: raised, they would wait."""
        try:
            yield
        except StorageError as error:
            self.failure = self.failure or error


def score_steps(epoch_ends: Sequence[int], every: int | None) -> set[int]:
    """The steps after which the dev data is scored: every so many and the last, or each epoch's."""
    if every is None:
        return set(epoch_ends)
    return {*range(every, epoch_ends[-1], every), epoch_ends[-1]}


def set_threads(threads_per_worker: int | None) -> None:
    """Give this process its threads: as configured, else its share of the node's cores."""
    share = (os.cpu_count() or 1) // ray.train.get_context().get_local_world_size()
    torch.set_num_threads(threads_per_worker or max(1, share))


def worker_resources(config: TrainConfig, *, use_gpu: bool) -> dict[str, float]:
    """What Ray sets aside for one worker."""
    scaling = config.scaling
    gpus = {"GPU": scaling.gpus_per_worker} if use_gpu else {}
    return {"CPU": scaling.cpus_per_worker, **gpus}
