"""read: files → examples + rejections. Accepted + rejected = read, in the order of the sources.

A source is a path or URI of SQuAD v1.1 / v2.0 JSON, a folder saved by `datasets`
(`Dataset.save_to_disk`), `hub:NAME:SPLIT` for a data set on the Hub, or `embedded:NAME` for the
data shipped with the project.
"""

import codecs
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from qa_core.demo_corpus import generate_corpus
from qa_core.errors import DataError
from qa_core.schemas import EXAMPLES, REJECTIONS
from qa_core.storage import digest_file, is_directory, is_file, list_files, read_bytes

EMBEDDED = ("embedded:train", "embedded:dev", "embedded:handwritten")

SQUAD_SHAPE = '{"data": [{"title", "paragraphs": [{"context", "qas": [...]}]}]}'
REJECTIONS_SHOWN = 5  # of a source's rejections in an error text


@dataclass(frozen=True)
class Record:
    """One question as its source gives it, unchecked; `problem` is set where it has no shape."""

    place: str
    fields: Mapping[str, Any]
    problem: str = ""


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


def check_rejected_fraction(rejections: pa.Table, *, num_read: int, max_fraction: float) -> None:
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
        remedy="mend the data (rejections.jsonl lists all), or raise data.max_rejected_fraction",
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
            raise _RejectedError(f"missing {name}", f"{name} is {_short(fields.get(name))}")
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
        raise _RejectedError("malformed answers", f"answers is {_short(answers)}, expected a list")
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
            "malformed answers", f"{place} is {_short(answer)}, expected {expected}"
        )
    if not text:
        raise _RejectedError("empty answer", f"{place} has no text")
    found = context[start : start + len(text)] if start >= 0 else ""
    if found != text:
        raise _RejectedError(
            "answer not at answer_start",
            f"{place}: expected {_short(text)} at character {start}, found {_short(found)}",
        )


def iterate_records(source: str) -> Iterator[Record]:
    """The records of a source, in its order; raises for a source of no known kind."""
    if source.startswith("embedded:"):
        return _iterate_squad(load_embedded(source), source)
    if source.startswith("hub:") or is_directory(source):
        return _iterate_dataset(source)
    return _iterate_squad(_load_json(source), source)


def check_source(source: str) -> None:
    """Raise `DataError` unless `source` names something that can be read; reads nothing."""
    if source.startswith("embedded:"):
        if source not in EMBEDDED:
            raise DataError("no such embedded data", source, f"one of {', '.join(EMBEDDED)}")
    elif not source.startswith("hub:") and not is_file(source) and not is_directory(source):
        raise DataError(
            "no such file or folder",
            where=source,
            expected="SQuAD JSON, a folder saved by datasets, hub:NAME:SPLIT, or "
            + ", ".join(EMBEDDED),
            remedy=f"check the path (a relative one is taken from {Path.cwd()})",
        )


def source_digest(source: str) -> str:
    """Hexadecimal digest of a source's content: the same content, the same digest."""
    digest = hashlib.sha256()
    if source.startswith("embedded:"):
        digest.update(json.dumps(load_embedded(source)).encode())
    elif source.startswith("hub:"):
        digest.update(str(_load_hub(source)._fingerprint).encode())
    else:
        check_source(source)
        for file in list_files(source):
            digest.update(digest_file(file))
    return digest.hexdigest()


def load_embedded(source: str) -> dict[str, Any]:
    """The SQuAD v2.0 document of an `embedded:` source."""
    check_source(source)
    if source == "embedded:handwritten":
        file = resources.files("qa_core").joinpath("embedded", "handwritten.json")
        document: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return document
    return generate_corpus("train" if source == "embedded:train" else "dev")


def _load_json(source: str) -> Any:
    check_source(source)
    content = read_bytes(source)
    content = content.removeprefix(codecs.BOM_UTF8)
    if not content.strip():
        raise DataError("the file is empty", source, f"SQuAD JSON: {SQUAD_SHAPE}")
    try:
        return json.loads(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise DataError(
            f"not UTF-8 at byte {error.start}", source, "UTF-8 text", "convert the file to UTF-8"
        ) from error
    except json.JSONDecodeError as error:
        raise DataError(
            f"not JSON at line {error.lineno}, column {error.colno} ({error.msg})",
            where=source,
            expected=f"SQuAD JSON: {SQUAD_SHAPE}",
            remedy="check that the file is whole",
        ) from error
    except (RecursionError, ValueError) as error:
        raise DataError(f"JSON beyond all bounds ({error})", source, SQUAD_SHAPE) from error


def _iterate_squad(document: Any, source: str) -> Iterator[Record]:
    articles = document.get("data") if isinstance(document, dict) else None
    if not isinstance(articles, list):
        keys = f"keys {sorted(document)[:8]}" if isinstance(document, dict) else "no object"
        raise DataError(f"JSON, but not SQuAD's ({keys})", source, SQUAD_SHAPE)
    if not articles:
        raise DataError("the file has no articles", source, f"SQuAD JSON: {SQUAD_SHAPE}")
    return _squad_records(articles)


def _squad_records(articles: Iterable[Any]) -> Iterator[Record]:
    for a, article in enumerate(articles):
        paragraphs = article.get("paragraphs") if isinstance(article, dict) else None
        if not isinstance(paragraphs, list):
            yield Record(f"data[{a}]", {}, "expected an object with a list of paragraphs")
            continue
        for p, paragraph in enumerate(paragraphs):
            yield from _paragraph_records(paragraph, f"data[{a}].paragraphs[{p}]", article)


def _paragraph_records(paragraph: Any, place: str, article: Mapping[str, Any]) -> Iterator[Record]:
    questions = paragraph.get("qas") if isinstance(paragraph, dict) else None
    if not isinstance(questions, list):
        yield Record(place, {}, "expected an object with context and a list qas")
        return
    shared = {"title": article.get("title"), "context": paragraph.get("context")}
    for q, question in enumerate(questions):
        if isinstance(question, dict):
            yield Record(f"{place}.qas[{q}]", question | shared)
        else:
            yield Record(f"{place}.qas[{q}]", {}, f"expected an object, found {_short(question)}")


def _iterate_dataset(source: str) -> Iterator[Record]:
    """Records of a `datasets` data set with the columns id, context, question and answers."""
    dataset = _load_hub(source) if source.startswith("hub:") else _load_folder(source)
    missing = {"id", "context", "question", "answers"} - set(dataset.column_names)
    if missing:
        raise DataError(
            f"columns {sorted(missing)} are missing (it has {dataset.column_names})",
            where=source,
            expected="id, context, question, answers (text, answer_start)",
        )
    return (_dataset_record(row, number) for number, row in enumerate(dataset))


def _dataset_record(row: Mapping[str, Any], number: int) -> Record:
    answers = row["answers"]
    if answers is None:  # as in JSON: unanswerable, or a test split
        return Record(f"row {number}", row)
    if not isinstance(answers, dict) or not {"text", "answer_start"} <= set(answers):
        return Record(f"row {number}", row, "expected answers with text and answer_start")
    texts, starts = answers["text"] or [], answers["answer_start"] or []
    if len(texts) != len(starts):
        return Record(f"row {number}", row, "answers: text and answer_start differ in length")
    pairs = [{"text": t, "answer_start": s} for t, s in zip(texts, starts, strict=True)]
    return Record(f"row {number}", dict(row) | {"answers": pairs})


def _load_folder(source: str) -> Any:
    import datasets  # slow to import, and most runs read JSON

    try:
        dataset = datasets.load_from_disk(source)
    except Exception as error:  # datasets raises what its reader of each file raises
        raise DataError(
            f"not a folder saved by datasets ({error})", source, "Dataset.save_to_disk's folder"
        ) from error
    if isinstance(dataset, datasets.DatasetDict):
        raise DataError(
            f"a folder of several splits: {', '.join(dataset)}",
            where=source,
            expected="one split",
            remedy=f"name one, e.g. {source.rstrip('/')}/{next(iter(dataset), 'train')}",
        )
    return dataset


def _load_hub(source: str) -> Any:
    import datasets  # slow to import, and most runs read JSON

    name, _, split = source.removeprefix("hub:").partition(":")
    if not name or not split:
        raise DataError("name or split missing", source, "hub:NAME:SPLIT, e.g. hub:squad:train")
    try:
        return datasets.load_dataset(name, split=split)
    except Exception as error:  # the Hub's client raises errors of many libraries
        raise DataError(
            f"cannot be loaded from the Hub ({error})",
            where=source,
            expected="a data set's name and one of its splits, and a network",
            remedy="check both, or give a local file",
        ) from error


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


def _short(value: Any, limit: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[:limit] + "…"
