"""Which null windows stay depends on the seed, the example and the window, and on nothing else."""

import numpy as np
import pytest
from numpy.typing import NDArray

from qa_core.features import LabelledWindows
from qa_core.sampling import hash_to_unit, keep_null_windows
from qa_core.windowing import Layout, Windows

PER_EXAMPLE = 4


def labelled(num_examples: int, *, held: int | None = 0) -> LabelledWindows:
    """Four windows an example, CLS last (token 9); window `held` of each is labelled 3 to 5."""
    example = np.repeat(np.arange(num_examples), PER_EXAMPLE).astype(np.int32)
    index = np.tile(np.arange(PER_EXAMPLE), num_examples).astype(np.int32)
    nine = np.full(len(index), 9, np.int32)
    is_held = index == held
    start, end = (np.where(is_held, token, nine).astype(np.int32) for token in (3, 5))
    windows = Windows(example, index, index * 3, nine - 3)
    return LabelledWindows(windows, Layout(nine + 1, nine - 6, nine), start, end)


def kept(keys: NDArray[np.int64], *, fraction: float, seed: int = 0) -> set[tuple[int, int]]:
    """(key, window index) of what stays, for examples with these keys."""
    planned = labelled(len(keys))
    rows = keep_null_windows(planned, keys, fraction=fraction, seed=seed)
    assert (np.diff(rows) > 0).all()
    windows = planned.windows
    pairs = zip(keys[windows.example[rows]].tolist(), windows.index[rows].tolist(), strict=True)
    return set(pairs)


def some_keys(num_examples: int) -> NDArray[np.int64]:
    """Digests as good as drawn, negative ones among them."""
    return np.random.default_rng(7).integers(-(2**63), 2**63, num_examples, np.int64)


@pytest.mark.parametrize("fraction", [0.01, 0.2, 0.5, 0.97])
@pytest.mark.parametrize("keys", [some_keys(25_000), np.arange(25_000)], ids=["drawn", "rising"])
def test_the_fraction_is_kept(fraction: float, keys: NDArray[np.int64]) -> None:
    """Within five standard deviations over 100,000 windows, for poor digests as well."""
    planned = labelled(len(keys), held=None)
    share = len(keep_null_windows(planned, keys, fraction=fraction, seed=3)) / 100_000
    assert abs(share - fraction) < 5 * np.sqrt(fraction * (1 - fraction) / 100_000)


def test_windows_of_an_example_are_drawn_apart() -> None:
    """A hash that mixes poorly would keep or drop neighbours, or neighbouring keys, together."""
    keys, index = np.repeat(np.arange(20_000), 2), np.tile(np.arange(2), 20_000).astype(np.int32)
    first, second = hash_to_unit(keys, index, seed=0).reshape(-1, 2).T
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.03
    assert abs(np.corrcoef(first[1:], first[:-1])[0, 1]) < 0.03
    counts = np.bincount((first * 20).astype(int), minlength=20)
    assert ((counts - 1000) ** 2 / 1000).sum() < 60  # chi-square, 19 degrees of freedom


def test_windows_with_the_answer_always_stay() -> None:
    """Fraction 0 leaves these alone; fraction 1 leaves everything."""
    keys = some_keys(500)
    assert kept(keys, fraction=0.0) == {(key, 0) for key in keys.tolist()}
    assert len(kept(keys, fraction=1.0)) == 500 * PER_EXAMPLE
    assert kept(keys, fraction=0.3) >= kept(keys, fraction=0.0)


def test_a_larger_fraction_keeps_what_a_smaller_one_keeps() -> None:
    """Runs that differ in the fraction alone are then comparable."""
    keys = some_keys(2000)
    fewer, more = kept(keys, fraction=0.2), kept(keys, fraction=0.5)
    assert fewer < more


def test_order_and_shards_do_not_matter() -> None:
    """Any number of workers keeps the same windows."""
    keys = some_keys(900)
    whole = kept(keys, fraction=0.4, seed=11)
    assert kept(keys[::-1].copy(), fraction=0.4, seed=11) == whole
    shards = [kept(part, fraction=0.4, seed=11) for part in np.array_split(keys, 7)]
    assert set().union(*shards) == whole


@pytest.mark.parametrize("seed", [1, -1, 2**64 - 2, 2**70 + 5])
def test_the_seed_changes_the_choice(seed: int) -> None:
    """Any integer is a seed; two choices at 0.4 share what chance gives, 0.4 * 0.4."""
    keys = some_keys(5000)
    null = {pair for pair in kept(keys, fraction=1.0) if pair[1] != 0}
    one, other = (kept(keys, fraction=0.4, seed=s) & null for s in (0, seed))
    assert abs(len(one & other) / len(null) - 0.16) < 0.02


def test_the_hash_stays_as_it_is() -> None:
    """A resumed run must find the windows of the run before: these numbers never change."""
    keys = np.array([0, 1, -1, 2**63 - 1])
    index = np.array([0, 1, 2, 300], np.int32)
    found = hash_to_unit(keys, index, seed=42)
    assert ((found >= 0) & (found < 1)).all()
    mask = 2**64 - 1

    def mix(value: int) -> int:
        value = (value + 0x9E3779B97F4A7C15) & mask
        value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & mask
        value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & mask
        return value ^ (value >> 31)

    expected = [
        (mix(mix(mix(42) ^ (key & mask)) ^ place) >> 11) / 2**53
        for key, place in zip(keys.tolist(), index.tolist(), strict=True)
    ]
    assert found.tolist() == expected


def test_nothing_in_nothing_out() -> None:
    """A block without examples is a block."""
    assert len(keep_null_windows(labelled(0), some_keys(0), fraction=0.5, seed=0)) == 0
