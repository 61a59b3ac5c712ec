"""Rows of answers: the answer given comes first, and agrees with its n-best list and its odds."""

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from qa_core.decoding import decode_answers
from qa_core.presenting import present_answers
from qa_core.schemas import PREDICTED
from tests.test_decoding import CONTEXTS, case


def decoded(seed: int, mode: Any, null_threshold: float | None, *, ties: bool = False) -> Any:
    """Decoded answers of random logits; one of the contexts has no token at all."""
    examples, features, start, end = case(seed, ties=ties)
    return decode_answers(
        features, start, end, examples=examples, mode=mode, null_threshold=null_threshold
    )


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("null_threshold", [None, -3.0, 0.0, 3.0])
@pytest.mark.parametrize("mode", ["exact", "reference"])
def test_rows_follow_from_the_decoded_answers(
    mode: str, null_threshold: float | None, ties: bool
) -> None:
    """Text, characters and odds are the decoder's; the n-best begins with the answer given."""
    for seed in range(4):
        answers = decoded(seed, mode, null_threshold, ties=ties)
        rows = present_answers(answers, top_k=5, has_null=null_threshold is not None)
        assert rows.schema == PREDICTED
        pairs = zip(rows.to_pylist(), answers.to_pylist(), CONTEXTS, strict=True)
        for row, answer, context in pairs:
            given = (answer["id"], answer["text"], answer["start_char"], answer["end_char"])
            assert (row["id"], row["answer"], row["start"], row["end"]) == given
            assert row["answer"] == (context[row["start"] : row["end"]] if row["answer"] else "")
            assert len(row["n_best"]) == min(5, len(answer["n_best"]))
            if row["n_best"]:
                first, *others = row["n_best"]
                assert (first["text"], first["start"], first["end"]) == given[1:]
                assert first["probability"] == row["probability"] > 0
                assert all(a["score"] >= b["score"] for a, b in pairwise(others))


def test_odds_are_those_that_the_threshold_was_held_against() -> None:
    """The null answer is given exactly above the threshold; v1.1 has no odds."""
    rows = [
        row
        for seed in range(4)
        for row in present_answers(decoded(seed, "exact", 1.0), top_k=1, has_null=True).to_pylist()
    ]
    assert {row["start"] < 0 for row in rows} == {True, False}
    for row in rows:
        assert (row["start"] < 0) == (row["null_odds"] > 1.0)
        expected = 1 / (1 + math.exp(-min(row["null_odds"], 700)))
        assert row["no_answer_probability"] == pytest.approx(expected)
    without = present_answers(decoded(0, "exact", None), top_k=1, has_null=False)
    assert without["null_odds"].null_count == len(without)
    assert without["no_answer_probability"].null_count == len(without)


def test_a_context_without_tokens_has_no_answer() -> None:
    """Nothing to choose from: empty text, probability 0, an empty list; a sure null in v2.0."""
    nothing = present_answers(decoded(0, "exact", None), top_k=3, has_null=False).to_pylist()[-1]
    assert (nothing["answer"], nothing["start"], nothing["end"]) == ("", -1, -1)
    assert (nothing["probability"], nothing["n_best"]) == (0.0, [])
    null = present_answers(decoded(0, "exact", 0.0), top_k=3, has_null=True).to_pylist()[-1]
    assert (null["probability"], null["no_answer_probability"], len(null["n_best"])) == (1, 1, 1)


def test_blocks_of_examples_are_presented_alike() -> None:
    """Slices of the decoded answers give slices of the rows."""
    answers = decoded(1, "exact", 0.0)
    whole = present_answers(answers, top_k=4, has_null=True)
    for first in range(len(answers)):
        part = present_answers(answers.slice(first, 2), top_k=4, has_null=True)
        assert part.to_pylist() == whole.slice(first, 2).to_pylist()
    assert np.all(np.array([len(n_best) for n_best in whole["n_best"].to_pylist()]) <= 4)
