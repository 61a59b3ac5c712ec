"""Packed batches: the losses and gradients of padded ones, for every family that can be packed."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from qa_core.batching import Batch, collate, padding_rules
from qa_core.fast_cpu import BitDropout, draw_mask, keep_freed_memory, speed_up_dropout
from qa_core.losses import span_losses
from qa_core.packing import PACKED, PackedAttention, pack_model
from qa_core.tokenizing import load_tokenizer
from qa_core.training import load_model, model_logits
from tests.test_training import make_features

SIZES = {
    "vocab_size": 1500,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 140,
    "pad_token_id": 0,
}
DISTILBERT = {
    "vocab_size": 1500,
    "dim": 32,
    "n_layers": 2,
    "n_heads": 2,
    "hidden_dim": 64,
    "max_position_embeddings": 140,
}
PACKABLE: dict[str, tuple[dict[str, Any], int]] = {
    "Bert": (SIZES, 0),
    "Electra": ({**SIZES, "embedding_size": 16}, 0),
    "Albert": ({**SIZES, "embedding_size": 16}, 0),
    "DistilBert": (DISTILBERT, 0),
    "Roberta": (SIZES, 1),  # counts positions from pad_token_id + 1
    "XLMRoberta": (SIZES, 1),
    "Camembert": (SIZES, 1),
}
MODERN_BERT = {"bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
NOT_PACKABLE: dict[str, dict[str, Any]] = {
    "MPNet": SIZES,  # attention of its own, with distances
    "DebertaV2": SIZES,
    "ModernBert": {**SIZES, **MODERN_BERT, "local_attention": 4},  # sees a few neighbours alone
}


def make_model(family: str, sizes: dict[str, Any]) -> Any:
    """A model of random weights, large enough that positions matter."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**sizes)
    model = transformers.AutoModelForQuestionAnswering.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    return model.eval()


def losses_and_gradients(model: Any, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The loss of each window and the gradient of their sum."""
    model.zero_grad()
    losses = span_losses(*model_logits(model, batch, None), batch)
    losses.sum().backward()  # type: ignore[no-untyped-call]
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return losses.detach(), found


@pytest.mark.parametrize("family", PACKABLE)
def test_packed_losses_and_gradients_equal_padded_ones(family: str, tiny_model: Path) -> None:
    """Within 1e-5, windows of different lengths in one batch; no place is padding."""
    from dataclasses import replace

    sizes, base = PACKABLE[family]
    features = make_features(tiny_model)
    rules = replace(padding_rules(load_tokenizer(str(tiny_model))), has_token_type_ids=False)
    model, rows = make_model(family, sizes), [3, 22, 0, 11]
    padded = collate(features, rows, rules)
    expected, gradients = losses_and_gradients(model, padded)
    assert padded.num_padding_tokens > 0
    found_base = pack_model(model)
    assert found_base == base
    assert model.config._attn_implementation == PACKED
    packed = collate(features, rows, replace(rules, packed_position=found_base))
    losses, packed_gradients = losses_and_gradients(model, packed)
    assert packed.num_padding_tokens == 0
    torch.testing.assert_close(losses, expected, atol=1e-5, rtol=1e-5)
    assert packed_gradients.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(packed_gradients[name], gradient, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("family", NOT_PACKABLE)
def test_a_model_that_cannot_be_packed_is_left_as_it_was(family: str) -> None:
    """Attention that is not the plain one is noticed, not computed wrongly."""
    model = make_model(family, NOT_PACKABLE[family])
    before = model.config._attn_implementation
    assert pack_model(model) is None
    assert model.config._attn_implementation == before
    model(input_ids=torch.tensor([[5, 6, 7]]))  # still works


def test_the_gradient_of_packed_attention_is_its_derivative() -> None:
    """Against finite differences in float64, without and with (the same) dropout."""
    torch.manual_seed(0)
    inputs = [torch.randn(1, 2, 7, 3, dtype=torch.float64, requires_grad=True) for _ in range(3)]

    def attention(dropout: float) -> Any:
        def call(*tensors: torch.Tensor) -> torch.Tensor:
            torch.manual_seed(5)
            found: torch.Tensor = PackedAttention.apply(*tensors, [0, 4, 7], 0.5, dropout)  # type: ignore[no-untyped-call]
            return found

        return call

    for dropout in (0.0, 0.3):
        assert torch.autograd.gradcheck(attention(dropout), inputs)


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.01])
def test_masks_drop_as_many_places_as_asked(probability: float) -> None:
    """Within five standard deviations, and neighbours are independent; any shape."""
    torch.manual_seed(1)
    mask = draw_mask(torch.Size([1001, 997]), probability)
    count = mask.numel()
    spread = 5 * (probability * (1 - probability) * count) ** 0.5
    assert abs(float((mask == 0).sum()) - probability * count) < spread
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    dropped = (mask.flatten() == 0).double()
    together = float((dropped[1:] * dropped[:-1]).mean())
    assert together == pytest.approx(probability**2, abs=5 * probability / count**0.5)


def test_dropout_keeps_the_mean_and_is_off_in_evaluation() -> None:
    """Kept places are scaled up; the same seed drops the same places; gradients follow."""
    layer = torch.nn.Sequential(torch.nn.Dropout(0.25), torch.nn.Sequential(torch.nn.Dropout(0.0)))
    speed_up_dropout(layer)
    assert [type(m) for m in layer.modules()].count(BitDropout) == 2
    ones = torch.ones(400, 500, requires_grad=True)
    torch.manual_seed(3)
    first = layer.train()(ones)
    torch.manual_seed(3)
    assert torch.equal(layer(ones), first)
    assert float(first.detach().mean()) == pytest.approx(1.0, abs=0.01)
    first.sum().backward()  # type: ignore[no-untyped-call]
    assert ones.grad is not None
    assert torch.equal(ones.grad, first.detach())
    assert torch.equal(layer.eval()(ones), ones)


def test_keeping_freed_memory_changes_no_result(tiny_model: Path) -> None:
    """It may be called at any time, more than once."""
    model = load_model(str(tiny_model), seed=0).eval()
    ids = torch.arange(5, 60)[None]
    before = model(input_ids=ids).start_logits
    keep_freed_memory()
    keep_freed_memory()
    assert torch.equal(model(input_ids=ids).start_logits, before)
