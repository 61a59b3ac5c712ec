"""The batch plan: every feature once, equal steps, like lengths together; and padding."""

import numpy as np
import pytest
import torch

from qa_core.batching import (
    collate,
    count_steps,
    feature_lengths,
    padding_rules,
    plan_epoch,
    rank_share,
)
from qa_core.features import build_features
from qa_core.inference import batches_by_length
from tests.tiny import TEXTS, make_examples, train_tokenizer


@pytest.mark.parametrize("num_features", [1, 7, 64, 1000])
@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_every_feature_once_an_epoch_at_any_world_size(num_features: int, world_size: int) -> None:
    """No feature is dropped or doubled, and every rank has the same number of steps."""
    lengths = np.random.default_rng(0).integers(5, 400, num_features)
    plan = plan_epoch(lengths, seed=1, epoch=0, global_batch_size=12)
    shares = [
        [rank_share(step, rank=rank, world_size=world_size) for step in plan]
        for rank in range(world_size)
    ]
    seen = np.sort(np.concatenate([rows for share in shares for rows in share]))
    assert seen.tolist() == list(range(num_features))
    assert {len(share) for share in shares} == {count_steps(num_features, global_batch_size=12)}


def test_plan_depends_on_seed_and_epoch_alone() -> None:
    """Same arguments, same plan; another epoch or seed, another order."""
    lengths = np.random.default_rng(0).integers(5, 400, 500)

    def flat(seed: int, epoch: int) -> list[int]:
        plan = plan_epoch(lengths, seed=seed, epoch=epoch, global_batch_size=8)
        return [int(row) for step in plan for row in step]

    assert flat(0, 0) == flat(0, 0)
    assert flat(0, 0) != flat(0, 1)
    assert flat(0, 0) != flat(1, 0)


def test_like_lengths_meet_so_little_is_padded() -> None:
    """Padding to the longest of a step stays below a tenth; in random batches it is a third."""
    lengths = np.random.default_rng(0).integers(20, 384, 4000)
    plan = plan_epoch(lengths, seed=0, epoch=0, global_batch_size=16)
    padded = sum(int(lengths[step].max()) * len(step) for step in plan)
    assert padded / lengths.sum() < 1.1


@pytest.mark.parametrize("family", ["wordpiece", "byte_bpe", "unigram_left"])
def test_padding_goes_where_the_family_wants_it(family: str) -> None:
    """Real tokens are kept in order, labels still point at the same tokens, masks match."""
    tokenizer = train_tokenizer(family)
    rows = [{"context": t, "question": "Who?", "answers": [(t[:3], 0)]} for t in TEXTS[:3]]
    features = build_features(
        make_examples(rows), tokenizer=tokenizer, max_length=96, doc_stride=16
    )
    rules = padding_rules(tokenizer)
    batch = collate(features, [2, 0, 1], rules)
    ids, mask = batch.inputs["input_ids"], batch.inputs["attention_mask"]
    assert ids.shape == (3, int(feature_lengths(features)[:3].max()))
    assert ("token_type_ids" in batch.inputs) == (family != "byte_bpe")
    for place, row in enumerate([2, 0, 1]):
        feature = features.slice(row, 1).to_pylist()[0]
        assert ids[place][mask[place].bool()].tolist() == feature["input_ids"]
        for name, positions in (
            ("start_positions", batch.start_positions),
            ("end_positions", batch.end_positions),
        ):
            assert ids[place][positions[place]] == feature["input_ids"][feature[name]]
        is_left = family == "unigram_left"
        assert mask[place][-1 if is_left else 0] == 1
    assert batch.num_padding_tokens == int((mask == 0).sum())
    assert torch.equal(ids == rules.pad_token_id, mask == 0)


def test_inference_batches_hold_every_row_once_within_the_budget() -> None:
    """Padded tokens never exceed the budget, but for a feature that is longer by itself."""
    lengths = np.array([3, 500, 20, 20, 7, 100, 99], np.int64)
    batches = batches_by_length(lengths, tokens_per_batch=200)
    assert sorted(int(row) for rows in batches for row in rows) == list(range(7))
    sizes = [int(lengths[rows].max()) * len(rows) for rows in batches]
    assert sizes[0] == 500
    assert all(size <= 200 for size in sizes[1:])
