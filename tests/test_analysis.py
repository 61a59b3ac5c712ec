"""What stands behind the figures agrees with them, and depends on no split of the examples."""

import json

import numpy as np
import pyarrow as pa
import pytest

from qa_core.analysis import DISTINGUISHABLE, NOT_DISTINGUISHABLE, analyse, compare_scores
from qa_core.errors import DataError
from qa_core.scoring import (
    ExampleScores,
    GivenScores,
    given_scores,
    merge_scores,
    score_answers,
    score_given,
    summarize_scores,
)
from qa_core.slices import TOP_N
from tests.test_slices import answered, candidates, facts_of
from tests.tiny import make_examples

WORDS = ["red", "fox", "blue", "tree", "red fox", "1912"]


def random_run(seed: int, size: int, *, unanswerable: float) -> tuple[pa.Table, pa.Table]:
    """Decoded answers and their examples: candidates at random, gold among them at times."""
    random = np.random.default_rng(seed)
    rows = [
        {
            "context": "c",
            "question": "Who?",
            "answers": [] if random.random() < unanswerable else [(str(random.choice(WORDS)), 0)],
        }
        for _ in range(size)
    ]
    lists = []
    for _ in range(size):
        texts = random.permutation(WORDS)[:4].tolist()
        null = [""] if unanswerable else []
        place = int(random.integers(0, 5))
        lists.append(candidates(*texts[:place], *null, *texts[place:]))
    return answered(lists), make_examples(rows)


def scored(answers: pa.Table, examples: pa.Table) -> tuple[ExampleScores, pa.Table]:
    """Scores and facts, as a task that decoded them would give them."""
    return score_answers(answers, examples), facts_of(answers, examples)


@pytest.mark.parametrize("num_shards", [1, 2, 7])
def test_shards_in_any_order_give_the_same_bytes(num_shards: int) -> None:
    """Scores and facts of shards, joined in any order."""
    answers, examples = random_run(0, 60, unanswerable=0.4)
    whole = analyse(*scored(answers, examples), null_threshold=0.5)
    rows = [pa.array(part) for part in np.array_split(np.arange(60), num_shards)][::-1]
    parts = [scored(answers.take(part), examples.take(part)) for part in rows]
    joined = merge_scores([scores for scores, _ in parts])
    facts = pa.concat_tables([facts for _, facts in parts])
    assert json.dumps(analyse(joined, facts, null_threshold=0.5)) == json.dumps(whole)


@pytest.mark.parametrize("null_threshold", [None, -1.0, 0.5])
def test_parts_agree_with_the_figures(null_threshold: float | None) -> None:
    """Intervals around them, slices of all examples, the curve's keys where there is one."""
    scores, facts = scored(*random_run(1, 80, unanswerable=0.4))
    found = analyse(scores, facts, null_threshold=null_threshold)
    summary = summarize_scores(scores, null_threshold=null_threshold)
    for name in ("exact", "f1"):
        low, high = found["intervals"][name]
        assert 0 <= low < summary[name] < high <= 100
        [group] = found["slices"]["question_word"]
        assert group[name] == pytest.approx(summary[name])
    assert {"pr_exact_ap", "pr_f1_ap", "pr_oracle_ap", "points"} == found["precision_recall"].keys()
    assert found["calibration"]["num_fitted"] > 20


def test_the_best_of_the_first_n_never_falls_and_begins_with_the_answer() -> None:
    """Without a null answer the first candidate is the answer: top 1 is the score."""
    scores, facts = scored(*random_run(2, 80, unanswerable=0.0))
    found = analyse(scores, facts, null_threshold=None)
    assert [row["n"] for row in found["top_n"]] == list(TOP_N)
    summary = summarize_scores(scores, null_threshold=None)
    for name in ("exact", "f1"):
        values = [row[name] for row in found["top_n"]]
        assert values[0] == pytest.approx(summary[name])
        assert values == sorted(values)
        assert values[-1] > values[0]
    assert "precision_recall" not in found


def test_facts_of_other_examples_are_refused() -> None:
    """A shard's facts that were lost do not pass for the whole."""
    scores, facts = scored(*random_run(0, 10, unanswerable=0.4))
    with pytest.raises(DataError, match="other ids"):
        analyse(scores, facts[:-1], null_threshold=0.0)
    with pytest.raises(DataError, match="no examples to analyse"):
        analyse(*scored(*random_run(0, 0, unanswerable=0.4)), null_threshold=0.0)


def given(names: list[str], exact: list[float]) -> GivenScores:
    """Scores of which only the exact match and F1 matter."""
    values, flags = np.array(exact, float), np.ones(len(exact), bool)
    return GivenScores(np.array(names, object), flags, flags, values, values)


def test_a_real_difference_is_told_from_noise() -> None:
    """Forty more right of four hundred, beside as many won as lost."""
    names = [f"q{n}" for n in range(400)]
    base = [float(n % 2) for n in range(400)]
    better = [1.0 if n < 80 else value for n, value in enumerate(base)]
    found = compare_scores(given(names, better), given(names, base))
    assert found["total"] == 400
    assert found["exact"] == found["f1"]
    assert found["exact"]["difference"] == pytest.approx(10)
    assert 0 < found["exact"]["low"] < 10 < found["exact"]["high"]
    assert found["exact"]["verdict"] == DISTINGUISHABLE == "distinguishable at this size"
    turned = [1.0 - value for value in base]
    found = compare_scores(given(names, turned), given(names, base))
    assert found["f1"]["verdict"] == NOT_DISTINGUISHABLE == "not distinguishable at this size"


def test_runs_are_paired_by_id_not_by_row() -> None:
    """Predictions of a file beside decoded answers, in another order: no difference."""
    answers, examples = random_run(3, 30, unanswerable=0.3)
    predictions = dict(zip(answers["id"].to_pylist(), answers["text"].to_pylist(), strict=True))
    decoded = given_scores(score_answers(answers, examples), null_threshold=None)
    from_file = score_given(predictions, examples.take(pa.array(np.arange(30)[::-1])))
    found = compare_scores(decoded, from_file)
    assert found["exact"]["difference"] == found["exact"]["low"] == found["exact"]["high"] == 0
    other = given(from_file.ids.tolist(), (1 - from_file.exact).tolist())
    assert compare_scores(decoded, other) == compare_scores(
        decoded, other.take(np.arange(30)[::-1])
    )


def test_runs_over_other_examples_are_not_compared() -> None:
    """Which ids only one of them has is said."""
    with pytest.raises(
        DataError, match=r"1 only in this run \(b\) and 2 only in the other \(c, d\)"
    ):
        compare_scores(given(["a", "b"], [1, 0]), given(["a", "c", "d"], [1, 0, 0]))
    with pytest.raises(DataError, match="some are repeated"):
        compare_scores(given(["a", "b"], [1, 0]), given(["a", "b", "b"], [1, 0, 0]))
    with pytest.raises(DataError, match="no examples to compare"):
        compare_scores(given([], []), given([], []))
