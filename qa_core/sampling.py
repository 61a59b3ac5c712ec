"""sample: which windows labelled "no answer" an epoch sees, which examples a quick score is of."""

import numpy as np
from numpy.typing import NDArray

from qa_core.features import LabelledWindows


def keep_null_windows(
    planned: LabelledWindows, keys: NDArray[np.int64], *, fraction: float, seed: int
) -> NDArray[np.int64]:
    """The windows to train on: all that hold their answer, and about `fraction` of the others.

    Rows of `planned`, rising. `keys` tells the examples apart, (examples,): 8 bytes of a digest of
    each id. Whether a null window stays follows from (seed, key, window index) alone, not from
    the shard, the order or the number of workers; what stays at a fraction stays at a larger one.
    """
    is_null = planned.is_null
    if fraction >= 1 or not is_null.any():
        return np.arange(len(is_null))
    windows = planned.windows
    chance = hash_to_unit(keys[windows.example], windows.index, seed=seed)
    return np.flatnonzero(~is_null | (chance < fraction))


def stratified_part(
    keys: NDArray[np.int64], has_answer: NDArray[np.bool_], *, part: float
) -> NDArray[np.int64]:
    """About `part` of the examples, of those with and of those without answers alike.

    Rows, rising. `keys`, (examples,), as for `keep_null_windows`: they alone decide which, and
    what is in a part is in every larger one.
    """
    chance = hash_to_unit(keys, np.zeros(len(keys), np.int32), seed=0)
    chosen = []
    for rows in (np.flatnonzero(has_answer), np.flatnonzero(~has_answer)):
        order = np.lexsort((rows, chance[rows]))
        chosen.append(rows[order[: round(part * len(rows))]])
    return np.sort(np.concatenate(chosen))


def hash_to_unit(
    keys: NDArray[np.int64], index: NDArray[np.int32], *, seed: int
) -> NDArray[np.float64]:
    """A number in [0, 1) for each pair of key and index, as if drawn evenly."""
    start = _mix(np.array([seed % 2**64], np.uint64))
    mixed = _mix(start ^ keys.astype(np.int64).view(np.uint64))
    mixed = _mix(mixed ^ index.astype(np.uint64))
    return np.asarray((mixed >> np.uint64(11)) * 2.0**-53, np.float64)  # 53 bits: exact


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """One step of the splitmix64 generator (Steele, Lea, Flood 2014); products wrap around."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
