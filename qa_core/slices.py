"""slice: what is known of each example beside its scores, and scores of groups of examples.

`example_facts` runs where answers are decoded; its rows join in any order. `slice_scores` and
`qa_core.calibration` look at all of them.
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from qa_core.errors import DataError
from qa_core.normalizing import Language, normalize_answer, split_words
from qa_core.scoring import (
    ExampleScores,
    GivenScores,
    given_scores,
    normalized_golds,
    word_f1,
)

TOP_N = (1, 2, 3, 5, 10, 20)

# What is known of an example from its texts alone.
TEXT_FACTS = pa.schema(
    [
        ("id", pa.string()),  # of the example
        ("question_word", pa.string()),  # one of QUESTION_WORDS
        ("answer_words", pa.int32()),  # words of the first accepted answer; 0 without one
        ("source", pa.string()),  # the path or name the example was read from
    ]
)
# And what is known where a model has answered it.
FACTS = pa.schema(
    [
        *TEXT_FACTS,
        ("context_tokens", pa.int32()),  # of the whole context, without special tokens
        ("num_windows", pa.int32()),
        ("candidate_scores", pa.list_(pa.float32())),  # of n_best, best first
        ("null_rank", pa.int16()),  # place of the null answer in n_best, from 0; -1: not in it
        ("exact_rank", pa.int16()),  # place of the first exact match in n_best; -1: none
        ("top_f1", pa.list_(pa.float32())),  # best F1 (0 to 1) among the first n, for n in TOP_N
    ]
)

QUESTION_WORDS = ("who", "what", "when", "where", "why", "how", "which", "other")
_QUESTION_WORD = re.compile(r"\b(who|whose|whom|what|when|where|why|how|which)\b", re.IGNORECASE)

# Names of slices and the first value of each; the last one is open.
ANSWER_WORDS = {"no answer": 0, "1": 1, "2-3": 2, "4-6": 4, "7+": 7}
CONTEXT_TOKENS = {"1-128": 0, "129-256": 129, "257-384": 257, "385-512": 385, "513+": 513}
NUM_WINDOWS = {"1": 0, "2": 2, "3": 3, "4": 4, "5+": 5}


def example_facts(
    answers: pa.Table,
    examples: pa.Table,
    *,
    num_windows: NDArray[np.integer],
    context_tokens: NDArray[np.integer],
    golds: Sequence[Sequence[str]] | None = None,
    language: Language | None = None,
) -> pa.Table:
    """`FACTS` of decoded answers, a row an example, in the order of `examples`.

    `answers` are row for row those of `examples`, `num_windows` and `context_tokens`
    (examples,); `golds` their `normalized_golds`, where known. An example without any candidate
    has no candidate_scores and a top_f1 of 0.
    """
    ids = examples["id"].combine_chunks()
    if not answers["id"].combine_chunks().equals(ids):
        raise DataError("answers and examples have other ids", "slices", "the same, row for row")
    n_best = answers["n_best"].combine_chunks()
    sizes = np.asarray(n_best.value_lengths()).astype(np.int64)  # (examples,)
    candidates = n_best.flatten()
    exact_rank, top_f1 = _match_examples(
        candidates.field("text").to_pylist(),
        sizes,
        normalized_golds(examples, language=language) if golds is None else golds,
        language,
    )
    splits = pa.array(np.concatenate([[0], np.cumsum(sizes)]), pa.int32())
    texts = text_facts(examples, language=language)
    columns: dict[str, Any] = {
        **{name: texts[name] for name in TEXT_FACTS.names},
        "context_tokens": pa.array(context_tokens, pa.int32()),
        "num_windows": pa.array(num_windows, pa.int32()),
        "candidate_scores": pa.ListArray.from_arrays(splits, candidates.field("score")),
        "null_rank": pa.array(_null_ranks(candidates.field("start_char"), sizes), pa.int16()),
        "exact_rank": pa.array(exact_rank, pa.int16()),
        "top_f1": pa.array(top_f1, pa.list_(pa.float32())),
    }
    return pa.table(columns, schema=FACTS)


def text_facts(examples: pa.Table, *, language: Language | None = None) -> pa.Table:
    """`TEXT_FACTS` of examples, in their order."""
    words = map(question_word, examples["question"].to_pylist())
    columns = {
        "id": examples["id"],
        "question_word": pa.array(words, pa.string()),
        "answer_words": pa.array(_answer_words(examples, language), pa.int32()),
        "source": examples["source"].cast(pa.string()),
    }
    return pa.table(columns, schema=TEXT_FACTS)


def question_word(question: str) -> str:
    """The first English question word in the text, "who" for its other cases; else "other".

    >>> question_word("In what year did she ask who it was?")
    'what'
    """
    found = _QUESTION_WORD.search(question)
    word = found[0].lower() if found else "other"
    return "who" if word.startswith("who") else word


def slice_scores(
    scores: ExampleScores, facts: pa.Table, *, null_threshold: float | None
) -> dict[str, list[dict[str, Any]]]:
    """`slice_given` of the answers given after `null_threshold`."""
    return slice_given(given_scores(scores, null_threshold=null_threshold), facts)


def slice_given(given: GivenScores, facts: pa.Table) -> dict[str, list[dict[str, Any]]]:
    """Scores of groups of examples, 0 to 100; rows of `given` and `facts` by the same ids.

    By `question_word`, `answer_words`, `source` and, where a model's facts are there,
    `context_tokens` and `num_windows`: each group that has an example, with `slice` (its name),
    `total`, `exact` and `f1`.
    """
    check_same_ids(given, facts)
    return {
        name: [
            {
                "slice": label,
                "total": int(rows.sum()),
                "exact": 100 * float(given.exact[rows].mean()),
                "f1": 100 * float(given.f1[rows].mean()),
            }
            for number, label in enumerate(labels)
            if (rows := number_of == number).any()
        ]
        for name, (labels, number_of) in slice_groups(facts).items()
    }


def slice_groups(facts: pa.Table) -> dict[str, tuple[list[str], NDArray[np.int64]]]:
    """By name of a slicing: its groups' names, and the number of each example's, (examples,)."""
    sources = sorted(pc.unique(facts["source"]).to_pylist())
    groups = {
        "question_word": _groups_by_name(facts["question_word"], QUESTION_WORDS),
        "answer_words": _groups_by_size(facts["answer_words"], ANSWER_WORDS),
    }
    for name, first_of in (("context_tokens", CONTEXT_TOKENS), ("num_windows", NUM_WINDOWS)):
        if name in facts.column_names:
            groups[name] = _groups_by_size(facts[name], first_of)
    return groups | {"source": _groups_by_name(facts["source"], sources)}


def check_same_ids(scores: ExampleScores | GivenScores, facts: pa.Table) -> None:
    """Raises `DataError` unless `facts` are of the examples of `scores`, row for row."""
    if not facts["id"].equals(pa.chunked_array([pa.array(scores.ids, pa.string())])):
        raise DataError(
            "scores and facts have other ids, or another order",
            where="slices",
            expected=f"facts of the {len(scores.ids)} examples, sorted by id as the scores are",
        )


def _match_examples(
    texts: list[str],
    sizes: NDArray[np.int64],
    golds: Sequence[Sequence[str]],
    language: Language | None,
) -> tuple[list[int], list[list[float]]]:
    """exact_rank and top_f1 of each example; `texts` are its n_best, one after another."""
    ranks, best = [], []
    first = 0
    for size, gold in zip(sizes.tolist(), golds, strict=True):
        rank, so_far = _match_candidates(texts[first : first + size], gold, language)
        ranks.append(rank)
        best.append([so_far[min(n, len(so_far)) - 1] for n in TOP_N])
        first += size
    return ranks, best


def _match_candidates(
    texts: Sequence[str], gold: Sequence[str], language: Language | None
) -> tuple[int, list[float]]:
    """Place of the first exact match (-1: none), and the best F1 up to each place before it.

    The best F1 goes as far as TOP_N asks for, and no further than the exact match: it stays 1.
    """
    gold_words = [answer.split() for answer in gold]
    so_far = [0.0]
    tried = set()
    for rank, text in enumerate(texts):
        best = so_far[-1]
        if text not in tried:
            tried.add(text)
            normalized = normalize_answer(text, language)
            if normalized in gold:
                return rank, [*so_far[1:], 1.0]
            if rank < TOP_N[-1]:
                best = _better_f1(normalized.split(), gold_words, best)
        if rank < TOP_N[-1]:
            so_far.append(best)
    return -1, so_far[1:] or so_far


def _better_f1(words: list[str], gold_words: list[list[str]], best: float) -> float:
    """The largest of `best` and the F1 of `words` with each answer."""
    for answer in gold_words:
        both = len(words) + len(answer)
        if 2 * min(len(words), len(answer)) > best * both:  # else their lengths alone forbid it
            best = max(best, word_f1(words, answer))
    return best


def _null_ranks(start_char: pa.Array, sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Place of the null answer in each list, (examples,); -1 where it is not there."""
    rows = np.flatnonzero(start_char.to_numpy() == -1)  # of all candidates
    ends = np.cumsum(sizes)
    example = np.searchsorted(ends, rows, side="right")
    ranks = np.full(len(sizes), -1, np.int64)
    ranks[example] = rows - (ends - sizes)[example]
    return ranks


def _answer_words(examples: pa.Table, language: Language | None) -> list[int]:
    lists = examples["answers"].combine_chunks().field("text").to_pylist()
    return [max(1, len(split_words(texts[0], language))) if texts else 0 for texts in lists]


def _groups_by_name(
    column: pa.ChunkedArray, names: Sequence[str]
) -> tuple[list[str], NDArray[np.int64]]:
    numbers = pc.index_in(column, value_set=pa.array(names, pa.string()))
    return list(names), numbers.to_numpy().astype(np.int64)


def _groups_by_size(
    column: pa.ChunkedArray, first_of: dict[str, int]
) -> tuple[list[str], NDArray[np.int64]]:
    group = np.searchsorted(list(first_of.values()), column.to_numpy(), side="right") - 1
    return list(first_of), group.astype(np.int64)
