"""Where records come from: SQuAD JSON, folders and Hub names of `datasets`, the embedded data.

A source is a path or URI of SQuAD v1.1 / v2.0 JSON, a folder saved by `datasets`
(`Dataset.save_to_disk`), `hub:NAME:SPLIT` or `hub:NAME:CONFIG:SPLIT` for a data set on the Hub,
or `embedded:NAME` for the data shipped with the project.
"""

import codecs
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from qa_core.demo_corpus import generate_corpus
from qa_core.errors import DataError
from qa_core.storage import digest_file, is_directory, is_file, list_files, read_bytes

EMBEDDED = ("embedded:train", "embedded:dev", "embedded:handwritten")

SQUAD_SHAPE = '{"data": [{"title", "paragraphs": [{"context", "qas": [...]}]}]}'


@dataclass(frozen=True)
class Record:
    """One question as its source gives it, unchecked; `problem` is set where it has no shape."""

    place: str
    fields: Mapping[str, Any]
    problem: str = ""


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
            yield Record(
                f"{place}.qas[{q}]", {}, f"expected an object, found {short_repr(question)}"
            )


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

    parts = source.removeprefix("hub:").split(":")
    if len(parts) not in (2, 3) or not all(parts):
        expected = "hub:NAME:SPLIT or hub:NAME:CONFIG:SPLIT, e.g. hub:rajpurkar/squad:train"
        raise DataError("name or split missing", source, expected)
    try:
        return datasets.load_dataset(*parts[:-1], split=parts[-1])
    except Exception as error:  # the Hub's client raises errors of many libraries
        raise DataError(
            f"cannot be loaded from the Hub ({error})",
            where=source,
            expected="a data set's name and one of its splits, and a network",
            remedy="check both, or give a local file",
        ) from error


def short_repr(value: Any, limit: int = 60) -> str:
    """What was found, for an error's text, cut to `limit` characters."""
    text = repr(value)
    return text if len(text) <= limit else text[:limit] + "…"
