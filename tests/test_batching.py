"""Batches: padding where the family wants it, packing without any."""

import numpy as np
import pytest
import torch

from qa_core.batching import collate, feature_lengths, padding_rules
from qa_core.features import build_features
from qa_core.inference import batches_by_length
from tests.tiny import TEXTS, make_examples, train_tokenizer


@pytest.mark.parametrize("family", ["wordpiece", "byte_bpe", "unigram_left"])
def test_padding_goes_where_the_family_wants_it(family: str) -> None:
    """Real tokens are kept in order, masks match, and values go back to their windows."""
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
        assert batch.label_start[place] == feature["start_positions"]
        assert batch.label_end[place] == feature["end_positions"]
        is_left = family == "unigram_left"
        assert mask[place][-1 if is_left else 0] == 1
    spread = batch.by_window(ids.float())  # (batch, longest), each window from column 0
    for place, row in enumerate([2, 0, 1]):
        expected = features.slice(row, 1).to_pylist()[0]["input_ids"]
        assert spread[place][: len(expected)].tolist() == expected
        assert torch.isinf(spread[place][len(expected) :]).all()
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
