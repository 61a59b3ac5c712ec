"""Answers equal run_qa's where asked, and never depend on window order or on how work is split."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from qa_core.decoding import apply_null_threshold, decode_answers, null_odds
from qa_core.errors import ConfigError, DataError, ModelError
from qa_core.features import build_features
from tests.reference import reference_answers
from tests.tiny import TEXTS, make_examples, train_tokenizer

TOKENIZER = train_tokenizer("wordpiece")
CONTEXTS = [" ".join(TEXTS), TEXTS[0], "Orla", TEXTS[4] + " " + TEXTS[1], "\u200b"]


def case(seed: int, *, ties: bool) -> tuple[pa.Table, pa.Table, Any, Any]:
    """Examples, their features over several windows, and random logits, coarse where ties."""
    random = np.random.default_rng(seed)
    examples = make_examples([{"context": c, "question": "Who is it?"} for c in CONTEXTS])
    features = build_features(examples, tokenizer=TOKENIZER, max_length=48, doc_stride=12)
    num_tokens = sum(len(ids) for ids in features["input_ids"].to_pylist())
    logits = random.normal(0, 3, (2, num_tokens))
    logits = np.round(logits) if ties else logits
    return examples, features, *logits.astype(np.float32)


def by_example(
    examples: pa.Table, features: pa.Table, start: Any, end: Any
) -> list[tuple[list[dict[str, Any]], list[tuple[Any, Any]]]]:
    """Features and logit pairs of each example, as the reference wants them."""
    splits = np.cumsum([0] + [len(ids) for ids in features["input_ids"].to_pylist()])
    rows = features.to_pylist()
    grouped = []
    for example_id in examples["id"].to_pylist():
        own = [w for w, row in enumerate(rows) if row["example_id"] == example_id]
        pairs = [(start[splits[w] : splits[w + 1]], end[splits[w] : splits[w + 1]]) for w in own]
        grouped.append(([rows[w] for w in own], pairs))
    return grouped


@pytest.mark.parametrize("null_threshold", [None, 0.0, -2.0])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_reference_mode_equals_run_qa(seed: int, ties: bool, null_threshold: float | None) -> None:
    """Same texts, n-best lists, probabilities and null scores, also where scores tie."""
    examples, features, start, end = case(seed, ties=ties)
    answers = decode_answers(
        features,
        start,
        end,
        examples=examples,
        mode="reference",
        null_threshold=null_threshold,
        max_answer_length=7,
    ).to_pylist()
    expected = [
        reference_answers(
            *group, context, n_best=20, max_answer_length=7, null_threshold=null_threshold
        )
        for group, context in zip(by_example(examples, features, start, end), CONTEXTS, strict=True)
    ]
    assert len(answers) == len(CONTEXTS)
    for answer, (text, best, null_score) in zip(answers, expected, strict=True):
        assert answer["text"] == text
        assert [entry["text"] for entry in answer["n_best"]] == [entry["text"] for entry in best]
        assert [entry["score"] for entry in answer["n_best"]] == [e["score"] for e in best]
        assert np.allclose(
            [entry["probability"] for entry in answer["n_best"]],
            [entry["probability"] for entry in best],
        )
        assert answer["null_score"] == pytest.approx(null_score)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_exact_mode_finds_the_best_of_all_pairs(seed: int, ties: bool) -> None:
    """Against trying every pair of every window; ties to the earlier start, then end."""
    examples, features, start, end = case(seed, ties=ties)
    answers = decode_answers(
        features, start, end, examples=examples, n_best=5, max_answer_length=6
    ).to_pylist()
    checked = 0
    for answer, (windows, logits) in zip(
        answers, by_example(examples, features, start, end), strict=True
    ):
        scores: dict[tuple[int, int], Any] = {}
        for window, (s, e) in zip(windows, logits, strict=True):
            offsets = window["offset_mapping"]
            for i in range(len(s)):
                for j in range(i, min(i + 6, len(s))):
                    if offsets[i][0] >= 0 and offsets[j][0] >= 0:
                        span = (offsets[i][0], offsets[j][1])
                        scores[span] = max(scores.get(span, -np.inf), s[i] + e[j])
        best = sorted(scores.items(), key=lambda item: (-item[1], *item[0]))[:5]
        found = [(n["start_char"], n["end_char"], n["score"]) for n in answer["n_best"]]
        assert found == [(a, b, score) for (a, b), score in best]
        checked += len(found)
    assert checked > 15


@pytest.mark.parametrize("mode", ["exact", "reference"])
def test_window_order_never_changes_an_answer(mode: Any) -> None:
    """Shuffled windows with their logits give the same bytes."""
    examples, features, start, end = case(3, ties=True)
    expected = decode_answers(
        features, start, end, examples=examples, mode=mode, null_threshold=0.0
    )
    order = np.random.default_rng(0).permutation(len(features))
    lengths = [len(ids) for ids in features["input_ids"].to_pylist()]
    begin = np.cumsum(lengths) - lengths
    token = np.concatenate([np.arange(begin[w], begin[w] + lengths[w]) for w in order])
    shuffled = decode_answers(
        features.take(pa.array(order)),
        start[token],
        end[token],
        examples=examples,
        mode=mode,
        null_threshold=0.0,
    )
    assert shuffled.equals(expected)


@pytest.mark.parametrize("mode", ["exact", "reference"])
@pytest.mark.parametrize("num_shards", [2, 5])
def test_shards_of_the_same_logits_give_the_same_answers(mode: Any, num_shards: int) -> None:
    """Each shard decoded alone, in any order: the rows of the whole, to the bit."""
    examples, features, start, end = case(4, ties=True)
    whole = decode_answers(features, start, end, examples=examples, mode=mode, null_threshold=0.0)
    lengths = [len(ids) for ids in features["input_ids"].to_pylist()]
    token_of = np.repeat(np.arange(len(features)), lengths)  # (tokens,) row of the feature
    parts = []
    for shard in reversed(range(num_shards)):
        ids = examples["id"].to_pylist()[shard::num_shards]
        is_in = np.isin(features["example_id"].to_pylist(), ids)
        parts.append(
            decode_answers(
                features.filter(pa.array(is_in)),
                start[is_in[token_of]],
                end[is_in[token_of]],
                examples=examples.filter(pa.array(np.isin(examples["id"].to_pylist(), ids))),
                mode=mode,
                null_threshold=0.0,
            )
        )
    assert pa.concat_tables(parts).sort_by("id").equals(whole.sort_by("id"))


def test_answers_are_slices_and_exact_is_never_below_reference() -> None:
    """Characters and text agree; the exact search dominates the reference's."""
    for seed in range(5):
        examples, features, start, end = case(seed, ties=False)
        exact, reference = (
            decode_answers(features, start, end, examples=examples, mode=mode).to_pylist()
            for mode in ("exact", "reference")
        )
        for answer, other, context in zip(exact, reference, CONTEXTS, strict=True):
            assert answer["score"] >= other["score"]
            if answer["text"]:
                assert context[answer["start_char"] : answer["end_char"]] == answer["text"]


def test_null_score_is_the_smallest_over_windows_at_the_cls_token() -> None:
    """Not the largest, and not at index 0 (for left-padded families CLS is last)."""
    tokenizer = train_tokenizer("unigram_left")
    examples = make_examples([{"context": " ".join(TEXTS), "question": "Who?"}])
    features = build_features(examples, tokenizer=tokenizer, max_length=64, doc_stride=16)
    windows = features.to_pylist()
    assert len(windows) > 2
    start = np.zeros(sum(len(w["input_ids"]) for w in windows), np.float32)
    begin = np.cumsum([0] + [len(w["input_ids"]) for w in windows])[:-1]
    for number, (first, window) in enumerate(zip(begin, windows, strict=True)):
        start[first + window["cls_index"]] = 5 + number
        start[first] = -50
    answer = decode_answers(features, start, np.zeros_like(start), examples=examples).to_pylist()
    assert answer[0]["null_score"] == 5


def test_null_threshold_decides_and_the_list_keeps_both() -> None:
    """The null answer has no characters; raising the threshold brings the span back."""
    examples, features, start, end = case(1, ties=False)
    answered = decode_answers(features, start, end, examples=examples, null_threshold=np.inf)
    odds = null_odds(answered)
    nulled = apply_null_threshold(answered, float(odds[0]) - 0.01).to_pylist()[0]
    assert (nulled["text"], nulled["start_char"], nulled["end_char"]) == ("", -1, -1)
    kept = apply_null_threshold(answered, float(odds[0])).to_pylist()[0]
    assert kept["text"]
    assert {entry["start_char"] == -1 for entry in kept["n_best"]} == {True, False}


def test_a_context_without_tokens_has_the_null_answer() -> None:
    """No window holds a valid span: text "" and the largest odds, no crash and no "empty"."""
    examples, features, start, end = case(0, ties=False)
    answer = decode_answers(features, start, end, examples=examples).slice(4, 1)
    row = answer.to_pylist()[0]
    assert (row["text"], row["start_char"], row["n_best"]) == ("", -1, [])
    assert null_odds(answer)[0] == np.finfo(np.float32).max


def test_bad_logits_are_named_not_decoded() -> None:
    """NaN, wrong lengths and strangers are errors, never silent answers."""
    examples, features, start, end = case(0, ties=False)
    broken = start.copy()
    broken[len(features["input_ids"][0]) + 2] = np.nan
    with pytest.raises(ModelError, match="example q0, window 1: logits that are no finite"):
        decode_answers(features, broken, end, examples=examples)
    with pytest.raises(DataError, match=r"Expected: .* one a token"):
        decode_answers(features, start[:-1], end, examples=examples)
    with pytest.raises(DataError, match="feature of example q1: is not among the examples"):
        decode_answers(features, start, end, examples=examples.slice(0, 1))
    extra = make_examples([{"id": f"q{n}", "context": "c", "question": "q"} for n in range(6)])
    with pytest.raises(DataError, match="example q5: has no feature"):
        decode_answers(features, start, end, examples=extra)


@pytest.mark.parametrize("settings", [{"n_best": 0}, {"max_answer_length": 0}, {"mode": "best"}])
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    """The error names the setting."""
    examples, features, start, end = case(0, ties=False)
    with pytest.raises(ConfigError, match=f"decoding.{next(iter(settings))}: "):
        decode_answers(features, start, end, examples=examples, **settings)
