"""decode: logits → candidates → answer. An answer is always a slice of its context.

A candidate is a pair of tokens of one window, both in the context, the end not before the start
and at most `max_answer_length` tokens in all; its score is start logit + end logit. The null
score of a window is that of its CLS token; of an example, the smallest over its windows.

Two ways to look for candidates. `exact`: the n_best of all pairs; the same characters found in
two windows are one candidate; ties go to the earlier start, then the earlier end. `reference`:
pairs of the n_best starts and the n_best ends of each window, with run_qa's ties and repeats.
Both run over all examples in compiled loops (`qa_core.span_kernels`).
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from qa_core.errors import ConfigError, DataError, ModelError
from qa_core.schemas import ANSWERED, N_BEST
from qa_core.tokenizing import concatenated_ranges, splits_of

Mode = Literal["exact", "reference"]


@dataclass(frozen=True)
class ScoredWindows:
    """Windows in the order of their examples, with flat logits and offsets to match."""

    example_splits: NDArray[np.int64]  # (examples + 1,) into the windows
    splits: NDArray[np.int64]  # (windows + 1,) into the flat arrays
    start_logits: NDArray[np.float32]  # (tokens,)
    end_logits: NDArray[np.float32]  # (tokens,)
    offsets: NDArray[np.int32]  # (tokens, 2) half-open characters; -1 outside the context
    null_scores: NDArray[np.float32]  # (windows,)


@dataclass(frozen=True)
class Candidates:
    """The candidates of each example, best first; rows beyond its count hold nothing."""

    spans: NDArray[np.int32]  # (examples, n, 2) half-open characters; -1 for the null answer
    scores: NDArray[np.float32]  # (examples, n)
    counts: NDArray[np.int64]  # (examples,)


def decode_answers(  # noqa: PLR0913  # each a setting of its own
    features: pa.Table,
    start_logits: NDArray[np.float32],
    end_logits: NDArray[np.float32],
    *,
    examples: pa.Table,
    n_best: int = 20,
    max_answer_length: int = 30,
    mode: Mode = "exact",
    null_threshold: float | None = None,
    max_context: bool = False,
) -> pa.Table:
    """The answer to every example, in the order of `examples`: `qa_core.schemas.ANSWERED`.

    `start_logits` and `end_logits` hold one number a token, windows one after another in the
    order of `features`; the windows of an example may stand in any order. With a null_threshold
    (v2.0) the null answer is one of the candidates, and is given where
    null_score - score > null_threshold; without (v1.1) the best span is given. With max_context
    an answer may only begin at a token in the window where that token has the most context around
    it, as in BERT's run_squad.

    Raises `DataError` where features, logits and examples do not belong together, `ModelError`
    for logits that are NaN or infinite, `ConfigError` for settings out of range.
    """
    _check_settings(n_best, max_answer_length, mode)
    windows = _order_windows(features, start_logits, end_logits, examples)
    found = _search(windows, n_best, max_answer_length, mode, max_context=max_context)
    null_scores = np.zeros(0, np.float32)
    if len(examples):
        null_scores = np.minimum.reduceat(windows.null_scores, windows.example_splits[:-1])
    answers = _answers_table(found, null_scores, examples, has_null=null_threshold is not None)
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
        token = concatenated_ranges(begin[order], lengths[order])
        start_logits, end_logits, offsets = start_logits[token], end_logits[token], offsets[token]
    per_example = np.bincount(example, minlength=len(examples))
    return ScoredWindows(
        example_splits=splits_of(per_example),
        splits=splits_of(lengths[order]),
        start_logits=_read_only(start_logits, np.float32),
        end_logits=_read_only(end_logits, np.float32),
        offsets=_read_only(offsets, np.int32),
        null_scores=nulls[order].astype(np.float32),
    )


def _read_only(values: NDArray[Any], kind: type) -> NDArray[Any]:
    """The values as an array that cannot be written, whether they could be or not.

    Arrow's arrays cannot; the loops would be compiled once more for those that can.
    """
    view: NDArray[Any] = np.ascontiguousarray(values, kind).view()
    view.flags.writeable = False
    return view


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


def _search(
    windows: ScoredWindows, n_best: int, max_answer_length: int, mode: Mode, *, max_context: bool
) -> Candidates:
    """The n_best spans of every example."""
    from qa_core import span_kernels  # numba takes half a second to import

    shape = (len(windows.example_splits) - 1, n_best)
    found = span_kernels.FoundSpans(
        np.empty((*shape, 2), np.int32), np.empty(shape, np.float32), np.zeros(shape[0], np.int64)
    )
    tokens = span_kernels.ScoredTokens(
        windows.example_splits,
        windows.splits,
        windows.start_logits,
        windows.end_logits,
        windows.offsets,
        np.ones(len(windows.start_logits), np.bool_),
    )
    if max_context:
        span_kernels.most_context(tokens)
    if mode == "exact":
        span_kernels.exact_spans(tokens, found, max_answer_length)
    else:
        starts = _highest_tokens(windows.splits, windows.start_logits, n_best)
        ends = _highest_tokens(windows.splits, windows.end_logits, n_best)
        span_kernels.reference_spans(tokens, starts, ends, found, max_answer_length)
    return Candidates(*found)


def _highest_tokens(
    splits: NDArray[np.int64], logits: NDArray[np.float32], n_best: int
) -> NDArray[np.int64]:
    """The tokens with the n_best logits of each window, best first, (windows, n_best); -1: none.

    Where logits tie, the order is that of numpy's argsort, taken from the far end as run_qa does.
    """
    from qa_core import span_kernels

    tokens = np.empty((len(splits) - 1, n_best), np.int64)
    has_ties = np.zeros(len(tokens), np.bool_)
    span_kernels.highest_tokens(splits, logits, tokens, has_ties)
    for window in np.flatnonzero(has_ties):
        order = np.argsort(logits[splits[window] : splits[window + 1]])[-1 : -n_best - 1 : -1]
        tokens[window, : len(order)] = splits[window] + order
    return tokens


def _answers_table(
    found: Candidates, null_scores: NDArray[np.float32], examples: pa.Table, *, has_null: bool
) -> pa.Table:
    """The best span of each example and its n-best list."""
    splits, spans, scores = _rank(found, null_scores, has_null=has_null)
    texts = _slices(examples["context"], splits, spans)
    n_best = pa.StructArray.from_arrays(
        [
            texts,
            pa.array(spans[:, 0]),
            pa.array(spans[:, 1]),
            pa.array(scores),
            pa.array(_probabilities(scores, splits)),
        ],
        fields=list(N_BEST),
    )
    has_span = found.counts > 0
    best = np.where(has_span[:, None], found.spans[:, 0], -1)  # (examples, 2)
    is_second = np.zeros(len(best), np.bool_)  # after the null answer
    is_second[has_span] = spans[splits[:-1][has_span], 0] < 0
    place = pa.array(splits[:-1] + is_second, mask=~has_span)
    columns: dict[str, Any] = {
        "id": examples["id"],
        "text": pc.fill_null(texts.take(place), ""),
        "start_char": pa.array(best[:, 0]),
        "end_char": pa.array(best[:, 1]),
        "score": pa.array(np.where(has_span, found.scores[:, 0], -np.inf).astype(np.float32)),
        "null_score": pa.array(null_scores, pa.float32()),
        "n_best": pa.ListArray.from_arrays(pa.array(splits, pa.int32()), n_best),
    }
    return pa.table(columns, schema=ANSWERED)


def _rank(
    found: Candidates, null_scores: NDArray[np.float32], *, has_null: bool
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]:
    """The n-best lists one after another: where each begins, characters (candidates, 2), scores.

    The null answer comes last among equals, and follows the n_best where it is not one of them.
    """
    from qa_core import span_kernels

    counts, n_best = found.counts, found.scores.shape[1]
    if has_null:
        is_full = counts == n_best
        is_outside = is_full & (found.scores[:, -1] >= null_scores)
        counts = counts + (~is_full | is_outside)
    splits = splits_of(counts)
    spans, scores = np.empty((splits[-1], 2), np.int32), np.empty(splits[-1], np.float32)
    nulls = null_scores if has_null else np.zeros(0, np.float32)
    found_spans = span_kernels.FoundSpans(found.spans, found.scores, found.counts)
    span_kernels.rank_spans(found_spans, nulls, splits, spans, scores)
    return splits, spans, scores


def _slices(
    contexts: pa.ChunkedArray, splits: NDArray[np.int64], spans: NDArray[np.int32]
) -> pa.StringArray:
    """The characters of each span in its context, (candidates,); "" for the null answer."""
    from qa_core import span_kernels

    whole = contexts.cast(pa.large_string()).combine_chunks()
    _, offsets, content = whole.buffers()
    context_splits = np.frombuffer(offsets, np.int64)[whole.offset : whole.offset + len(whole) + 1]
    text = _read_only(np.frombuffer(content or b"", np.uint8), np.uint8)
    places = np.empty((len(spans), 2), np.int64)  # bytes
    span_kernels.span_bytes(text, _read_only(context_splits, np.int64), splits, spans, places)
    ends = splits_of(places[:, 1] - places[:, 0])
    found = np.empty(ends[-1], np.uint8)
    span_kernels.copy_bytes(text, places, found)
    texts = pa.LargeStringArray.from_buffers(len(spans), pa.py_buffer(ends), pa.py_buffer(found))
    return texts.cast(pa.string())


def _probabilities(scores: NDArray[np.float32], splits: NDArray[np.int64]) -> NDArray[np.float32]:
    """Softmax of the scores of each example, best first, (candidates,).

    Lists of a length are summed together: the sums are to the last bit those of single lists.
    """
    probabilities, counts = np.empty_like(scores), np.diff(splits)
    for count in np.unique(counts[counts > 0]).tolist():
        place = splits[:-1][counts == count][:, None] + np.arange(count)  # (examples, count)
        one = scores[place]
        with np.errstate(invalid="ignore"):  # scores beyond float32's range: no number
            exponents = np.exp(one - one[:, :1])
        probabilities[place] = exponents / exponents.sum(axis=1, keepdims=True)
    return probabilities
