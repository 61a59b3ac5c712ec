"""Losses: run_qa's mean of cross entropies, the marginal over several answers, a teacher's."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from qa_core.batching import Batch
from qa_core.inference import window_losses
from qa_core.losses import distillation_losses, span_losses
from tests.test_training import make_features

LOGITS = torch.tensor([[0.0, 2.0, 1.0, -1.0], [3.0, 0.0, 0.5, -torch.inf]])
OTHER = torch.tensor([[1.0, -2.0, 0.3, 0.0], [0.1, 0.2, 0.3, -torch.inf]])


def batch_of(spans: list[tuple[int, int, int]]) -> Batch:
    """Two windows, of 4 and 3 tokens, with such spans (row, start, end)."""
    row, start, end = torch.tensor(spans).T.contiguous()
    return Batch({}, np.array([4, 3]), torch.arange(7), row, start, end, torch.zeros(2).bool())


def test_one_span_a_window_is_the_mean_of_two_cross_entropies() -> None:
    """As run_qa computes it, padding left out."""
    losses = span_losses(LOGITS, OTHER, batch_of([(0, 1, 2), (1, 0, 0)]))
    start = cross_entropy(LOGITS, torch.tensor([1, 0]), reduction="none")
    end = cross_entropy(OTHER, torch.tensor([2, 0]), reduction="none")
    torch.testing.assert_close(losses, (start + end) / 2)


def test_several_spans_are_worth_their_probabilities_together() -> None:
    """-log(p1 + p2) / 2 by hand; a window with one span keeps its loss."""
    losses = span_losses(LOGITS, OTHER, batch_of([(0, 1, 2), (0, 2, 2), (1, 0, 0)]))
    start, end = LOGITS.softmax(-1), OTHER.softmax(-1)
    likelihood = float(start[0, 1] * end[0, 2] + start[0, 2] * end[0, 2])
    assert float(losses[0]) == pytest.approx(-math.log(likelihood) / 2)
    assert float(losses[1]) == pytest.approx(-math.log(float(start[1, 0] * end[1, 0])) / 2)
    alone = span_losses(LOGITS, OTHER, batch_of([(0, 1, 2), (1, 0, 0)]))
    assert losses[0] < alone[0]
    torch.testing.assert_close(losses[1], alone[1])


def test_gradients_are_finite_beside_padding() -> None:
    """Places without a token get no gradient, and spoil none."""
    start, end = LOGITS.clone().requires_grad_(), OTHER.clone().requires_grad_()
    batch = batch_of([(0, 1, 2), (0, 3, 3), (1, 0, 0)])
    losses = span_losses(start, end, batch)
    losses = losses + distillation_losses(start, end, (OTHER, LOGITS), temperature=2.0)
    losses.sum().backward()  # type: ignore[no-untyped-call]
    for tensor in (start, end):
        assert tensor.grad is not None
        assert torch.isfinite(tensor.grad).all()
        assert tensor.grad[1, 3] == 0


def test_a_teacher_is_no_distance_from_itself() -> None:
    """0 for equal logits, else the divergence by hand, whatever the temperature."""
    same = distillation_losses(LOGITS, OTHER, (LOGITS, OTHER), temperature=3.0)
    torch.testing.assert_close(same, torch.zeros(2))
    found = distillation_losses(LOGITS, LOGITS, (OTHER, OTHER), temperature=2.0)
    student, teacher = (LOGITS[0] / 2).softmax(-1), (OTHER[0] / 2).softmax(-1)
    expected = float((teacher * (teacher / student).log()).sum()) * 4
    assert float(found[0]) == pytest.approx(expected, rel=1e-5)


def test_the_loss_of_logits_is_that_of_training(tiny_model: Path) -> None:
    """numpy's over flat logits equals torch's over a batch."""
    features = make_features(tiny_model)
    lengths = [len(ids) for ids in features["input_ids"].to_pylist()]
    start, end = np.random.default_rng(0).normal(size=(2, sum(lengths))).astype(np.float32)
    losses = window_losses(features, start, end)
    assert len(losses) == 23
    splits = np.cumsum([0, *lengths])
    for row in range(23):
        window = features.slice(row, 1).to_pylist()[0]
        parts = [
            cross_entropy(
                torch.tensor(logits[splits[row] : splits[row + 1]])[None],
                torch.tensor([window[name]]),
            )
            for logits, name in ((start, "start_positions"), (end, "end_positions"))
        ]
        assert losses[row] == pytest.approx(float(sum(parts)) / 2, rel=1e-5)
    assert len(window_losses(features.slice(0, 0), start[:0], end[:0])) == 0
