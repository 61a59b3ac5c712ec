"""batch: features → batches. The plan is data; padding happens here and nowhere else.

From (feature lengths, seed, epoch, batch size, world size) follows which features are in which
step on which rank: each exactly once an epoch, the same number of steps on every rank.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from qa_core.feeding import WindowFeed

POOL_STEPS = 64  # steps' worth of shuffled features sorted by length together: little padding,
# while which features meet in a batch still changes from epoch to epoch


@dataclass(frozen=True)
class PaddingRules:
    """What a model's inputs look like: read off its tokenizer once (`padding_rules`)."""

    pad_token_id: int
    pad_token_type_id: int
    is_left: bool
    has_token_type_ids: bool


@dataclass(frozen=True)
class Batch:
    """Features padded to the longest of them."""

    inputs: dict[str, torch.Tensor]  # input_ids, attention_mask, perhaps token_type_ids (b, l)
    start_positions: torch.Tensor  # (batch,) token in the padded window
    end_positions: torch.Tensor  # (batch,) inclusive
    lengths: NDArray[np.int64]  # (batch,) real tokens

    @property
    def num_padding_tokens(self) -> int:
        """Places of the batch that hold no token."""
        return int(self.inputs["input_ids"].numel() - self.lengths.sum())


def plan_epoch(
    lengths: NDArray[np.int64], *, seed: int, epoch: int, global_batch_size: int
) -> list[NDArray[np.int64]]:
    """The features (their numbers) of each step of an epoch, over all ranks together.

    Every feature is in exactly one step; every step but one has `global_batch_size` of them.
    Features of like lengths meet; the order of the steps is shuffled. World size does not enter:
    `rank_share` divides a step. Memory: 16 bytes a feature.
    """
    random = np.random.default_rng([seed, epoch])
    shuffled = random.permutation(len(lengths))
    pool = POOL_STEPS * global_batch_size
    pools = [shuffled[first : first + pool] for first in range(0, len(shuffled), pool)]
    ordered = [part[np.argsort(lengths[part], kind="stable")] for part in pools]
    steps = [
        part[first : first + global_batch_size]
        for part in ordered
        for first in range(0, len(part), global_batch_size)
    ]
    return [steps[number] for number in random.permutation(len(steps))]


def count_steps(num_features: int, *, global_batch_size: int) -> int:
    """Steps of an epoch of `plan_epoch`."""
    return -(-num_features // global_batch_size)


def rank_share(step: NDArray[np.int64], *, rank: int, world_size: int) -> NDArray[np.int64]:
    """The features of a step that `rank` computes: every world_size-th, so lengths are alike.

    >>> rank_share(np.array([4, 7, 1]), rank=1, world_size=2).tolist()
    [7]
    """
    return step[rank::world_size]


def padding_rules(tokenizer: Any) -> PaddingRules:
    """How inputs of the tokenizer's model are padded."""
    pad_token_id = tokenizer.pad_token_id
    return PaddingRules(
        pad_token_id=0 if pad_token_id is None else int(pad_token_id),
        pad_token_type_id=int(tokenizer.pad_token_type_id),
        is_left=tokenizer.padding_side == "left",
        has_token_type_ids="token_type_ids" in tokenizer.model_input_names,
    )


def feature_lengths(features: pa.Table | WindowFeed) -> NDArray[np.int64]:
    """Tokens of each feature, (features,)."""
    if isinstance(features, WindowFeed):
        return features.lengths
    return np.asarray(pc.list_value_length(features["input_ids"])).astype(np.int64)


def collate(
    features: pa.Table | WindowFeed, rows: Sequence[int] | NDArray[np.int64], rules: PaddingRules
) -> Batch:
    """The features at `rows` as tensors, padded to the longest of them."""
    picked = features.take(np.asarray(rows, np.int64))
    ids = picked["input_ids"].combine_chunks()
    lengths = np.asarray(ids.value_lengths()).astype(np.int64)  # (batch,)
    is_real = _real_places(lengths, is_left=rules.is_left)  # (batch, longest)
    inputs = {
        "input_ids": _padded(ids, is_real, rules.pad_token_id),
        "attention_mask": torch.from_numpy(is_real.astype(np.int64)),
    }
    if rules.has_token_type_ids:
        types = picked["token_type_ids"].combine_chunks()
        inputs["token_type_ids"] = _padded(types, is_real, rules.pad_token_type_id)
    shift = is_real.shape[1] - lengths if rules.is_left else np.zeros_like(lengths)
    start, end = (
        torch.from_numpy(np.asarray(picked[name]).astype(np.int64) + shift)
        for name in ("start_positions", "end_positions")
    )
    return Batch(inputs, start, end, lengths)


def _real_places(lengths: NDArray[np.int64], *, is_left: bool) -> NDArray[np.bool_]:
    """Which places of the padded batch hold a token, (batch, longest)."""
    place = np.arange(int(lengths.max(initial=0)))
    mask: NDArray[np.bool_] = place[None, :] < lengths[:, None]
    return mask[:, ::-1] if is_left else mask


def _padded(values: pa.ListArray, is_real: NDArray[np.bool_], padding: int) -> torch.Tensor:
    flat = np.asarray(values.flatten())
    padded = np.full(is_real.shape, padding, np.int64)
    padded[is_real] = flat
    return torch.from_numpy(padded)
