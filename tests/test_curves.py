"""Learning curves: a row where there is a score or an epoch ends."""

from typing import Any

import pytest

from qa_core.curves import learning_curve


def step(number: int, epoch: float, loss: float, num_features: int) -> dict[str, Any]:
    """A training step's record."""
    return {
        "step": number,
        "epoch": epoch,
        "loss": loss,
        "num_features": num_features,
        "num_tokens": 90,
        "num_padding_tokens": 10,
    }


def test_curve_has_a_row_an_epoch_with_the_mean_loss_over_features() -> None:
    """An uneven last batch weighs what it holds; an epoch without a score has a row, too."""
    history = [step(1, 0.5, 4.0, 3), step(2, 1.0, 2.0, 1), step(3, 1.5, 1.0, 3), step(4, 2.0, 1, 3)]
    scores = [
        {"step": 0, "epoch": 0.0, "eval_loss": 6.0, "exact": 1.0, "f1": 2.0},
        {"step": 2, "epoch": 1.0, "eval_loss": 3.0, "exact": 30.0, "f1": 40.0},
    ]
    rows = learning_curve(history, scores)
    assert [row["epoch"] for row in rows] == [0, 1, 2]
    assert (rows[0]["loss"], rows[0]["f1"], rows[0]["step"]) == (None, 2.0, 0)
    assert rows[1]["loss"] == pytest.approx(3.5)
    assert (rows[1]["num_tokens"], rows[1]["padding_share"]) == (180, pytest.approx(0.1))
    assert (rows[1]["eval_loss"], rows[1]["f1"]) == (3.0, 40.0)
    assert (rows[2]["step"], rows[2]["f1"]) == (4, None)


def test_curve_has_a_row_for_a_score_within_an_epoch() -> None:
    """Its loss is of the steps since the row before; steps after the last row have none."""
    history = [step(1, 0.25, 4.0, 1), step(2, 0.5, 2.0, 1), step(3, 0.75, 7.0, 1)]
    scores = [{"step": 1, "epoch": 0.25, "f1": 5.0}, {"step": 2, "epoch": 0.5, "f1": 6.0}]
    rows = learning_curve(history, scores)
    assert [(row["epoch"], row["loss"], row["f1"]) for row in rows] == [
        (0.25, 4.0, 5.0),
        (0.5, 2.0, 6.0),
    ]
