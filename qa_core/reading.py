"""read: sources → examples + rejections. Accepted + rejected = read, in the order of the sources.

What a source can be says `qa_core.sources`; here every record of one is checked.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from qa_core.errors import DataError
from qa_core.schemas import EXAMPLES, REJECTIONS
from qa_core.sources import Record, iterate_records, short_repr

REJECTIONS_SHOWN = 5  # of a source's rejections in an error text


class _RejectedError(Exception):
    """Leaves the checks of one record, with the reason and the detail."""


def read_examples(paths: str | Path | Sequence[str | Path]) -> tuple[pa.Table, pa.Table]:
    """The examples of all sources and the records that cannot be used, each with its reason.

    Returns two tables, `qa_core.schemas.EXAMPLES` and `REJECTIONS`. Of records with the same id,
    also in different sources, the first is kept. Reads a whole source into memory.

    Raises `DataError` or `StorageError` for a source that is missing, empty or of another format;
    a bad record in a good source never raises.
    """
    sources = [str(path) for path in ([paths] if isinstance(paths, str | Path) else paths)]
    readings = [read_source(source) for source in sources]
    examples = pa.concat_tables([EXAMPLES.empty_table(), *(good for good, _, _ in readings)])
    rejected = pa.concat_tables([REJECTIONS.empty_table(), *(bad for _, bad, _ in readings)])
    records = [number for _, _, numbers in readings for number in numbers]
    repeated = find_repeated_ids(examples["id"].to_pylist())
    dropped = set(repeated)
    duplicates = reject_rows(
        examples, repeated, records=records, reason="duplicate id", detail="kept: its first record"
    )
    keep = pa.array([row not in dropped for row in range(len(examples))], pa.bool_())
    return examples.filter(keep), in_source_order([rejected, duplicates], sources)


def read_source(source: str) -> tuple[pa.Table, pa.Table, list[int]]:
    """Examples and rejections of one source, and each example's record number in it.

    Ids may repeat in the result: who joins sources looks for that (`find_repeated_ids`).
    """
    examples: list[dict[str, Any]] = []
    rejections: list[dict[str, Any]] = []
    numbers: list[int] = []
    for number, record in enumerate(iterate_records(source)):
        try:
            examples.append(check_record(record) | {"source": source})
            numbers.append(number)
        except _RejectedError as rejected:
            reason, detail = rejected.args
            rejections.append(
                {
                    "source": source,
                    "record": number,
                    "id": _id_text(record.fields.get("id")),
                    "reason": reason,
                    "detail": f"{record.place}: {detail}",
                }
            )
    good = pa.Table.from_pylist(examples, schema=EXAMPLES)
    return good, pa.Table.from_pylist(rejections, schema=REJECTIONS), numbers


def in_source_order(rejections: Sequence[pa.Table], sources: Sequence[str]) -> pa.Table:
    """All rejections in the order of the sources and of the records in each."""
    table = pa.concat_tables([REJECTIONS.empty_table(), *rejections])
    place = pc.index_in(table["source"], value_set=pa.array(sources, pa.string()))
    order = np.lexsort((table["record"].to_numpy(), place.to_numpy()))
    return table.take(pa.array(order))


def find_repeated_ids(ids: Sequence[str]) -> list[int]:
    """Rows whose id an earlier row has.

    >>> find_repeated_ids(["a", "b", "a"])
    [2]
    """
    seen: set[str] = set()
    repeated = []
    for row, example_id in enumerate(ids):
        if example_id in seen:
            repeated.append(row)
        seen.add(example_id)
    return repeated


def reject_rows(
    examples: pa.Table, rows: Sequence[int], *, records: Sequence[int], reason: str, detail: str
) -> pa.Table:
    """Rejections, all for the same reason, of the examples at `rows`.

    `records` holds each example's record number in its source.
    """
    picked = examples.take(pa.array(rows, pa.int64()))
    columns = {
        "source": picked["source"],
        "record": pa.array([records[row] for row in rows], pa.int64()),
        "id": picked["id"],
        "reason": pa.array([reason] * len(rows), pa.string()),
        "detail": pa.array([detail] * len(rows), pa.string()),
    }
    return pa.table(columns, schema=REJECTIONS)


def count_reasons(rejections: pa.Table) -> dict[str, int]:
    """Number of rejections for each reason, most frequent first."""
    counts = pc.value_counts(rejections["reason"]).to_pylist()
    ordered = sorted(counts, key=lambda pair: (-pair["counts"], pair["values"]))
    return {pair["values"]: pair["counts"] for pair in ordered}


def check_rejected_fraction(
    rejections: pa.Table,
    *,
    num_read: int,
    max_fraction: float,
    listed_in: str = "the rejections table",
) -> None:
    """Raise `DataError` when more than `max_fraction` of the records read were rejected."""
    if not len(rejections) or len(rejections) / num_read <= max_fraction:
        return
    reasons = ", ".join(f"{reason}: {n}" for reason, n in count_reasons(rejections).items())
    rows = rejections.slice(0, REJECTIONS_SHOWN).to_pylist()
    shown = "; ".join(f"{row['source']} {row['detail']}" for row in rows)
    raise DataError(
        f"{len(rejections)} of {num_read} records cannot be used ({reasons}). First: {shown}",
        where=str(rows[0]["source"]),
        expected=f"at most {max_fraction:.1%} bad records",
        remedy=f"mend the data ({listed_in} lists all), or raise data.max_rejected_fraction",
    )


def check_record(record: Record) -> dict[str, Any]:
    """The example of a record; `_RejectedError` with reason and detail where it cannot be used."""
    if record.problem:
        raise _RejectedError("malformed record", record.problem)
    fields = record.fields
    example_id = _id_text(fields.get("id"))
    if not example_id:
        raise _RejectedError("missing id", f"id is {fields.get('id')!r}, expected a text")
    for name in ("context", "question"):
        if not isinstance(fields.get(name), str) or not fields[name].strip():
            raise _RejectedError(f"missing {name}", f"{name} is {short_repr(fields.get(name))}")
        if not _is_encodable(fields[name]):
            raise _RejectedError("invalid Unicode", f"{name} holds half of a surrogate pair")
    answers = _check_answers(fields, fields["context"])
    title = fields.get("title")
    return {
        "id": example_id,
        "title": title if isinstance(title, str) and _is_encodable(title) else "",
        "context": fields["context"],
        "question": fields["question"],
        "answers": answers,
    }


def _check_answers(fields: Mapping[str, Any], context: str) -> dict[str, list[Any]]:
    """The accepted answers as lists, every one found at its answer_start."""
    answers = fields.get("answers")
    answers = [] if answers is None else answers
    if not isinstance(answers, list):
        raise _RejectedError(
            "malformed answers", f"answers is {short_repr(answers)}, expected a list"
        )
    if fields.get("is_impossible") is True and answers:
        raise _RejectedError("contradictory answers", "is_impossible is true, yet it has answers")
    for number, answer in enumerate(answers):
        _check_answer(answer, f"answers[{number}]", context)
    return {
        "text": [answer["text"] for answer in answers],
        "answer_start": [answer["answer_start"] for answer in answers],
    }


def _check_answer(answer: Any, place: str, context: str) -> None:
    text = answer.get("text") if isinstance(answer, dict) else None
    start = answer.get("answer_start") if isinstance(answer, dict) else None
    if not isinstance(text, str) or not isinstance(start, int) or isinstance(start, bool):
        expected = '{"text": …, "answer_start": …}'
        raise _RejectedError(
            "malformed answers", f"{place} is {short_repr(answer)}, expected {expected}"
        )
    if not text:
        raise _RejectedError("empty answer", f"{place} has no text")
    found = context[start : start + len(text)] if start >= 0 else ""
    if found != text:
        raise _RejectedError(
            "answer not at answer_start",
            f"{place}: expected {short_repr(text)} at character {start}, found {short_repr(found)}",
        )


def _id_text(value: Any) -> str:
    is_number = isinstance(value, int) and not isinstance(value, bool)
    text = str(value) if is_number or isinstance(value, str) else ""
    return text if text.strip() and _is_encodable(text) else ""


def _is_encodable(text: str) -> bool:
    """Whether `text` is Unicode proper: JSON may hold halves of surrogate pairs."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
