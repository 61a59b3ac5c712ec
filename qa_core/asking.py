"""ask: what a caller gives, in the manner of the former pipeline → examples without answers."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from qa_core.checking import is_encodable
from qa_core.errors import DataError
from qa_core.records import COLUMNS, nearest_name, short_repr
from qa_core.schemas import ANSWERS

CALLER = "Answerer"
PARTS = ("question", "context")
SHAPES = 'a dictionary of "question" and "context", or a tuple (question, context)'

Texts = str | Iterable[str] | None


@dataclass(frozen=True)
class Asked:
    """Questions about contexts, each context once, however many questions it has."""

    questions: list[str]
    contexts: list[str]  # distinct
    context_of: list[int]  # of each question, number of its context
    is_single: bool  # one pair was given, not a list of them

    def __len__(self) -> int:
        return len(self.questions)

    @property
    def examples(self) -> pa.Table:
        """`id` (the pair's number), `question`, `context` (a dictionary's) and no `answers`."""
        numbers = pa.array(self.context_of, pa.int32())
        nothing: dict[str, list[Any]] = {"text": [], "answer_start": []}
        return pa.table(
            {
                "id": pa.array(map(str, range(len(self))), pa.string()),
                "question": pa.array(self.questions, pa.string()),
                "context": pa.DictionaryArray.from_arrays(
                    numbers, pa.array(self.contexts, pa.string())
                ),
                "answers": pa.array([nothing] * len(self), ANSWERS),
            }
        )


def read_asked(pairs: Sequence[Any], *, question: Texts = None, context: Texts = None) -> Asked:
    """The pairs of a call, given by position or by keyword.

    By position: a pair, several, or a list of them, a pair being a dictionary of question and
    context or a tuple (question, context); also a question and a context. By keyword: a text or
    a list of each; one of either may stand for many. Raises `DataError` naming the first pair
    that cannot be used.

    >>> read_asked([{"question": "When?", "context": "In 1912."}]).is_single
    True
    >>> read_asked([], question=["When?", "Where?"], context="In 1912.").context_of
    [0, 0]
    """
    if not pairs:
        return _from_keywords(question, context)
    if question is not None or context is not None:
        raise DataError(
            "pairs by position, and question or context by keyword", CALLER, "one of the two"
        )
    if len(pairs) > 1 and not _are_two_texts(pairs):
        return _number_texts(pairs, is_single=False)
    given = tuple(pairs) if len(pairs) > 1 else pairs[0]
    if isinstance(given, Mapping) or _are_two_texts(given):
        return _number_texts([given], is_single=True)
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise DataError(f"{short_repr(given)} is no pair", CALLER, f"{SHAPES}, or a list of these")
    return _number_texts(list(given), is_single=False)


def _from_keywords(question: Texts, context: Texts) -> Asked:
    if question is None or context is None:
        missing = [n for n, text in zip(PARTS, (question, context), strict=True) if text is None]
        raise DataError(f"no {' and no '.join(missing)}", CALLER, "a question and a context")
    is_single = isinstance(question, str) and isinstance(context, str)
    questions, contexts = _listed(question, "question"), _listed(context, "context")
    contexts = contexts * len(questions) if len(contexts) == 1 else contexts
    questions = questions * len(contexts) if len(questions) == 1 else questions
    if len(questions) != len(contexts) or not questions:
        raise DataError(
            f"{len(questions)} questions and {len(contexts)} contexts",
            where=CALLER,
            expected="as many of the one as of the other, or one of either",
        )
    return _number_texts(list(zip(questions, contexts, strict=True)), is_single=is_single)


def _listed(given: str | Iterable[str], name: str) -> list[Any]:
    if not isinstance(given, Iterable):
        raise DataError(f"{name} is {short_repr(given)}", CALLER, "a text or a list of texts")
    return [given] if isinstance(given, str) else list(given)


def _number_texts(pairs: Sequence[Any], *, is_single: bool) -> Asked:
    """The texts of all pairs, checked, each context once."""
    if not pairs:
        raise DataError("no pair", CALLER, "one question and context at least")
    questions, context_of = [], []
    numbers: dict[str, int] = {}
    for row, pair in enumerate(pairs):
        where = f"{CALLER}, pair {row}"
        question, context = _texts_of(pair, where)
        _check_text(question, "question", where)
        if not isinstance(context, str) or context not in numbers:  # a long one is checked once
            _check_text(context, "context", where)
        questions.append(question)
        context_of.append(numbers.setdefault(context, len(numbers)))
    return Asked(questions, list(numbers), context_of, is_single)


def _texts_of(pair: Any, where: str) -> tuple[Any, Any]:
    """Question and context of a dictionary or a pair of texts."""
    if isinstance(pair, Mapping):
        _check_keys(pair, where)
        return pair["question"], pair["context"]
    if isinstance(pair, tuple | list) and len(pair) == len(PARTS):
        return pair[0], pair[1]
    raise DataError(f"{short_repr(pair)} is no pair", where, SHAPES)


def _check_keys(pair: Mapping[Any, Any], where: str) -> None:
    """Raise `DataError` where a part is missing or a key is none of a data set's row."""
    unknown = [key for key in pair if key not in COLUMNS]
    missing = [name for name in PARTS if name not in pair]
    if not unknown and not missing:
        return
    near = nearest_name(str(unknown[0]), PARTS) if unknown else ""
    found = f"unknown key {unknown[0]!r}" if unknown else f"no key {missing[0]!r}"
    raise DataError(
        f"{found} (it has {sorted(map(str, pair))})",
        where=where,
        expected='"question" and "context"',
        remedy=f"rename it to {near!r}" if near else "",
    )


def _check_text(text: Any, name: str, where: str) -> None:
    if not isinstance(text, str):
        found = f"the {name} is {short_repr(text)}, of type {type(text).__name__}"
        raise DataError(found, where, "a text")
    if not text or text.isspace():
        raise DataError(f"the {name} is empty", where, "some text")
    if not is_encodable(text):
        raise DataError(f"the {name} holds half of a surrogate pair", where, "Unicode text")


def _are_two_texts(given: Any) -> bool:
    return isinstance(given, tuple) and list(map(type, given)) == [str, str]
