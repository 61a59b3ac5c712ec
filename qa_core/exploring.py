"""explore: answers beside their questions, contexts and accepted answers, as the report shows them.

All questions of a small data set, and of a large one those of contexts that are drawn by a hash of
their text: the same ones whatever the model, the windows and the order.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from qa_core.schemas import EXPLORED
from qa_core.scoring import GivenScores
from qa_core.slices import slice_groups

MAX_QUESTIONS = 20_000  # that a page shows
MAX_CHARACTERS = 12_000_000  # of contexts and questions on a page; some 5 MB once packed
CONTEXT_CHARACTERS = 50_000  # shown of a longer context, around the answer
TEXT_CHARACTERS = 2_000  # shown of a longer question or answer
CANDIDATES = 5  # of n_best that are shown


@dataclass
class Explorer:
    """Collects rows of `EXPLORED` up to a size; whole contexts stay, those of the lowest hashes."""

    max_questions: int = MAX_QUESTIONS
    max_characters: int = MAX_CHARACTERS
    num_seen: int = 0  # questions, those left out included
    _rows: dict[int, list[pa.Table]] = field(default_factory=dict)  # by a context's hash
    _sizes: dict[int, tuple[int, int]] = field(default_factory=dict)  # questions, characters
    _below: int = 2**64  # hashes from here on are left out

    def wanted(self, contexts: pa.ChunkedArray) -> NDArray[np.bool_]:
        """Which rows, of these contexts, may still be shown, (rows,); each row is to be asked once.

        Rows that are wanted go to `add`.
        """
        self.num_seen += len(contexts)
        keys = context_keys(contexts)
        return np.array([key < self._below for key in keys], np.bool_)

    def add(self, rows: pa.Table) -> None:
        """Take rows of `EXPLORED`."""
        keys = rows["context_key"].to_numpy()
        characters = pc.utf8_length(rows["context"]).to_numpy()
        questions = pc.utf8_length(rows["question"]).to_numpy()
        for key in np.unique(keys).tolist():
            where = np.flatnonzero(keys == key)
            is_whole = len(set(rows["context_start"].take(where).to_pylist())) == 1
            size = characters[where].max() if is_whole else characters[where].sum()
            count, so_far = self._sizes.get(key, (0, 0))
            total = so_far + int(size) + int(questions[where].sum())
            self._sizes[key] = (count + len(where), total)
            self._rows.setdefault(key, []).append(rows.take(pa.array(where)))
        self._shrink()

    def _shrink(self) -> None:
        """Leave out the contexts of the highest hashes until the rest is small enough."""
        questions, characters = (
            sum(size[part] for size in self._sizes.values()) for part in (0, 1)
        )
        for key in sorted(self._sizes, reverse=True):
            is_last = len(self._sizes) == 1
            if (questions <= self.max_questions and characters <= self.max_characters) or is_last:
                return
            count, size = self._sizes.pop(key)
            del self._rows[key]
            questions, characters = questions - count, characters - size
            self._below = key

    def table(self) -> pa.Table:
        """`EXPLORED` rows by id.

        The schema's metadata have `num_questions`, also those that are left out, and `below`: the
        hashes of contexts that are not left out are smaller.
        """
        parts = [table for tables in self._rows.values() for table in tables]
        table = pa.concat_tables([EXPLORED.empty_table(), *parts]).sort_by("id")
        about = {"num_questions": str(self.num_seen), "below": str(self._below)}
        return table.replace_schema_metadata(about)


def explored_rows(
    examples: pa.Table,
    answers: pa.Table,
    *,
    given: GivenScores,
    facts: pa.Table,
    windows: Sequence[tuple[list[int], list[int]]] | None = None,
) -> pa.Table:
    """`EXPLORED` rows of examples (`EXAMPLES`) with the answers given to them, row by row.

    `answers` are `PREDICTED`, or have `answer` alone where no model is known; `given` and `facts`
    have the same ids, sorted: those of these examples, or more; `windows` are the first and end
    characters of each example's windows.
    """
    rows = np.searchsorted(given.ids, np.array(examples["id"].to_pylist(), object))
    ids = examples["id"].to_pylist()
    contexts = examples["context"].to_pylist()
    golds = [_gold_places(row) for row in examples["answers"].to_pylist()]
    texts = answers["answer"].to_pylist()
    starts, ends = _places(answers, contexts, texts)
    parts = [
        shown_part(context, start if start >= 0 else next(iter(gold), (0, 0))[0])
        for context, start, gold in zip(contexts, starts, golds, strict=True)
    ]
    columns: dict[str, Any] = {
        "id": ids,
        "source": examples["source"].to_pylist(),
        "question": [shown_text(text) for text in examples["question"].to_pylist()],
        "context": [text for text, _ in parts],
        "context_key": context_keys(examples["context"]),
        "context_start": [first for _, first in parts],
        "context_length": [len(context) for context in contexts],
        "gold_starts": [[start for start, _ in gold] for gold in golds],
        "gold_ends": [[end for _, end in gold] for gold in golds],
        "answer": [shown_text(text) for text in texts],
        "start": starts,
        "end": ends,
        **_candidates(answers),
        "window_starts": [first for first, _ in windows] if windows else [[]] * len(ids),
        "window_ends": [end for _, end in windows] if windows else [[]] * len(ids),
        "exact": given.exact[rows],
        "f1": given.f1[rows],
        **_group_names(facts.take(pa.array(rows))),
    }
    return pa.table(
        {name: pa.array(columns[name], EXPLORED.field(name).type) for name in EXPLORED.names},
        schema=EXPLORED,
    )


def shown_part(context: str, place: int) -> tuple[str, int]:
    """The part of a context that is shown, around a character, and its first character."""
    if len(context) <= CONTEXT_CHARACTERS:
        return context, 0
    first = min(max(0, place - CONTEXT_CHARACTERS // 2), len(context) - CONTEXT_CHARACTERS)
    return context[first : first + CONTEXT_CHARACTERS], first


def shown_text(text: str) -> str:
    """A text, or the beginning of a long one, which then says so."""
    more = len(text) - TEXT_CHARACTERS
    return text if more <= 0 else f"{text[:TEXT_CHARACTERS]} … ({more:,} characters more)"


def context_keys(contexts: pa.ChunkedArray) -> list[int]:
    """A number of each context that follows from its text alone, 0 to 2**64 - 1."""
    encoded = contexts.combine_chunks()
    if not pa.types.is_dictionary(encoded.type):
        encoded = encoded.dictionary_encode()
    keys = [
        int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
        for text in encoded.dictionary.to_pylist()
    ]
    return [keys[number] for number in encoded.indices.to_pylist()]


def _gold_places(answers: dict[str, list[Any]]) -> list[tuple[int, int]]:
    """Characters of accepted answers, each place once, in their order."""
    pairs = zip(answers["text"], answers["answer_start"], strict=True)
    return list(dict.fromkeys((start, start + len(text)) for text, start in pairs))


def _places(
    answers: pa.Table, contexts: Sequence[str], texts: Sequence[str]
) -> tuple[list[int], list[int]]:
    """Characters of the answers given; where no model says them, the text's only place."""
    if "start" in answers.column_names:
        return answers["start"].to_pylist(), answers["end"].to_pylist()
    starts = [
        context.find(text) if text and context.count(text) == 1 else -1
        for context, text in zip(contexts, texts, strict=True)
    ]
    ends = [s + len(t) if s >= 0 else -1 for s, t in zip(starts, texts, strict=True)]
    return starts, ends


def _candidates(answers: pa.Table) -> dict[str, Any]:
    if "n_best" not in answers.column_names:
        names = ("n_best_starts", "n_best_ends", "n_best_probabilities")
        unknown = [None] * len(answers)
        return {"probability": unknown, "null_odds": unknown} | {
            name: [[]] * len(answers) for name in names
        }
    lists = answers["n_best"].to_pylist()
    ranked = [sorted(rows, key=lambda row: -row["probability"])[:CANDIDATES] for rows in lists]
    return {
        "probability": answers["probability"].to_pylist(),
        "null_odds": answers["null_odds"].to_pylist(),
        "n_best_starts": [[row["start"] for row in rows] for rows in ranked],
        "n_best_ends": [[row["end"] for row in rows] for rows in ranked],
        "n_best_probabilities": [[row["probability"] for row in rows] for rows in ranked],
    }


def _group_names(facts: pa.Table) -> dict[str, list[str | None]]:
    groups = slice_groups(facts)
    names: dict[str, list[str | None]] = {}
    for name in ("question_word", "answer_words", "context_tokens", "num_windows"):
        labels, number_of = groups.get(name, ([None], np.zeros(len(facts), np.int64)))
        names[name] = [labels[number] for number in number_of.tolist()]
    return names
