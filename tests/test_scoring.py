"""Scores equal the official rules, and shards merge to the whole."""

import json
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qa_core.errors import DataError
from qa_core.schemas import ANSWERED
from qa_core.scoring import (
    find_missing,
    find_null_threshold,
    merge_scores,
    score_answers,
    score_predictions,
    score_text,
    summarize_scores,
    word_f1,
)
from tests.reference import reference_scores, reference_threshold
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


PIECES = [*"ab .,-'$é０", "the ", " a ", "an", "The", "\u2019", "\n", "1", "red ", " Fox", "Ünï "]


def generated_sets(num_sets: int) -> Iterator[tuple[pa.Table, dict[str, list[str]], Any, Any]]:
    """Small sets: examples, their gold, predictions (some missing, some extra), null odds."""
    draw = random.Random(0)
    sizes = [draw.randint(1, 4) for _ in range(num_sets)]

    def text() -> str:
        return "".join(draw.choices(PIECES, k=draw.randint(0, 5)))

    golds = [[text() for _ in range(draw.randint(0, 3))] for _ in range(sum(sizes))]
    everything = examples_of(golds)
    first = 0
    for size in sizes:
        gold = {f"q{n}": golds[n] for n in range(first, first + size)}
        given = [name for name in draw.sample(list(gold), size) if draw.random() < 0.9]
        predictions = {
            name: draw.choice(gold[name]) if gold[name] and draw.random() < 0.3 else text()
            for name in given
        }
        if draw.random() < 0.1:
            predictions["other"] = text()
        odds = {name: float(draw.randint(-2, 2)) for name in given + list(gold)}
        yield everything.slice(first, size), gold, predictions, odds
        first += size


def test_ten_thousand_sets_score_as_the_official_rules_say() -> None:
    """To the last digit, thresholds too; extra ids are refused, missing ones only on request."""
    seen = dict.fromkeys(("missing", "unknown", "complete"), 0)
    for examples, gold, predictions, odds in generated_sets(10_000):
        unknown = predictions.pop("other", None)
        missing = [name for name in gold if name not in predictions]
        if unknown is not None:
            seen["unknown"] += 1
            with pytest.raises(DataError, match=r"1 unknown ids \(other\)"):
                score_predictions({**predictions, "other": unknown}, examples, allow_missing=True)
        if missing:
            with pytest.raises(DataError, match=rf"{len(missing)} missing ids \({missing[0]}"):
                score_predictions(predictions, examples, null_odds=odds)
        seen["missing" if missing else "complete"] += 1
        found = score_predictions(predictions, examples, null_odds=odds, allow_missing=True)
        filled = {name: predictions.get(name, "") for name in gold}
        exact, f1 = reference_scores(gold, filled)
        assert found["total"] == len(gold)
        for name, scores in (("exact", exact), ("f1", f1)):
            assert found[name] == 100 * sum(scores.values()) / len(gold)
            best, threshold = reference_threshold(dict(scores), filled, gold, odds)
            assert (found[f"best_{name}"], found[f"best_{name}_thresh"]) == (best, threshold)
    assert min(seen.values()) > 500, seen


def test_recorded_figures_of_the_official_metric() -> None:
    """Three questions whose figures the metrics' cards on the Hub record: one é is all it takes."""
    examples = examples_of([["1976"], ["Beyoncé and Bruno Mars"], ["climate change"]])
    predictions = {"q0": "1976", "q1": "Beyonce", "q2": "climate change"}
    scores = score_predictions(predictions, examples)
    assert (scores["exact"], scores["f1"]) == (66.66666666666667, 66.66666666666667)
    assert scores["exact_match"] == scores["HasAns_exact"] == scores["exact"]


def test_f1_counts_a_repeated_word_as_often_as_both_have_it() -> None:
    """red red fox of red red red: 2 words of 3 and of 3; nothing of nothing is right."""
    assert score_text("red red fox", ["red red red"]) == (0.0, pytest.approx(2 / 3))
    assert word_f1([], []) == 1.0
    assert word_f1([], ["red"]) == word_f1(["red"], []) == 0.0


def test_a_language_compares_by_its_own_rules() -> None:
    """German articles and quotes go only with "de", in scores of texts and of answers alike."""
    examples = examples_of([["„Das Schloß“"]])
    assert score_predictions({"q0": "Schloß"}, examples)["exact"] == 0
    assert score_predictions({"q0": "Schloß"}, examples, language="de")["exact"] == 100
    answers = answers_of(["Schloß"], [0.0])
    assert score_answers(answers, examples, language="de").exact.tolist() == [1.0]
    assert score_answers(answers, examples).exact.tolist() == [0.0]


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
    draw = np.random.default_rng(seed)
    words = ["red", "red fox", "blue", "green tree", "tree"]
    golds: list[list[str]] = [
        [] if draw.random() < 0.4 else [str(draw.choice(words))] for _ in range(30)
    ]
    texts = [str(draw.choice(words)) for _ in golds]
    return golds, texts, [float(draw.integers(-4, 5)) for _ in golds]


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


def test_missing_predictions_are_empty_only_on_request() -> None:
    """The error says how; an empty answer is right where there is none."""
    examples = examples_of([["x"], [], ["y"]])
    with pytest.raises(DataError, match=r"2 missing ids \(q1, q2\).*allow_missing"):
        score_predictions({"q0": "x"}, examples)
    scores = score_predictions({"q0": "x"}, examples, null_odds={"q0": -1.0}, allow_missing=True)
    assert (scores["HasAns_exact"], scores["NoAns_exact"]) == (50, 100)
    assert (scores["best_exact"], scores["best_exact_thresh"]) == (pytest.approx(200 / 3), -1.0)
    assert find_missing({"q1": ""}, ["q2", "q1", "q0"]) == ["q2", "q0"]


def test_null_odds_belong_to_every_prediction() -> None:
    """Odds that a given prediction lacks are an error; allow_missing speaks of predictions."""
    examples = examples_of([["x"], []])
    predictions = {"q0": "x", "q1": ""}
    with pytest.raises(DataError, match=r"null_odds: 1 missing ids \(q1\)"):
        score_predictions(predictions, examples, null_odds={"q0": 0.0}, allow_missing=True)
    with pytest.raises(DataError, match=r"null_odds: 1 unknown ids \(z\)"):
        score_predictions(predictions, examples, null_odds={"q0": 0.0, "q1": 0.0, "z": 0.0})


def test_nothing_to_score_is_an_error() -> None:
    """An empty data set has no score, not 0."""
    empty: list[Any] = []
    with pytest.raises(DataError, match="no examples to score"):
        score_predictions({}, make_examples(empty))
