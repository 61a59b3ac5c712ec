"""present: decoded answers → what a person or another program takes: the chosen answer first."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from qa_core.decoding import null_odds
from qa_core.schemas import CANDIDATE, PREDICTED


def present_answers(answers: pa.Table, *, top_k: int, has_null: bool) -> pa.Table:
    """`qa_core.schemas.PREDICTED` of decoded answers (`ANSWERED`), a row an example, in order.

    `has_null` says that the null answer was among the candidates (they were decoded with a null
    threshold). The n_best of a row are the answer given, then the other candidates, best first,
    `top_k` in all at most; probabilities are among all candidates that were decoded.
    """
    lists = answers["n_best"].combine_chunks()
    candidates = lists.flatten()
    counts = pc.list_value_length(lists).to_numpy().astype(np.int64)  # (examples,)
    example = np.repeat(np.arange(len(counts)), counts)  # (candidates,)
    chosen = _chosen_rows(answers, candidates, example)  # (examples,)
    order = _chosen_first(chosen, example)  # (candidates,)
    rank = np.arange(len(example)) - (np.cumsum(counts) - counts)[example]  # once in order
    kept = order[rank < top_k]
    splits = np.concatenate([[0], np.cumsum(np.minimum(counts, top_k))])
    odds = null_odds(answers) if has_null else None
    columns = {
        "id": answers["id"],
        "answer": answers["text"],
        "start": answers["start_char"],
        "end": answers["end_char"],
        "probability": pa.array(_at(candidates.field("probability"), chosen), pa.float32()),
        "null_odds": _numbers(odds, len(answers)),
        "no_answer_probability": _numbers(None if odds is None else _sigmoid(odds), len(answers)),
        "n_best": pa.ListArray.from_arrays(
            pa.array(splits, pa.int32()), _rename(candidates.take(pa.array(kept)))
        ),
    }
    return pa.table(columns, schema=PREDICTED)


def _chosen_rows(
    answers: pa.Table, candidates: pa.StructArray, example: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Row of the candidate that is each example's answer, (examples,); -1 where it has none."""
    is_chosen = np.ones(len(example), bool)
    for name in ("start_char", "end_char"):
        is_chosen &= candidates.field(name).to_numpy() == answers[name].to_numpy()[example]
    rows = np.flatnonzero(is_chosen)[::-1]
    chosen = np.full(len(answers), -1, np.int64)
    chosen[example[rows]] = rows  # the last write of each example is its first, and best
    return chosen


def _chosen_first(chosen: NDArray[np.int64], example: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows of the candidates, example by example, the chosen one before the others."""
    is_other = np.ones(len(example), bool)
    is_other[chosen[chosen >= 0]] = False
    return np.lexsort((is_other, example))


def _at(values: pa.Array, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Values at `rows`, 0 at row -1."""
    return np.append(values.to_numpy(), np.float32(0))[rows]


def _numbers(values: NDArray[np.float64] | None, length: int) -> pa.Array:
    return pa.nulls(length, pa.float64()) if values is None else pa.array(values, pa.float64())


def _sigmoid(odds: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.exp(-np.logaddexp(0, -odds)), np.float64)


def _rename(candidates: pa.StructArray) -> pa.StructArray:
    names = ("text", "start_char", "end_char", "probability", "score")
    return pa.StructArray.from_arrays(
        [candidates.field(name) for name in names], fields=list(CANDIDATE)
    )
