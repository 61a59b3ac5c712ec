"""Logits come back a number a token, in the order of the features, however they were batched."""

from pathlib import Path

import numpy as np
import pytest
import torch

from qa_core import inference
from qa_core.batching import padding_rules
from qa_core.features import build_features
from qa_core.inference import predict_logits
from qa_core.tokenizing import load_tokenizer
from qa_core.training import load_model
from tests.tiny import TEXTS, make_examples

CPU = torch.device("cpu")


@pytest.mark.parametrize("tokens_per_batch", [1, 100, 8192])
def test_logits_are_those_of_single_windows(
    tiny_model: Path, tokens_per_batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In batches of any size: what the model says of the window alone."""
    monkeypatch.setattr(inference, "TOKENS_PER_BATCH", tokens_per_batch)
    tokenizer = load_tokenizer(str(tiny_model))
    contexts = [" ".join(TEXTS), TEXTS[0], "Orla", TEXTS[4] + " " + TEXTS[1]]
    examples = make_examples([{"context": c, "question": "Who opened it?"} for c in contexts])
    features = build_features(examples, tokenizer=tokenizer, max_length=48, doc_stride=12)
    assert len(features) > len(contexts)
    model = load_model(str(tiny_model), seed=0)
    model.eval()
    expected = []
    with torch.no_grad():
        for row in features.to_pylist():
            names = ("input_ids", "token_type_ids")
            outputs = model(**{name: torch.tensor([row[name]]) for name in names})
            expected.append(torch.stack([outputs.start_logits[0], outputs.end_logits[0]]))
    wanted = torch.cat(expected, dim=1).numpy()  # (2, tokens)
    found = predict_logits(model, features, rules=padding_rules(tokenizer), device=CPU)
    np.testing.assert_allclose(np.stack(found), wanted, atol=1e-6)
