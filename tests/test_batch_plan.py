"""The batch plan: every feature once, equal steps, near-equal tokens, like lengths together."""

import numpy as np
import pytest
from numpy.typing import NDArray

from qa_core.batch_plan import (
    BatchSize,
    EpochPlan,
    check_ranks,
    count_steps,
    plan_digest,
    plan_epoch,
)
from qa_core.errors import ConfigError, DataError


def some_lengths(count: int) -> NDArray[np.int64]:
    """Lengths as of real windows: most middling, some at the limit."""
    drawn = np.random.default_rng(0).gamma(6.0, 30.0, count).astype(np.int64)
    return np.clip(drawn, 12, 384)


def sizes_for(world_size: int) -> list[BatchSize]:
    """Counted and filled micro-batches, with and without accumulation."""
    return [
        BatchSize(world_size, num_features=4),
        BatchSize(3 * world_size, num_features=2),
        BatchSize(world_size, num_tokens=1000),
        BatchSize(2 * world_size, num_tokens=384),
    ]


def shares_of(plan: EpochPlan, world_size: int) -> list[list[NDArray[np.int64]]]:
    """The features of each step on each rank."""
    none = np.zeros(0, np.int64)
    return [
        [
            np.concatenate([none, *plan.share(n, rank=rank, world_size=world_size).values()])
            for n in range(len(plan))
        ]
        for rank in range(world_size)
    ]


@pytest.mark.parametrize("num_features", [5, 7, 64, 1000])
@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_every_feature_once_an_epoch_at_any_world_size(num_features: int, world_size: int) -> None:
    """No feature is dropped or doubled, and every rank has the same number of steps."""
    lengths = some_lengths(num_features)
    for size in sizes_for(world_size):
        plan = plan_epoch(lengths, seed=1, epoch=0, batch_size=size)
        shares = shares_of(plan, world_size)
        seen = np.sort(np.concatenate([rows for share in shares for rows in share]))
        assert seen.tolist() == list(range(num_features))
        assert all(len(plan.step(number)) for number in range(len(plan)))
        steps = count_steps(lengths, seed=1, num_epochs=1, batch_size=size)
        assert {len(share) for share in shares} == set(steps)


def test_the_world_size_does_not_enter_a_plan() -> None:
    """One rank that accumulates six micro-batches takes the steps of two and of three ranks."""
    plan = plan_epoch(some_lengths(100), seed=1, epoch=0, batch_size=BatchSize(6, num_features=2))
    for number in range(len(plan)):
        whole = plan.share(number, rank=0, world_size=1)
        for world_size in (2, 3):
            parts: dict[int, NDArray[np.int64]] = {}
            for rank in range(world_size):
                parts |= plan.share(number, rank=rank, world_size=world_size)
            assert {n: r.tolist() for n, r in parts.items()} == {
                n: r.tolist() for n, r in whole.items()
            }


def test_plan_depends_on_seed_and_epoch_alone() -> None:
    """Same arguments, same plan; another epoch or seed, another order."""
    lengths = some_lengths(500)

    def flat(seed: int, epoch: int, size: BatchSize) -> list[int]:
        return plan_epoch(lengths, seed=seed, epoch=epoch, batch_size=size).rows.tolist()

    for size in sizes_for(2):
        assert flat(0, 0, size) == flat(0, 0, size)
        assert flat(0, 0, size) != flat(0, 1, size)
        assert flat(0, 0, size) != flat(1, 0, size)


@pytest.mark.parametrize("size", sizes_for(2))
def test_like_lengths_meet_so_little_is_padded(size: BatchSize) -> None:
    """Padding to the longest of a micro-batch stays below 5 %; in random batches it is a third."""
    lengths = some_lengths(20_000)
    plan = plan_epoch(lengths, seed=0, epoch=0, batch_size=size)
    padded = 0
    for number in range(len(plan)):
        for rows in plan.share(number, rank=0, world_size=1).values():
            padded += int(lengths[rows].max()) * len(rows)
    assert padded / lengths.sum() < 1.05


@pytest.mark.parametrize("size", sizes_for(3))
def test_ranks_have_nearly_the_same_tokens_in_a_step(size: BatchSize) -> None:
    """No rank waits: over an epoch, what the fullest rank has is within 6 % of the mean."""
    lengths = some_lengths(20_000)
    plan = plan_epoch(lengths, seed=0, epoch=0, batch_size=size)
    tokens = np.array(
        [[int(lengths[rows].sum()) for rows in share] for share in shares_of(plan, 3)]
    )  # (ranks, steps)
    assert tokens.max(axis=0).sum() / tokens.mean(axis=0).sum() < 1.06


def test_micro_batches_stay_within_the_budget_of_tokens() -> None:
    """Longest times count is at most the budget, so padded or packed it fits; and is well used."""
    lengths = some_lengths(5000)
    size = BatchSize(2, num_tokens=2048)
    plan = plan_epoch(lengths, seed=0, epoch=0, batch_size=size)
    costs = [
        int(lengths[rows].max()) * len(rows)
        for number in range(len(plan))
        for rows in plan.share(number, rank=0, world_size=1).values()
    ]
    assert max(costs) <= 2048
    assert np.mean(costs) > 0.9 * 2048


def test_a_feature_over_the_budget_is_refused() -> None:
    """The error says how long it is, and what to raise."""
    message = r"train.tokens_per_batch: a feature has 300 tokens, the budget is 200\. .*least 300"
    with pytest.raises(ConfigError, match=message):
        count_steps(
            np.array([10, 300]), seed=0, num_epochs=1, batch_size=BatchSize(1, num_tokens=200)
        )


def test_too_many_workers_and_no_features_are_refused() -> None:
    """Set-up errors, with the arithmetic."""
    with pytest.raises(DataError, match="no training features"):
        check_ranks(0, world_size=1, batch_size=BatchSize(1, 1))
    with pytest.raises(ConfigError, match="5 workers share 3 training features"):
        check_ranks(3, world_size=5, batch_size=BatchSize(5, 1))
    with pytest.raises(ConfigError, match="3 micro-batches in a step, 2 ranks"):
        check_ranks(30, world_size=2, batch_size=BatchSize(3, 1))


def test_a_plan_is_named_by_all_that_decides_it() -> None:
    """Lengths, seed and batch size are in the digest; the order of equal values is not guessed."""
    lengths, size = np.array([3, 4, 5]), BatchSize(2, 1)
    digest = plan_digest(lengths, seed=0, batch_size=size)
    assert digest == plan_digest(lengths.astype(np.int32), seed=0, batch_size=size)
    others = [
        plan_digest(lengths[::-1], seed=0, batch_size=size),
        plan_digest(lengths, seed=1, batch_size=size),
        plan_digest(lengths, seed=0, batch_size=BatchSize(1, 2)),
    ]
    assert len({digest, *others}) == 4
