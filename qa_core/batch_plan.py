"""plan: feature lengths → the steps of an epoch. The plan is data.

From (lengths, seed, epoch, batch size) follows which features are in which micro-batch of which
step. A micro-batch is what one rank computes at once; a step has the same number of them whatever
the number of ranks, so the plan depends on the global batch alone: two ranks with one micro-batch
each take the steps of one rank with two.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qa_core.errors import ConfigError, DataError
from qa_core.tokenizing import concatenated_ranges, splits_of

POOL_STEPS = 64  # steps' worth of shuffled features sorted by length together: little padding,
# while which features meet in a batch still changes from epoch to epoch


@dataclass(frozen=True)
class BatchSize:
    """How much a step holds: `num_features`, or else at most `num_tokens`, in a micro-batch.

    Tokens are counted with padding, as many times the longest feature as there are features, so
    that the budget bounds memory whether a micro-batch is padded or packed.
    """

    num_micro_batches: int  # in a step: ranks x gradient accumulation
    num_features: int = 0
    num_tokens: int = 0


@dataclass(frozen=True)
class EpochPlan:
    """The micro-batches of an epoch, step by step; of the last step some may be empty."""

    rows: NDArray[np.int64]  # (features,) numbers of features, micro-batch after micro-batch
    splits: NDArray[np.int64]  # (steps * num_micro_batches + 1,)
    num_micro_batches: int

    def __len__(self) -> int:
        """Steps."""
        return (len(self.splits) - 1) // self.num_micro_batches

    def step(self, number: int) -> NDArray[np.int64]:
        """The features of one step, over all ranks."""
        size = self.num_micro_batches
        first, end = self.splits[number * size], self.splits[(number + 1) * size]
        return self.rows[first:end]

    def share(self, step: int, *, rank: int, world_size: int) -> dict[int, NDArray[np.int64]]:
        """The micro-batches that a rank computes, every world_size-th, by their numbers.

        Empty ones are left out, so of the last step a rank's share may be empty.
        """
        first = step * self.num_micro_batches
        shares = {
            number: self.rows[self.splits[first + number] : self.splits[first + number + 1]]
            for number in range(rank, self.num_micro_batches, world_size)
        }
        return {number: rows for number, rows in shares.items() if len(rows)}


def plan_epoch(
    lengths: NDArray[np.int64], *, seed: int, epoch: int, batch_size: BatchSize
) -> EpochPlan:
    """The steps of an epoch over features of such lengths (tokens).

    Every feature is in exactly one micro-batch. Features of like lengths meet, the micro-batches
    of a step have nearly the same number of tokens, and the order of the steps is shuffled.
    Memory: some 40 bytes a feature while it is made, 8 afterwards.

    >>> plan = plan_epoch(np.array([5, 9, 5, 9]), seed=0, epoch=0, batch_size=BatchSize(2, 1))
    >>> [sorted(plan.step(number).tolist()) for number in range(len(plan))]
    [[0, 2], [1, 3]]
    """
    random = np.random.default_rng([seed, epoch])
    shuffled = random.permutation(len(lengths))
    size = batch_size.num_micro_batches
    if batch_size.num_tokens:
        rows, counts = _fill_by_tokens(shuffled, lengths[shuffled], batch_size)
    else:
        rows, counts = _deal_by_count(shuffled, lengths[shuffled], batch_size)
    counts = np.append(counts, np.zeros(-len(counts) % size, np.int64))
    order = random.permutation(len(counts) // size)  # of the steps
    micro_batch = (order[:, None] * size + np.arange(size)).reshape(-1)
    place = concatenated_ranges(splits_of(counts)[:-1][micro_batch], counts[micro_batch])
    return EpochPlan(rows[place], splits_of(counts[micro_batch]), size)


def _deal_by_count(
    rows: NDArray[np.int64], lengths: NDArray[np.int64], batch_size: BatchSize
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows micro-batch by micro-batch, and the size of each; `lengths` are those of `rows`.

    The features of a step, sorted by length, are dealt back and forth to its micro-batches.
    """
    size = batch_size.num_micro_batches
    in_step = size * batch_size.num_features
    place = np.arange(len(rows))
    order = np.lexsort((lengths, place // (POOL_STEPS * in_step)))  # by pool, then by length
    turn, seat = np.divmod(place % in_step, size)
    dealt = (place // in_step) * size + np.where(turn % 2, size - 1 - seat, seat)
    counts = np.bincount(dealt, minlength=-(-len(rows) // in_step) * size)
    return rows[order][np.argsort(dealt, kind="stable")], counts.astype(np.int64)


def _fill_by_tokens(
    rows: NDArray[np.int64], lengths: NDArray[np.int64], batch_size: BatchSize
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """As `_deal_by_count`, each micro-batch filled up to the budget of tokens."""
    budget = batch_size.num_tokens
    check_budget(int(lengths.max(initial=0)), budget)
    pool_tokens = POOL_STEPS * batch_size.num_micro_batches * budget
    pool = (np.cumsum(lengths) - lengths) // pool_tokens
    order = np.lexsort((lengths, pool))
    ordered, ends = lengths[order], np.append(np.flatnonzero(np.diff(pool)) + 1, len(rows))
    counts = []
    first = 0
    for end in ends:
        while first < end:
            candidates = ordered[first : min(end, first + budget // ordered[first])]
            cost = candidates * np.arange(1, len(candidates) + 1)  # rises: lengths do
            counts.append(int(np.searchsorted(cost, budget, side="right")))
            first += counts[-1]
    return rows[order], np.array(counts, np.int64)


def check_budget(longest: int, num_tokens: int) -> None:
    """Raise `ConfigError` where the longest feature alone is over the budget of a micro-batch."""
    if longest > num_tokens:
        raise ConfigError(
            f"a feature has {longest} tokens, the budget is {num_tokens}",
            where="train.tokens_per_batch",
            expected=f"at least {longest}",
            remedy="raise train.tokens_per_batch or lower features.max_length",
        )


def count_steps(
    lengths: NDArray[np.int64], *, seed: int, num_epochs: int, batch_size: BatchSize
) -> list[int]:
    """Steps of each epoch of `plan_epoch`; with a budget of tokens epochs differ a little."""
    if batch_size.num_tokens:
        epochs = range(num_epochs)
        return [len(plan_epoch(lengths, seed=seed, epoch=e, batch_size=batch_size)) for e in epochs]
    in_step = batch_size.num_micro_batches * batch_size.num_features
    return [-(-len(lengths) // in_step)] * num_epochs


def check_ranks(num_features: int, *, world_size: int, batch_size: BatchSize) -> None:
    """Raise where there are no features, fewer than ranks, or ranks do not share a step evenly."""
    if not num_features:
        raise DataError("there are no training features", "train", "at least one example")
    if world_size > num_features:
        raise ConfigError(
            f"{world_size} workers share {num_features} training features",
            where="scaling.num_workers",
            expected=f"at most {num_features}",
            remedy="lower scaling.num_workers",
        )
    if batch_size.num_micro_batches % world_size:
        raise ConfigError(
            f"{batch_size.num_micro_batches} micro-batches in a step, {world_size} ranks",
            where="batch plan",
            expected="a number of micro-batches that the ranks divide",
        )


def plan_digest(lengths: NDArray[np.int64], *, seed: int, batch_size: BatchSize) -> str:
    """Names a plan by all that decides it: 16 hexadecimal digits."""
    digest = hashlib.sha256(f"{seed} {batch_size} {POOL_STEPS}".encode())
    digest.update(lengths.astype(np.int64).tobytes())
    return digest.hexdigest()[:16]
