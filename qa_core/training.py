"""train: batches → a trained model. One loop for one process or many, with no cluster in it.

The gradient of a step is that of the mean loss over its features on all ranks: it depends
neither on the world size nor on how evenly the step divides. Every micro-batch draws its dropout
from (seed, step, its number), so random states need not be kept: a run resumed at a step goes on
as if it had not stopped, at the same world size bit for bit on CPUs. On GPUs two equal runs differ
by rounding, resumed or not: kernels there add up in no fixed order.
"""

import contextlib
import hashlib
import math
import time
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from qa_core.batch_plan import (
    BatchSize,
    EpochPlan,
    check_ranks,
    count_steps,
    plan_digest,
    plan_epoch,
)
from qa_core.batching import Batch, PaddingRules, collate, feature_lengths
from qa_core.errors import ModelError, QAError, first_line
from qa_core.fast_cpu import speed_up_dropout
from qa_core.feeding import WindowFeed
from qa_core.losses import distillation_losses, span_losses
from qa_core.optimizing import parameter_groups
from qa_core.packing import pack_model
from qa_core.replicas import average_rows, replicate, word_embeddings

STATE_FILE = "training_state.pt"
STEPS_AHEAD = 2  # steps whose batches are made before they are needed
IDS_SHOWN = 64  # of the features an error is about

StepBatches = tuple[int, dict[int, Batch]]  # a step's number in its epoch; by micro-batch


@dataclass(frozen=True)
class TrainingSettings:
    """What decides the course of a training, apart from the model and the features."""

    num_epochs: int
    batch_size: BatchSize
    learning_rate: float
    warmup_ratio: float
    weight_decay: float
    max_grad_norm: float
    seed: int
    schedule: Literal["linear", "cosine"] = "linear"
    layer_decay: float = 1.0
    null_weight: float = 1.0  # of the loss of a window labelled "no answer"
    gradient_checkpointing: bool = False
    teacher_weight: float = 0.0  # part of the loss that is the teacher's
    teacher_temperature: float = 1.0


@dataclass(frozen=True)
class Process:
    """Which of the processes of a training this one is."""

    rank: int = 0
    world_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


@dataclass(frozen=True)
class StepDone:
    """A step of the optimizer; the numbers are of all ranks together."""

    step: int  # from 1, over all epochs
    num_steps: int
    epoch: float  # epochs done, fractional
    loss: float  # mean over the step's features
    learning_rate: float  # that the step was made with; of layers, the head's
    num_features: int
    num_tokens: int  # real ones
    num_padding_tokens: int
    signal: int = 0  # sum of what the ranks had put into `Trainer.signal` before the step
    feed_seconds: float = field(default=0.0, compare=False)  # this rank waited for its batches


class Trainer:
    """A model in training: optimizer, schedule and step, on one rank of `process.world_size`.

    With more than one rank, torch.distributed must be initialised; all ranks must build, run and
    load alike. On a CPU batches are packed where the model can be (`qa_core.packing`); on a GPU
    they are padded, in bfloat16 or, where the GPU has none, float16.
    """

    def __init__(
        self,
        model: Any,
        features: pa.Table | WindowFeed,
        *,
        settings: TrainingSettings,
        rules: PaddingRules,
        process: Process,
    ) -> None:
        from transformers import get_scheduler  # a second or two to import

        check_ranks(len(features), world_size=process.world_size, batch_size=settings.batch_size)
        self.settings, self.process = settings, process
        self.features, self.lengths = features, feature_lengths(features)
        self.model = model.to(process.device)
        self.rules = rules
        if process.device.type == "cpu":
            self.rules = replace(rules, packed_position=pack_model(self.model))
            speed_up_dropout(self.model)
        if settings.gradient_checkpointing:
            self.model.gradient_checkpointing_enable({"use_reentrant": False})
        self._replica = self.model
        if process.world_size > 1:
            self._replica = replicate(self.model)
        steps = count_steps(
            self.lengths,
            seed=settings.seed,
            num_epochs=settings.num_epochs,
            batch_size=settings.batch_size,
        )
        self.epoch_ends = np.cumsum(steps)  # (epochs,) steps done when an epoch is
        self.num_steps = int(self.epoch_ends[-1])
        self.optimizer = torch.optim.AdamW(
            parameter_groups(
                self.model,
                learning_rate=settings.learning_rate,
                weight_decay=settings.weight_decay,
                layer_decay=settings.layer_decay,
            ),
            lr=settings.learning_rate,
            fused=True,
        )
        self.schedule = get_scheduler(
            settings.schedule,
            self.optimizer,
            num_warmup_steps=math.ceil(settings.warmup_ratio * self.num_steps),
            num_training_steps=self.num_steps,
        )
        self.half = _half_type(process.device)
        self.scaler = torch.amp.GradScaler(process.device.type, enabled=self.half is torch.float16)
        self.step = 0
        self.signal = 0  # summed over ranks with the next step's loss and told in its StepDone

    def run(self) -> Iterator[StepDone]:
        """Train from the present step to the last, telling of each step when it is done."""
        self.model.train()
        while self.step < self.num_steps:
            epoch = int(np.searchsorted(self.epoch_ends, self.step, side="right"))
            begin = int(self.epoch_ends[epoch - 1]) if epoch else 0
            plan = plan_epoch(
                self.lengths,
                seed=self.settings.seed,
                epoch=epoch,
                batch_size=self.settings.batch_size,
            )
            with contextlib.closing(self.feed(plan, self.step - begin)) as shares:
                asked = time.monotonic()
                for number, batches in shares:
                    waited = time.monotonic() - asked
                    done = self._train_step(plan, number, batches, epoch)
                    yield replace(done, feed_seconds=waited)
                    asked = time.monotonic()

    def feed(self, plan: EpochPlan, first: int) -> Generator[StepBatches, None, None]:
        """The number of each step of an epoch from `first` on, and this rank's batches of it.

        A thread makes them ahead of their use.
        """
        with ThreadPoolExecutor(1, thread_name_prefix="feed") as pool:
            made: deque[Future[StepBatches]] = deque()
            for number in range(first, len(plan)):
                made.append(pool.submit(self._collate_share, plan, number))
                if len(made) > STEPS_AHEAD:
                    yield made.popleft().result()
            for future in made:
                yield future.result()

    def _collate_share(self, plan: EpochPlan, number: int) -> StepBatches:
        process = self.process
        share = plan.share(number, rank=process.rank, world_size=process.world_size)
        batches = {place: collate(self.features, rows, self.rules) for place, rows in share.items()}
        if process.device.type == "cuda":
            batches = {place: batch.pin_memory() for place, batch in batches.items()}
        return number, batches

    def _train_step(
        self, plan: EpochPlan, number: int, batches: dict[int, Batch], epoch: int
    ) -> StepDone:
        rows = plan.step(number)
        totals = self._accumulate(rows, batches)
        loss = totals[0] / len(rows)
        learning_rate = float(max(self.schedule.get_last_lr()))
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.max_grad_norm)
        self._check_finite(loss, norm, rows)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return StepDone(
            step=self.step,
            num_steps=self.num_steps,
            epoch=epoch + (number + 1) / len(plan),
            loss=loss,
            learning_rate=learning_rate,
            num_features=len(rows),
            num_tokens=int(totals[1]),
            num_padding_tokens=int(totals[2]),
            signal=int(totals[3]),
        )

    def _accumulate(self, rows: Any, batches: dict[int, Batch]) -> list[float]:
        """Gradients of a step; its loss, real and padding tokens and signal, summed over ranks."""
        counts = [
            sum(int(batch.lengths.sum()) for batch in batches.values()),
            sum(batch.num_padding_tokens for batch in batches.values()),
            self.signal,
        ]
        self.signal = 0
        # A rank without a feature in this step still takes part, with a feature of weight 0.
        weight = 1.0 if batches else 0.0
        batches = batches or {self.process.rank: collate(self.features, rows[:1], self.rules)}
        loss_sum = torch.zeros((), dtype=torch.float64, device=self.process.device)
        last = max(batches)
        for place, batch in batches.items():
            seed_micro_batch(self.settings.seed, self.step, place)
            is_synchronised = place == last or self.process.world_size == 1
            with contextlib.nullcontext() if is_synchronised else self._replica.no_sync():
                loss = self.losses(batch.to(self.process.device)).sum() * weight
                # DistributedDataParallel averages gradients over ranks, hence the factor.
                scaled = self.scaler.scale(loss * (self.process.world_size / len(rows)))
                scaled.backward()  # type: ignore[no-untyped-call]
            loss_sum += loss.detach()
        totals = torch.tensor([0.0, *counts], dtype=torch.float64, device=self.process.device)
        totals[0] = loss_sum
        if self.process.world_size > 1:
            words = word_embeddings(self.model).grad
            if words is not None:  # else they are frozen, on all ranks
                average_rows(words, world_size=self.process.world_size)
            torch.distributed.all_reduce(totals)
        values: list[float] = totals.tolist()
        return values

    def losses(self, batch: Batch) -> torch.Tensor:
        """Loss of each feature of a batch on this rank's device, weights included, (batch,)."""
        settings = self.settings
        start, end = model_logits(self._replica, batch, self.half)
        losses = span_losses(start, end, batch)
        if batch.teacher is not None and settings.teacher_weight:
            teacher = batch.spread(batch.teacher[0]), batch.spread(batch.teacher[1])
            softened = distillation_losses(
                start, end, teacher, temperature=settings.teacher_temperature
            )
            losses = losses * (1 - settings.teacher_weight) + softened * settings.teacher_weight
        if settings.null_weight != 1:
            losses = losses * torch.where(batch.is_null, settings.null_weight, 1.0)
        return losses

    def _check_finite(self, loss: float, norm: torch.Tensor, rows: Any) -> None:
        """Raise where loss or gradient is no number, before the weights are spoilt."""
        # A float16 gradient may overflow: the scaler then skips the step and scales less.
        is_fine = self.scaler.is_enabled() or math.isfinite(float(norm))
        if math.isfinite(loss) and is_fine:
            return
        raise QAError(
            f"the loss is {loss}, the gradient's norm {float(norm)} at step {self.step + 1}",
            where=f"training, batch of features {feature_names(self.features, rows)}",
            expected="finite numbers",
            remedy="lower train.learning_rate, or look at these examples",
        )

    @cached_property
    def facts(self) -> dict[str, str]:
        """Digests of what a checkpoint can only be continued with: the model's shape, the plan."""
        shapes = [f"{name} {tuple(p.shape)}" for name, p in self.model.named_parameters()]
        return {
            "model": hashlib.sha256("\n".join(shapes).encode()).hexdigest()[:16],
            "plan": plan_digest(
                self.lengths, seed=self.settings.seed, batch_size=self.settings.batch_size
            ),
            "num_steps": str(self.num_steps),
        }

    def state(self) -> dict[str, Any]:
        """What `load_state` needs besides the model itself; tensors are those in use."""
        return {
            "step": self.step,
            "facts": self.facts,
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def load_state(self, folder: Path) -> None:
        """Go on from the step at which `state` was saved in `folder`, the model's weights loaded.

        Raises `ModelError` where it is a checkpoint of another model, of other data or of another
        batch plan, or cannot be read.
        """
        try:
            state = torch.load(
                folder / STATE_FILE, map_location=self.process.device, weights_only=True
            )
            found = state["facts"]
        except Exception as error:  # a damaged file raises errors of many kinds
            raise _foreign(folder, f"cannot be read ({first_line(error)})") from error
        differing = [name for name in self.facts if self.facts[name] != found.get(name)]
        if differing:
            raise _foreign(folder, f"was made with another {' and another '.join(differing)}")
        try:
            self.optimizer.load_state_dict(state["optimizer"])
        except (KeyError, ValueError) as error:
            raise _foreign(folder, f"does not fit ({first_line(error)})") from error
        self.schedule.load_state_dict(state["schedule"])
        self.scaler.load_state_dict(state["scaler"])
        self.step = state["step"]


def _foreign(folder: Path, found: str) -> ModelError:
    return ModelError(
        f"the checkpoint {found}",
        where=str(folder),
        expected="a checkpoint of this model, data, seed and batch size",
        remedy="start a run of another name",
    )


def model_logits(
    model: nn.Module, batch: Batch, half: torch.dtype | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Start and end logits of a batch by window, (batch, longest) each, in float32 at least."""
    device = batch.place.device.type
    with torch.autocast(device, dtype=half, enabled=half is not None):
        outputs = model(**batch.inputs)
    start, end = outputs.start_logits, outputs.end_logits
    if start.dtype in (torch.bfloat16, torch.float16):
        start, end = start.float(), end.float()
    return batch.by_window(start), batch.by_window(end)


def _half_type(device: torch.device) -> torch.dtype | None:
    """The type of a GPU's products: bfloat16, float16 where it has none; None on a CPU."""
    if device.type != "cuda":
        return None
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


def feature_names(features: pa.Table | WindowFeed, rows: Any) -> str:
    """Ids of features, example_id#window_index, the first `IDS_SHOWN` of them."""
    picked = features.take(np.asarray(rows[:IDS_SHOWN], np.int64))
    pairs = zip(picked["example_id"].to_pylist(), picked["window_index"].to_pylist(), strict=True)
    more = f" and {len(rows) - IDS_SHOWN} more" if len(rows) > IDS_SHOWN else ""
    return ", ".join(f"{example}#{index}" for example, index in pairs) + more


def seed_micro_batch(seed: int, step: int, number: int) -> None:
    """Set torch's random numbers to those of one micro-batch of one step."""
    torch.manual_seed(int(np.random.SeedSequence([seed, step, number]).generate_state(1)[0]))


def load_model(name_or_path: str, *, seed: int, dropout: float | None = None) -> Any:
    """The model with a span head; a head the checkpoint lacks is drawn from `seed`.

    `dropout` replaces every dropout probability of the model's configuration; None keeps them.
    """
    from transformers import AutoConfig, AutoModelForQuestionAnswering

    try:
        config = AutoConfig.from_pretrained(name_or_path)
        if dropout is not None:
            for name in [n for n in config.to_dict() if "dropout" in n]:
                setattr(config, name, dropout)
        torch.manual_seed(seed)
        return AutoModelForQuestionAnswering.from_pretrained(
            name_or_path, config=config, dtype=torch.float32
        )
    except Exception as error:  # a damaged file raises errors of many kinds
        raise ModelError(
            f"cannot be loaded ({first_line(error)})",
            where=name_or_path,
            expected="a folder or name that AutoModelForQuestionAnswering loads",
            remedy="check the path, or the network for a Hub name",
        ) from error
