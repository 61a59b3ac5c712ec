"""decode: logits → candidates → answer. An answer is always a slice of its context.

A candidate is a pair of tokens of one window, both in the context, the end not before the start
and at most `max_answer_length` tokens in all; its score is start logit + end logit. The null
score of a window is that of its CLS token; of an example, the smallest over its windows.

Two ways to look for candidates. `exact`: the n_best of all pairs; the same characters found in
two windows are one candidate; ties go to the earlier start, then the earlier end. `reference`:
pairs of the n_best starts and the n_best ends of each window, with run_qa's ties and repeats.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from qa_core.errors import ConfigError, DataError, ModelError
from qa_core.schemas import ANSWERED, N_BEST

Mode = Literal["exact", "reference"]

PAIRS_PER_CHUNK = 2**22  # start-end pairs looked at together: 16 MiB of scores


@dataclass(frozen=True)
class ScoredWindows:
    """Windows in the order of their examples, with flat logits and offsets to match."""

    example: NDArray[np.int64]  # (windows,) row of the example
    splits: NDArray[np.int64]  # (windows + 1,) into the flat arrays
    start_logits: NDArray[np.float32]  # (tokens,)
    end_logits: NDArray[np.float32]  # (tokens,)
    offsets: NDArray[np.int32]  # (tokens, 2) half-open characters; -1 outside the context
    null_scores: NDArray[np.float32]  # (windows,)


@dataclass(frozen=True)
class Candidates:
    """Spans of characters with their scores, one row each, not yet ranked."""

    example: NDArray[np.int64]  # (candidates,) row of the example
    start_char: NDArray[np.int64]
    end_char: NDArray[np.int64]  # half-open
    score: NDArray[np.float32]


def decode_answers(
    features: pa.Table,
    start_logits: NDArray[np.float32],
    end_logits: NDArray[np.float32],
    *,
    examples: pa.Table,
    n_best: int = 20,
    max_answer_length: int = 30,
    mode: Mode = "exact",
    null_threshold: float | None = None,
) -> pa.Table:
    """The answer to every example, in the order of `examples`: `qa_core.schemas.ANSWERED`.

    `start_logits` and `end_logits` hold one number a token, windows one after another in the
    order of `features`; the windows of an example may stand in any order. With a null_threshold
    (v2.0) the null answer is one of the candidates, and is given where
    null_score - score > null_threshold; without (v1.1) the best span is given.

    Raises `DataError` where features, logits and examples do not belong together, `ModelError`
    for logits that are NaN or infinite, `ConfigError` for settings out of range.
    """
    _check_settings(n_best, max_answer_length, mode)
    windows = _order_windows(features, start_logits, end_logits, examples)
    null_scores = np.full(len(examples), np.inf, np.float32)
    np.minimum.at(null_scores, windows.example, windows.null_scores)
    if mode == "exact":
        found = _distinct(_exact_candidates(windows, n_best, max_answer_length))
    else:
        found = _reference_candidates(windows, n_best, max_answer_length)
    ranked = _rank(found, null_scores if null_threshold is not None else None, n_best)
    answers = _answers_table(ranked, null_scores, examples)
    return answers if null_threshold is None else apply_null_threshold(answers, null_threshold)


def apply_null_threshold(answers: pa.Table, null_threshold: float) -> pa.Table:
    """`answers` with the null answer where null_score - score > null_threshold."""
    is_null = pa.array(null_odds(answers) > null_threshold)
    for name, nothing in (("text", ""), ("start_char", -1), ("end_char", -1)):
        column = pc.if_else(is_null, pa.scalar(nothing, ANSWERED.field(name).type), answers[name])
        answers = answers.set_column(answers.schema.get_field_index(name), name, column)
    return answers.cast(ANSWERED)


def null_odds(answers: pa.Table) -> NDArray[np.float64]:
    """null_score - score of each answer, (answers,): the larger, the likelier no answer.

    Where no window had a valid span, the largest float32.
    """
    score = answers["score"].to_numpy().astype(np.float64)
    odds = answers["null_score"].to_numpy().astype(np.float64) - score
    largest = float(np.finfo(np.float32).max)
    return np.asarray(np.minimum(odds, largest), np.float64)


def _check_settings(n_best: int, max_answer_length: int, mode: str) -> None:
    for name, value in (("n_best", n_best), ("max_answer_length", max_answer_length)):
        if value < 1:
            raise ConfigError(f"{name} is {value}", f"decoding.{name}", "1 or more")
    if mode not in ("exact", "reference"):
        raise ConfigError(f"mode is {mode!r}", "decoding.mode", "exact or reference")


def _order_windows(
    features: pa.Table,
    start_logits: NDArray[np.float32],
    end_logits: NDArray[np.float32],
    examples: pa.Table,
) -> ScoredWindows:
    """Windows sorted by example and window_index."""
    lengths = pc.list_value_length(features["offset_mapping"]).to_numpy().astype(np.int64)
    _check_logits(start_logits, end_logits, features=features, lengths=lengths)
    example = _example_rows(features, examples)
    order = np.lexsort((features["window_index"].to_numpy(), example))  # (windows,)
    begin = np.cumsum(lengths) - lengths  # (windows,)
    pairs = pc.list_flatten(pc.list_flatten(features["offset_mapping"]))
    offsets = pairs.to_numpy().reshape(-1, 2)  # (tokens, 2)
    cls_token = begin + features["cls_index"].to_numpy()  # (windows,)
    nulls = np.asarray(start_logits)[cls_token] + np.asarray(end_logits)[cls_token]
    if not np.array_equal(order, np.arange(len(order))):
        token = np.concatenate([np.arange(begin[w], begin[w] + lengths[w]) for w in order])
        start_logits, end_logits, offsets = start_logits[token], end_logits[token], offsets[token]
    return ScoredWindows(
        example=example[order],
        splits=np.concatenate([[0], np.cumsum(lengths[order])]).astype(np.int64),
        start_logits=np.asarray(start_logits, np.float32),
        end_logits=np.asarray(end_logits, np.float32),
        offsets=offsets,
        null_scores=nulls[order].astype(np.float32),
    )


def _example_rows(features: pa.Table, examples: pa.Table) -> NDArray[np.int64]:
    """Row of the example of each window, (windows,); every example has one at least."""
    rows = pc.index_in(features["example_id"], value_set=examples["id"].combine_chunks())
    if rows.null_count:
        stray = features["example_id"].filter(pc.is_null(rows))[0].as_py()
        raise DataError("is not among the examples", f"feature of example {stray}")
    example: NDArray[np.int64] = rows.to_numpy().astype(np.int64)
    missing = np.flatnonzero(np.bincount(example, minlength=len(examples)) == 0)
    if len(missing):
        name = examples["id"][int(missing[0])].as_py()
        raise DataError(
            f"has no feature ({len(missing)} such examples)",
            where=f"example {name}",
            expected="one window or more of every example",
        )
    return example


def _check_logits(
    start_logits: NDArray[np.float32],
    end_logits: NDArray[np.float32],
    *,
    features: pa.Table,
    lengths: NDArray[np.int64],
) -> None:
    expected = int(lengths.sum())
    if len(start_logits) != expected or len(end_logits) != expected:
        raise DataError(
            f"{len(start_logits)} start and {len(end_logits)} end logits",
            where="decoding",
            expected=f"{expected} of each: one a token of the features",
        )
    broken = np.flatnonzero(~(np.isfinite(start_logits) & np.isfinite(end_logits)))
    if len(broken):
        row = int(np.searchsorted(np.cumsum(lengths), broken[0], side="right"))
        name, window = (features[column][row].as_py() for column in ("example_id", "window_index"))
        raise ModelError(
            f"logits that are no finite numbers ({len(broken)} of {expected} tokens)",
            where=f"example {name}, window {window}",
            expected="finite start and end logits",
            remedy="the checkpoint is likely broken (a diverged training): use another",
        )


def _exact_candidates(windows: ScoredWindows, n_best: int, max_answer_length: int) -> Candidates:
    """The n_best pairs of each window, and what ties with the last of them."""
    lengths = np.diff(windows.splits)
    order = np.argsort(lengths, kind="stable")  # like lengths together: little padding
    per_chunk = max(1, PAIRS_PER_CHUNK // (max_answer_length * max(1, int(lengths.max(initial=0)))))
    chunks = [order[first : first + per_chunk] for first in range(0, len(order), per_chunk)]
    parts = [_best_pairs(windows, rows, n_best, max_answer_length) for rows in chunks]
    window, start, end = (np.concatenate(column) for column in zip(*parts, strict=True))
    token = windows.splits[window]
    return Candidates(
        example=windows.example[window],
        start_char=windows.offsets[token + start, 0].astype(np.int64),
        end_char=windows.offsets[token + end, 1].astype(np.int64),
        score=windows.start_logits[token + start] + windows.end_logits[token + end],
    )


def _best_pairs(
    windows: ScoredWindows, rows: NDArray[np.int64], n_best: int, max_answer_length: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Window, start token and end token of the best pairs of the windows `rows`."""
    lengths = windows.splits[rows + 1] - windows.splits[rows]
    longest = int(lengths.max())
    widths = min(max_answer_length, longest)
    is_token = np.arange(longest) < lengths[:, None]  # (rows, longest)
    token = np.concatenate([np.arange(windows.splits[r], windows.splits[r + 1]) for r in rows])
    start = np.full((len(rows), longest), -np.inf, np.float32)
    end = np.full((len(rows), longest + widths), -np.inf, np.float32)
    is_context = windows.offsets[token, 0] >= 0
    start[is_token] = np.where(is_context, windows.start_logits[token], -np.inf)
    end[:, :longest][is_token] = np.where(is_context, windows.end_logits[token], -np.inf)
    scores = np.empty((len(rows), widths, longest), np.float32)
    for apart in range(widths):  # the pairs (i, i + apart), a band of the matrix of all pairs
        np.add(start, end[:, apart : apart + longest], out=scores[:, apart])
    flat = scores.reshape(len(rows), -1)
    kept = min(n_best, flat.shape[1])
    least = np.partition(flat, flat.shape[1] - kept, axis=1)[:, flat.shape[1] - kept]
    row, pair = np.nonzero((flat >= least[:, None]) & np.isfinite(flat))
    width, first = np.divmod(pair, longest)
    return rows[row], first, first + width


def _distinct(found: Candidates) -> Candidates:
    """The same characters of the same example once, with their best score."""
    order = np.lexsort((-found.score, found.end_char, found.start_char, found.example))
    keys = np.stack([found.example, found.start_char, found.end_char])[:, order]  # (3, found)
    is_first = np.ones(len(order), bool)
    is_first[1:] = (keys[:, 1:] != keys[:, :-1]).any(axis=0)
    kept = order[is_first]
    return Candidates(
        found.example[kept], found.start_char[kept], found.end_char[kept], found.score[kept]
    )


def _reference_candidates(
    windows: ScoredWindows, n_best: int, max_answer_length: int
) -> Candidates:
    """Pairs of each window's n_best starts and ends, best first, in run_qa's order."""
    parts = []
    for row, example in enumerate(windows.example):
        begin, stop = windows.splits[row], windows.splits[row + 1]
        start_logits, end_logits = (
            windows.start_logits[begin:stop],
            windows.end_logits[begin:stop],
        )
        # numpy's own order of ties, taken from the far end as run_qa takes it
        starts = np.argsort(start_logits)[-1 : -n_best - 1 : -1]
        ends = np.argsort(end_logits)[-1 : -n_best - 1 : -1]
        start, end = np.repeat(starts, len(ends)), np.tile(ends, len(starts))
        is_context = windows.offsets[begin:stop, 0] >= 0
        is_valid = (end >= start) & (end - start < max_answer_length)
        is_valid &= is_context[start] & is_context[end]
        start, end = start[is_valid], end[is_valid]
        parts.append(
            Candidates(
                example=np.full(len(start), example),
                start_char=windows.offsets[begin + start, 0].astype(np.int64),
                end_char=windows.offsets[begin + end, 1].astype(np.int64),
                score=start_logits[start] + end_logits[end],
            )
        )
    return Candidates(
        *(
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("example", "start_char", "end_char", "score")
        )
    )


def _rank(found: Candidates, null_scores: NDArray[np.float32] | None, n_best: int) -> Candidates:
    """The n_best of each example, best first, sorted by example; the null answer has -1.

    The sort is stable, so candidates of equal score keep the order in which they come. The null
    answer comes last among equals, and follows the n_best where it is not one of them.
    """
    example, score = found.example, found.score
    start_char, end_char = found.start_char, found.end_char
    if null_scores is not None:
        nothing = np.full(len(null_scores), -1)
        example = np.concatenate([example, np.arange(len(null_scores))])
        start_char = np.concatenate([start_char, nothing])
        end_char = np.concatenate([end_char, nothing])
        score = np.concatenate([score, null_scores])
    order = np.lexsort((-score, example))
    counts = np.bincount(example, minlength=1)
    first = (np.cumsum(counts) - counts)[example[order]]  # (candidates,)
    kept = order[(np.arange(len(order)) - first < n_best) | (start_char[order] < 0)]
    return Candidates(example[kept], start_char[kept], end_char[kept], score[kept])


def _answers_table(
    ranked: Candidates, null_scores: NDArray[np.float32], examples: pa.Table
) -> pa.Table:
    """The best span of each example and its n-best list."""
    counts = np.bincount(ranked.example, minlength=len(examples))  # (examples,)
    splits = np.concatenate([[0], np.cumsum(counts)])
    contexts = examples["context"].to_pylist()
    texts = [
        contexts[row][start:end] if start >= 0 else ""
        for row, start, end in zip(
            ranked.example.tolist(),
            ranked.start_char.tolist(),
            ranked.end_char.tolist(),
            strict=True,
        )
    ]
    best = _first_spans(ranked, splits)  # (examples,) -1: none
    has_span = best >= 0
    n_best = pa.StructArray.from_arrays(
        [
            pa.array(texts, pa.string()),
            pa.array(ranked.start_char, pa.int32()),
            pa.array(ranked.end_char, pa.int32()),
            pa.array(ranked.score, pa.float32()),
            pa.array(_softmax_within(ranked.score, ranked.example, counts), pa.float32()),
        ],
        fields=list(N_BEST),
    )
    columns: dict[str, Any] = {
        "id": examples["id"],
        "text": pa.array([texts[b] if b >= 0 else "" for b in best.tolist()], pa.string()),
        "start_char": pa.array(_at(ranked.start_char, best, has_span, -1), pa.int32()),
        "end_char": pa.array(_at(ranked.end_char, best, has_span, -1), pa.int32()),
        "score": pa.array(_at(ranked.score, best, has_span, -math.inf), pa.float32()),
        "null_score": pa.array(null_scores, pa.float32()),
        "n_best": pa.ListArray.from_arrays(pa.array(splits, pa.int32()), n_best),
    }
    return pa.table(columns, schema=ANSWERED)


def _first_spans(ranked: Candidates, splits: NDArray[np.int64]) -> NDArray[np.int64]:
    """Row of each example's best candidate that is a span; -1 where it has none."""
    rows = np.flatnonzero(ranked.start_char >= 0)
    first = np.full(len(splits) - 1, -1, np.int64)
    first[ranked.example[rows[::-1]]] = rows[::-1]  # the last write of each example is its first
    return first


def _at(
    values: NDArray[Any], rows: NDArray[np.int64], is_there: NDArray[np.bool_], default: float
) -> NDArray[Any]:
    result = np.full(len(rows), default, values.dtype)
    result[is_there] = values[rows[is_there]]
    return result


def _softmax_within(
    score: NDArray[np.float32], example: NDArray[np.int64], counts: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Softmax of the scores within each example, (candidates,)."""
    largest = np.full(len(counts), -np.inf, np.float32)
    np.maximum.at(largest, example, score)
    exponents = np.exp(score - largest[example])
    sums = np.zeros(len(counts), np.float64)
    np.add.at(sums, example, exponents)
    return np.asarray(exponents / sums[example], np.float32)
