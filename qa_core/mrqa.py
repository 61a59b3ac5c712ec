"""MRQA's answers: where a text was detected in its context, by characters with inclusive ends."""

import unicodedata
from collections.abc import Mapping
from typing import Any

from qa_core.records import ReadingRules, rename_fields

DETECTED = "detected_answers"


def mrqa_question(
    question: Mapping[str, Any], context: Any, rules: ReadingRules
) -> Mapping[str, Any]:
    """A question of MRQA's JSON lines by our names: every span of a detected answer is accepted.

    `qid` is the id (the official script's), else `id`. Without `detected_answers` the answers
    are read as SQuAD's.
    """
    fields = dict(rename_fields(question, rules))
    if not rules.is_mapped("id"):
        fields["id"] = question.get("qid", question.get("id"))
    if DETECTED in question and rules.column("answers") in ("answers", DETECTED):
        detected = question[DETECTED]
        fields["answers"] = _spans_of(detected, context) if _is_shaped(detected) else detected
    return fields


def _is_shaped(detected: Any) -> bool:
    """Whether these are objects of a text and at least one pair of numbers."""
    return isinstance(detected, list) and all(
        isinstance(answer, dict)
        and isinstance(answer.get("text"), str)
        and isinstance(answer.get("char_spans"), list)
        and answer["char_spans"]
        and all(map(_is_span, answer["char_spans"]))
        for answer in detected
    )


def _is_span(span: Any) -> bool:
    return isinstance(span, list) and list(map(type, span)) == [int, int]


def _spans_of(detected: Any, context: Any) -> list[dict[str, Any]]:
    return [
        {"text": _text_at(context, start, end, answer["text"]), "answer_start": start}
        for answer in detected
        for start, end in answer["char_spans"]
    ]


def _text_at(context: Any, start: int, end: int, text: str) -> str:
    """The context's text at a span (`end` inclusive), where it is that of the answer.

    The detected text may be written otherwise, in small letters above all: the same letters and
    digits are the same answer. Where they differ, the answer's own text is given, which the
    check of every answer then does not find.

    >>> _text_at("Opened in May.", 10, 12, "may")
    'May'
    """
    if not isinstance(context, str) or not 0 <= start <= end or context.startswith(text, start):
        return text
    found = context[start : end + 1]
    return found if _letters(found) == _letters(text) else text


def _letters(text: str) -> str:
    """Letters and digits alone, without case; the text itself where it has none."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(filter(str.isalnum, folded)) or folded
