"""Scores equal the official rules, and shards merge to the whole."""

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qa_core.errors import DataError
from qa_core.schemas import ANSWERED
from qa_core.scoring import (
    find_null_threshold,
    merge_scores,
    normalize_answer,
    score_answers,
    score_predictions,
    summarize_scores,
)
from tests.reference import reference_scores
from tests.tiny import make_examples

answer_texts = st.lists(
    st.sampled_from([*"ab .,-'$é０", "the ", " a ", "an", "The", "\u2019", "\n", "1"]), max_size=8
).map("".join)


def examples_of(golds: list[list[str]]) -> pa.Table:
    """Examples with these accepted answers (placed anywhere: scoring looks at texts alone)."""
    return make_examples(
        [{"context": "c", "question": "q", "answers": [(t, 0) for t in g]} for g in golds]
    )


def answers_of(texts: list[str], odds: list[float]) -> pa.Table:
    """Decoded answers whose null odds are `odds`."""
    rows = [
        {"id": f"q{n}", "text": text, "score": 0.0, "null_score": o, "n_best": []}
        for n, (text, o) in enumerate(zip(texts, odds, strict=True))
    ]
    return pa.Table.from_pylist(rows, schema=ANSWERED)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.lists(answer_texts, max_size=3), answer_texts), min_size=1, max_size=8)
)
def test_scores_equal_the_official_rules(cases: list[tuple[list[str], str]]) -> None:
    """Articles, punctuation, Unicode, empty gold: figure for figure."""
    golds = [gold for gold, _ in cases]
    predictions = {f"q{n}": text for n, (_, text) in enumerate(cases)}
    exact, f1 = reference_scores({f"q{n}": g for n, g in enumerate(golds)}, predictions)
    scores = score_predictions(predictions, examples_of(golds))
    assert scores["total"] == len(cases)
    assert scores["exact"] == pytest.approx(100 * sum(exact.values()) / len(cases))
    assert scores["f1"] == pytest.approx(100 * sum(f1.values()) / len(cases))
    answered = [n for n, gold in enumerate(golds) if gold]
    assert scores.get("HasAns_total", 0) == len(answered)
    if answered:
        expected = 100 * sum(f1[f"q{n}"] for n in answered) / len(answered)
        assert scores["HasAns_f1"] == pytest.approx(expected)
    assert ("exact_match" in scores) == (len(answered) == len(cases))


@pytest.mark.parametrize(
    ("text", "normalized"),
    [
        ("The  Harbour-Bridge, 1912.", "harbourbridge 1912"),
        ("A an the", ""),
        ("Anna's theory", "annas theory"),
        ("«café» — naïve", "«café» — naïve"),
        ("a-the b", "athe b"),
    ],
)
def test_normalization(text: str, normalized: str) -> None:
    """ASCII punctuation goes, articles go as whole words, other signs stay."""
    assert normalize_answer(text) == normalized


def test_official_best_thresholds_on_a_case_worked_by_hand() -> None:
    """q0 right at odds -3, q1 wrong at -1, q2 unanswerable at 0, q3 right at 2.

    No answer anywhere: 1 of 4. Adding by rising odds: q0 2, q1 2, q2 1, q3 2: best 2 at -3.
    """
    examples = examples_of([["x"], ["y"], [], ["z"]])
    predictions = {"q0": "x", "q1": "wrong", "q2": "guess", "q3": "z"}
    odds = {"q0": -3.0, "q1": -1.0, "q2": 0.0, "q3": 2.0}
    scores = score_predictions(predictions, examples, null_odds=odds)
    assert scores["exact"] == 50
    assert (scores["best_exact"], scores["best_exact_thresh"]) == (50, -3.0)
    assert (scores["best_f1"], scores["best_f1_thresh"]) == (50, -3.0)
    assert (scores["NoAns_total"], scores["NoAns_exact"], scores["HasAns_total"]) == (1, 0, 3)


def random_case(seed: int) -> tuple[list[list[str]], list[str], list[float]]:
    """Golds, best spans and coarse odds, so that some tie."""
    random = np.random.default_rng(seed)
    words = ["red", "red fox", "blue", "green tree", "tree"]
    golds: list[list[str]] = [
        [] if random.random() < 0.4 else [str(random.choice(words))] for _ in range(30)
    ]
    texts = [str(random.choice(words)) for _ in golds]
    return golds, texts, [float(random.integers(-4, 5)) for _ in golds]


@pytest.mark.parametrize("seed", range(10))
def test_found_threshold_is_the_best_that_can_be_applied(seed: int) -> None:
    """Against trying a threshold at, below and above every odds; ties fall on one side."""
    golds, texts, odds = random_case(seed)
    scores = score_answers(answers_of(texts, odds), examples_of(golds))
    found = find_null_threshold(scores)
    tried = [t + d for t in odds for d in (-0.5, 0.0, 0.5)] + [-100.0, 100.0]
    f1 = [summarize_scores(scores, null_threshold=t)["f1"] for t in tried]
    assert summarize_scores(scores, null_threshold=found)["f1"] == pytest.approx(max(f1))


@pytest.mark.parametrize("seed", range(5))
def test_summary_equals_the_scores_of_the_written_predictions(seed: int) -> None:
    """metrics.json says what the official script would say of predictions.json."""
    golds, texts, odds = random_case(seed)
    examples = examples_of(golds)
    scores = score_answers(answers_of(texts, odds), examples)
    predictions = {
        f"q{n}": "" if o > 0.0 else t for n, (t, o) in enumerate(zip(texts, odds, strict=True))
    }
    written = score_predictions(
        predictions, examples, null_odds={f"q{n}": o for n, o in enumerate(odds)}
    )
    summary = summarize_scores(scores, null_threshold=0.0)
    order_free = [name for name in written if not name.startswith("best_")]
    assert {n: summary[n] for n in order_free} == pytest.approx({n: written[n] for n in order_free})


@pytest.mark.parametrize("num_shards", [1, 2, 7])
def test_shards_in_any_order_merge_to_the_whole(num_shards: int) -> None:
    """Not a byte of the summary depends on how the examples were split."""
    golds, texts, odds = random_case(7)
    examples, answers = examples_of(golds), answers_of(texts, odds)
    whole = summarize_scores(score_answers(answers, examples), null_threshold=0.5)
    rows = np.array_split(np.arange(len(golds)), num_shards)
    parts = [score_answers(answers.take(pa.array(r)), examples.take(pa.array(r))) for r in rows]
    merged = summarize_scores(merge_scores(parts[::-1]), null_threshold=0.5)
    assert json.dumps(merged) == json.dumps(whole)
    if num_shards == 2:
        assert parts[0].merge(parts[1]).ids.tolist() == merge_scores(parts).ids.tolist()


def test_missing_and_unknown_ids_are_listed() -> None:
    """A prediction file of other data is an error, not a low score."""
    examples = examples_of([["x"], ["y"]])
    with pytest.raises(DataError, match=r"1 missing ids \(q1\) and 1 unknown ids \(z9\)"):
        score_predictions({"q0": "x", "z9": "y"}, examples)


def test_nothing_to_score_is_an_error() -> None:
    """An empty data set has no score, not 0."""
    empty: list[Any] = []
    with pytest.raises(DataError, match="no examples to score"):
        score_predictions({}, make_examples(empty))
