"""The checks of one record: an example whose answers stand where they should, or a reason."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from qa_core.records import ReadingRules, Record, short_repr
from qa_core.repairs import Repair, find_repair

LONGEST_CONTEXT = 5_000_000  # characters: a book; beyond it a record is a file put in one field
LONGEST_TEXT = 100_000  # characters of id, title and question: far beyond any model's window

ANSWER_SHAPE = '{"text": …, "answer_start": …}'


class RejectedError(Exception):
    """Leaves the checks of one record, with the reason and the detail."""


class CheckedExample(NamedTuple):
    """The columns of an example, and what was mended in it."""

    id: str
    title: str
    context: str
    question: str
    texts: list[str]
    starts: list[int]
    repairs: list[tuple[str, str]]  # reason and detail


def check_record(
    record: Record, rules: ReadingRules, *, known_context: str | None = None
) -> CheckedExample:
    """The example of a record; `RejectedError` with reason and detail where it cannot be used.

    `known_context` is a context that has passed: neighbours mostly share one, which may be long.
    """
    if record.problem:
        raise RejectedError("malformed record", record.problem)
    fields = record.fields
    example_id = id_text(fields.get("id"))
    if not example_id:
        raise RejectedError("missing id", f"id is {_found(record, 'id', rules)}, expected a text")
    context, question, title = fields.get("context"), fields.get("question"), fields.get("title")
    if context is not known_context or context is None:
        _check_text(record, "context", LONGEST_CONTEXT, rules)
    _check_text(record, "question", LONGEST_TEXT, rules)
    title = title if isinstance(title, str) and is_encodable(title) else ""
    if len(example_id) > LONGEST_TEXT:
        raise _too_long("id", example_id, LONGEST_TEXT)
    if len(title) > LONGEST_TEXT:
        raise _too_long("title", title, LONGEST_TEXT)
    assert isinstance(context, str)
    assert isinstance(question, str)
    texts, starts, repairs = _check_answers(record, context, rules)
    return CheckedExample(example_id, title, context, question, texts, starts, repairs)


def _check_text(record: Record, name: str, longest: int, rules: ReadingRules) -> None:
    text = record.fields.get(name)
    if not isinstance(text, str) or not text or text.isspace():
        raise RejectedError(f"missing {name}", f"{name} is {_found(record, name, rules)}")
    if len(text) > longest:
        raise _too_long(name, text, longest)
    if not is_encodable(text):
        raise RejectedError("invalid Unicode", f"{name} holds {_unicode_problem(text)}")


def _too_long(name: str, text: str, longest: int) -> RejectedError:
    advice = "cut it into passages" if name == "context" else "shorten it"
    return RejectedError(
        f"{name} too long", f"{name} has {len(text)} characters, at most {longest}: {advice}"
    )


def _found(record: Record, name: str, rules: ReadingRules) -> str:
    """What stands in a column, with the name the source has for it and what else helps."""
    mapped = f" (data.columns.{name} is {rules.column(name)!r})" if rules.is_mapped(name) else ""
    hint = record.hints.get(name, "") if name not in record.fields else ""
    return short_repr(record.fields.get(name)) + mapped + hint


def _check_answers(
    record: Record, context: str, rules: ReadingRules
) -> tuple[list[str], list[int], list[tuple[str, str]]]:
    """The accepted answers' texts and starts, every one found there, and what was mended."""
    if not rules.has_answers:
        return [], [], []
    if "answers" not in record.fields and rules.is_mapped("answers"):
        found = _found(record, "answers", rules)
        raise RejectedError("missing answers", f"answers is {found}, expected null for none")
    texts, starts, repairs = [], [], []
    for number, answer in enumerate(_answer_list(record.fields)):
        text, start = _answer_parts(answer, number)
        if start < 0 or not context.startswith(text, start):
            repair = _repair_answer(text, start, f"answers[{number}]", context, rules)
            detail = f"answers[{number}]: {_change(text, start, repair)}"
            repairs.append((repair.reason, detail))
            text, start = repair.text, repair.start
        texts.append(text)
        starts.append(start)
    return texts, starts, repairs


def _answer_list(fields: Mapping[str, Any]) -> list[Any]:
    """Answers as a list of objects, from either shape: that, or lists of texts and starts."""
    answers = fields.get("answers")
    if answers is None:
        return []
    if isinstance(answers, dict) and {"text", "answer_start"} <= answers.keys():
        answers = _answer_objects(answers["text"] or [], answers["answer_start"] or [])
    if not isinstance(answers, list):
        expected = f'{ANSWER_SHAPE[:-1]}}} objects or {{"text": […], "answer_start": […]}}'
        raise RejectedError(
            "malformed answers", f"answers is {short_repr(answers)}, expected a list of {expected}"
        )
    if fields.get("is_impossible") is True and answers:
        raise RejectedError("contradictory answers", "is_impossible is true, yet it has answers")
    return answers


def _answer_objects(texts: Any, starts: Any) -> Any:
    """Lists of texts and starts as objects; the value itself where they are no lists."""
    if not isinstance(texts, list) or not isinstance(starts, list):
        return {"text": texts, "answer_start": starts}
    if len(texts) != len(starts):
        raise RejectedError("malformed record", "answers: text and answer_start differ in length")
    return [{"text": t, "answer_start": s} for t, s in zip(texts, starts, strict=True)]


def _answer_parts(answer: Any, number: int) -> tuple[str, int]:
    text = answer.get("text") if isinstance(answer, dict) else None
    start = answer.get("answer_start") if isinstance(answer, dict) else None
    if not isinstance(text, str) or type(start) is not int:  # True is an int, too
        raise RejectedError(
            "malformed answers",
            f"answers[{number}] is {short_repr(answer)}, expected {ANSWER_SHAPE}",
        )
    if not text:
        raise RejectedError("empty answer", f"answers[{number}] has no text")
    return text, start


def _repair_answer(text: str, start: int, place: str, context: str, rules: ReadingRules) -> Repair:
    """Where an answer stands after all, if that may be mended."""
    repair = find_repair(context, text, start)
    if repair is not None and rules.repair_offsets:
        return repair
    found = short_repr(context[start : start + len(text)] if start >= 0 else "")
    advice = f" (data.repair_offsets would repair it: {_change(text, start, repair)})"
    raise RejectedError(
        "answer not at answer_start",
        f"{place}: expected {short_repr(text)} at character {start}, found {found}"
        + (advice if repair else ""),
    )


def _change(text: str, start: int, repair: Repair | None) -> str:
    if repair is None:
        return ""
    return f"{short_repr(text)} at {start} → {short_repr(repair.text)} at {repair.start}"


def id_text(value: Any) -> str:
    """An id as text; "" where it is none."""
    text = value if isinstance(value, str) else str(value) if type(value) is int else ""
    return text if text and not text.isspace() and is_encodable(text) else ""


def is_encodable(text: str) -> bool:
    """Whether `text` is Unicode proper: JSON may hold halves of surrogate pairs."""
    return text.isascii() or _surrogate_at(text) < 0


def _unicode_problem(text: str) -> str:
    at = _surrogate_at(text)
    return f"half of a surrogate pair, or a byte that is not UTF-8, at character {at}"


def _surrogate_at(text: str) -> int:
    """First character that cannot be encoded; -1 where there is none."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return error.start
    return -1
