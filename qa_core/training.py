"""train: batches → a trained model. One loop for one process or many, with no cluster in it.

The gradient of a step is that of the mean loss over its features on all ranks: it depends
neither on the world size nor on how evenly the step divides. Every step draws its dropout from
(seed, step, rank), so a run resumed at a step goes on as if it had not stopped.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from qa_core.batching import (
    Batch,
    PaddingRules,
    collate,
    count_steps,
    feature_lengths,
    plan_epoch,
    rank_share,
)
from qa_core.errors import DataError, ModelError, QAError, first_line
from qa_core.feeding import WindowFeed

STATE_FILE = "training_state.pt"


@dataclass(frozen=True)
class TrainingSettings:
    """What decides the course of a training, apart from the model and the features."""

    num_epochs: int
    global_batch_size: int
    learning_rate: float
    warmup_ratio: float
    weight_decay: float
    max_grad_norm: float
    seed: int


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
    learning_rate: float  # that the step was made with
    num_features: int
    num_tokens: int  # real ones
    num_padding_tokens: int


@dataclass(frozen=True)
class EpochDone:
    """All features were seen once more; `epoch` 0 comes before the first step."""

    epoch: int
    step: int


class Trainer:
    """A model in training: optimizer, schedule and step, on one rank of `process.world_size`.

    With more than one rank, torch.distributed must be initialised; all ranks must build, run,
    save and load alike.
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

        if not len(features):
            raise DataError("there are no training features", "train", "at least one example")
        self.settings, self.rules, self.process = settings, rules, process
        self.features, self.lengths = features, feature_lengths(features)
        self.model = model.to(process.device)
        is_alone = process.world_size == 1
        self._replica = self.model if is_alone else DistributedDataParallel(self.model)
        self.steps_per_epoch = count_steps(
            len(features), global_batch_size=settings.global_batch_size
        )
        self.num_steps = self.steps_per_epoch * settings.num_epochs
        self.optimizer = torch.optim.AdamW(
            decay_groups(self.model, settings.weight_decay),
            lr=settings.learning_rate,
            fused=True,
        )
        self.schedule = get_scheduler(
            "linear",
            self.optimizer,
            num_warmup_steps=math.ceil(settings.warmup_ratio * self.num_steps),
            num_training_steps=self.num_steps,
        )
        self.step = 0

    def run(self) -> Iterator[StepDone | EpochDone]:
        """Train from the present step to the last, telling of each step and epoch when done."""
        self.model.train()
        if self.step == 0:
            yield EpochDone(0, 0)
        for epoch in range(self.step // self.steps_per_epoch, self.settings.num_epochs):
            plan = plan_epoch(
                self.lengths,
                seed=self.settings.seed,
                epoch=epoch,
                global_batch_size=self.settings.global_batch_size,
            )
            for rows in plan[self.step - epoch * self.steps_per_epoch :]:
                yield self._train_step(rows)
            yield EpochDone(epoch + 1, self.step)

    def _train_step(self, rows: NDArray[np.int64]) -> StepDone:
        share = rank_share(rows, rank=self.process.rank, world_size=self.process.world_size)
        # A rank without a feature in this step still takes part, with a feature of weight 0.
        batch = collate(self.features, share if len(share) else rows[:1], self.rules)
        seed_step(self.settings.seed, self.step, self.process.rank)
        losses = batch_losses(self._replica, batch, self.process.device)  # (batch,)
        loss_sum = losses.sum() * float(len(share) > 0)
        # DistributedDataParallel averages gradients over ranks, hence the factor.
        (loss_sum * self.process.world_size / len(rows)).backward()  # type: ignore[no-untyped-call]
        totals = self._sum_over_ranks(batch, loss_sum.detach(), is_counted=len(share) > 0)
        loss = totals[0] / len(rows)
        self._check_loss(loss, rows)
        nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.max_grad_norm)
        learning_rate = float(self.schedule.get_last_lr()[0])
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return StepDone(
            step=self.step,
            num_steps=self.num_steps,
            epoch=self.step / self.steps_per_epoch,
            loss=loss,
            learning_rate=learning_rate,
            num_features=len(rows),
            num_tokens=int(totals[1]),
            num_padding_tokens=int(totals[2]),
        )

    def _sum_over_ranks(
        self, batch: Batch, loss_sum: torch.Tensor, *, is_counted: bool
    ) -> list[float]:
        """Loss, real tokens and padding tokens of the step, summed over ranks."""
        counts = [batch.lengths.sum(), batch.num_padding_tokens] if is_counted else [0, 0]
        totals = torch.tensor([float(loss_sum), *map(float, counts)], dtype=torch.float64)
        if self.process.world_size > 1:
            totals = totals.to(self.process.device)
            torch.distributed.all_reduce(totals)
        values: list[float] = totals.tolist()
        return values

    def _check_loss(self, loss: float, rows: NDArray[np.int64]) -> None:
        if math.isfinite(loss):
            return
        names = self.features.take(rows[:8])["example_id"].to_pylist()
        raise QAError(
            f"the loss is {loss} at step {self.step + 1}",
            where=f"training, batch of examples {', '.join(names)}",
            expected="a finite loss",
            remedy="lower train.learning_rate, or look at these examples",
        )

    def save_state(self, folder: Path) -> None:
        """Write what `load_state` needs besides the model itself."""
        state = {
            "step": self.step,
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
        }
        torch.save(state, folder / STATE_FILE)

    def load_state(self, folder: Path) -> None:
        """Go on from the step at which `save_state` was called with the same settings."""
        try:
            state = torch.load(
                folder / STATE_FILE, map_location=self.process.device, weights_only=True
            )
            self.optimizer.load_state_dict(state["optimizer"])
        except Exception as error:  # a damaged file raises errors of many kinds
            raise ModelError(
                f"the checkpoint cannot be continued from ({error})",
                where=str(folder),
                expected="a checkpoint of this model, data and settings",
                remedy="start a run of another name",
            ) from error
        self.schedule.load_state_dict(state["schedule"])
        self.step = state["step"]


def batch_losses(model: nn.Module, batch: Batch, device: torch.device) -> torch.Tensor:
    """Loss of each feature: mean of the cross entropies of its start and its end, (batch,).

    Padding is no candidate, so a loss does not depend on what the feature is batched with.
    """
    inputs = {name: tensor.to(device) for name, tensor in batch.inputs.items()}
    is_cuda = device.type == "cuda"
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=is_cuda):
        outputs = model(**inputs)
    is_padding = inputs["attention_mask"] == 0  # (batch, length)
    losses = [
        cross_entropy(
            logits.float().masked_fill(is_padding, -math.inf),
            positions.to(device),
            reduction="none",
        )
        for logits, positions in (
            (outputs.start_logits, batch.start_positions),
            (outputs.end_logits, batch.end_positions),
        )
    ]
    return (losses[0] + losses[1]) / 2


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups of AdamW: no decay on biases and on the scales of norms."""
    trained = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]


def seed_step(seed: int, step: int, rank: int) -> None:
    """Set torch's random numbers to those of one step on one rank."""
    torch.manual_seed(int(np.random.SeedSequence([seed, step, rank]).generate_state(1)[0]))


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
