"""Intervals hold the mean of new samples as often as they claim, and never depend on order."""

import numpy as np
import pytest

from qa_core import intervals
from qa_core.intervals import PairedDifference, bootstrap_interval, compare_paired


def test_same_seed_same_bytes_in_any_order() -> None:
    """Shards in another order change nothing; another seed does, a little."""
    values = np.random.default_rng(0).random(300).round(2)
    first = bootstrap_interval(values, seed=3)
    assert first == bootstrap_interval(values[::-1], seed=3)
    assert first != bootstrap_interval(values, seed=4)
    assert first == pytest.approx(bootstrap_interval(values, seed=4), abs=0.02)
    assert first[0] < values.mean() < first[1]


def test_interval_of_shares_is_that_of_resampling_rows() -> None:
    """Against drawing the rows themselves, and the normal approximation."""
    values = (np.arange(500) % 5 == 0).astype(float)  # a fifth is right
    found = bootstrap_interval(values, num_resamples=4000)
    rows = np.random.default_rng(1).integers(0, len(values), (4000, len(values)))
    assert found == pytest.approx(np.percentile(values[rows].mean(axis=1), [2.5, 97.5]), abs=0.004)
    wide = 1.96 * np.sqrt(0.2 * 0.8 / 500)
    assert found == pytest.approx((0.2 - wide, 0.2 + wide), abs=0.004)


def test_chunks_do_not_change_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded without another result."""
    values = np.random.default_rng(0).random(50)
    whole = bootstrap_interval(values, num_resamples=101)
    monkeypatch.setattr(intervals, "COUNTS_PER_CHUNK", 7 * 50)
    assert bootstrap_interval(values, num_resamples=101) == whole


def test_about_95_of_100_intervals_hold_the_true_mean() -> None:
    """The claim itself, over 200 samples of a known mean."""
    random = np.random.default_rng(0)
    samples = [random.random(80) for _ in range(200)]
    pairs = [bootstrap_interval(sample, num_resamples=300) for sample in samples]
    share = np.mean([low <= 0.5 <= high for low, high in pairs])
    assert 0.9 <= share <= 0.99


def test_one_value_has_no_width() -> None:
    """One example, or all alike."""
    assert bootstrap_interval(np.array([0.25])) == (0.25, 0.25)
    assert bootstrap_interval(np.ones(20)) == (1.0, 1.0)


def test_pairs_show_what_single_intervals_hide() -> None:
    """Two systems that differ on the same few questions: their own intervals overlap widely."""
    others = (np.arange(400) % 2).astype(float)
    values = others.copy()
    values[:20:2] = 1.0  # ten more right, none lost
    found = compare_paired(values, others)
    assert found.difference == pytest.approx(10 / 400)
    assert found.low > 0
    assert found.is_distinguishable
    assert bootstrap_interval(values)[0] < bootstrap_interval(others)[1]


def test_chance_and_no_difference_are_not_distinguishable() -> None:
    """As many won as lost, and a system beside itself."""
    values, others = np.tile([1.0, 0.0], 50), np.tile([0.0, 1.0], 50)
    assert not compare_paired(values, others).is_distinguishable
    assert compare_paired(values, values) == PairedDifference(0.0, 0.0, 0.0)
    assert not compare_paired(values, values).is_distinguishable
    assert PairedDifference(-2.0, -3.0, -1.0).is_distinguishable
