"""The compiled loops: the same as the functions they are compiled from, and BERT's max context."""

import itertools
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from qa_core import span_kernels
from qa_core.decoding import decode_answers
from qa_core.features import build_features
from tests.test_decoding import CONTEXTS, TOKENIZER, case
from tests.tiny import TEXTS, make_examples

KERNELS = [name for name, value in vars(span_kernels).items() if hasattr(value, "py_func")]


@pytest.fixture
def interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels as Python runs them, which finds an index out of range."""
    for name in KERNELS:
        monkeypatch.setattr(span_kernels, name, getattr(span_kernels, name).py_func)


@pytest.mark.parametrize("max_context", [False, True])
@pytest.mark.parametrize("mode", ["exact", "reference"])
def test_compiled_loops_do_what_their_python_does(
    mode: Any, max_context: bool, request: pytest.FixtureRequest
) -> None:
    """Every kernel, with and without ties, for lists shorter and longer than the windows."""
    cases = [(case(seed, ties=bool(seed % 2)), n_best) for seed in range(4) for n_best in (3, 60)]

    def decode() -> list[pa.Table]:
        return [
            decode_answers(
                features,
                start,
                end,
                examples=examples,
                n_best=n_best,
                max_answer_length=5,
                mode=mode,
                null_threshold=0.0,
                max_context=max_context,
            )
            for (examples, features, start, end), n_best in cases
        ]

    compiled = decode()
    request.getfixturevalue("interpreted")
    assert len(KERNELS) > 5
    assert not hasattr(span_kernels.exact_spans, "py_func")
    for one, other in zip(compiled, decode(), strict=True):
        assert one.equals(other)


def bert_is_max_context(windows: list[tuple[int, int]], number: int, position: int) -> bool:
    """Whether `number` of the windows (first token, length) has most context around a token."""
    scores = [
        min(position - first, first + length - 1 - position) + 0.01 * length
        if first <= position < first + length
        else -1.0
        for first, length in windows
    ]
    return scores.index(max(scores)) == number


@pytest.mark.parametrize(("max_length", "doc_stride"), [(48, 12), (40, 28), (32, 0), (128, 64)])
def test_max_context_is_berts(max_length: int, doc_stride: int) -> None:
    """Every context token of every window, worked out from the windows' places."""
    examples = make_examples([{"context": c, "question": "Who is it?"} for c in CONTEXTS])
    features = build_features(
        examples, tokenizer=TOKENIZER, max_length=max_length, doc_stride=doc_stride
    )
    rows = features.to_pylist()
    offsets = np.array([pair for row in rows for pair in row["offset_mapping"]], np.int32)
    splits = np.cumsum([0] + [len(row["offset_mapping"]) for row in rows])
    ids = [row["example_id"] for row in rows]
    example_splits = np.array([ids.index(name) for name in examples["id"].to_pylist()] + [len(ids)])
    may_start = np.ones(len(offsets), np.bool_)
    logits = np.zeros(len(offsets), np.float32)
    tokens = span_kernels.ScoredTokens(example_splits, splits, logits, logits, offsets, may_start)
    span_kernels.most_context(tokens)
    checked = 0
    for first_window, end_window in itertools.pairwise(example_splits):
        contexts = [
            np.flatnonzero(offsets[splits[w] : splits[w + 1], 0] >= 0) + splits[w]
            for w in range(first_window, end_window)
        ]
        if not len(contexts[0]):
            continue
        room = len(contexts[0])
        windows = [(k * (room - doc_stride), len(c)) for k, c in enumerate(contexts)]
        for number, tokens in enumerate(contexts):
            for place, token in enumerate(tokens.tolist()):
                expected = bert_is_max_context(windows, number, windows[number][0] + place)
                assert may_start[token] == expected
                checked += 1
    assert checked > 100


def test_an_answer_begins_where_its_token_has_most_context() -> None:
    """The same words, scored higher at a window's edge: that score does not count."""
    examples = make_examples([{"context": " ".join(TEXTS), "question": "Who is it?"}])
    features = build_features(examples, tokenizer=TOKENIZER, max_length=48, doc_stride=12)
    first, second = features["offset_mapping"].to_pylist()[:2]
    start = np.zeros(sum(len(row) for row in features["offset_mapping"].to_pylist()), np.float32)
    shared = [pair for pair in first if pair in second and pair[0] >= 0]
    edge = shared[-1]  # the last token of the first window
    start[first.index(edge)] = 9
    start[len(first) + second.index(edge)] = 5
    scores = [
        decode_answers(
            features, start, np.zeros_like(start), examples=examples, max_context=wanted
        )["score"][0].as_py()
        for wanted in (False, True)
    ]
    assert scores == [9, 5]


def test_a_folder_that_cannot_be_written_is_no_obstacle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a place for the cache a kernel is compiled anew in each process."""
    import numba

    def refuse(cache: bool) -> Any:
        raise RuntimeError("cannot cache function: no locator available")

    monkeypatch.setattr(
        span_kernels,
        "njit",
        lambda *given, **named: refuse(**named) if named else numba.njit(*given),
    )

    def twice(number: int) -> int:
        return 2 * number

    assert span_kernels._compile(twice)(4) == 8
