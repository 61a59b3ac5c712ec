"""Which files a source is, their digests, and where their records come from.

A source is a file (SQuAD JSON, a list of records, JSON lines, MRQA's JSON lines, CSV, TSV or
Parquet; the texts also as .gz), a folder or glob of such files, a folder saved by `datasets`
(`Dataset.save_to_disk`), `hub:NAME:SPLIT` or `hub:NAME:CONFIG:SPLIT` for a data set on the Hub,
or `embedded:NAME` for the data shipped with the project. Paths may be URIs (`s3://`, `gs://`).
"""

import fnmatch
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

from qa_core.demo_corpus import generate_corpus
from qa_core.errors import DataError, StorageError
from qa_core.json_records import article_records, json_line_records, json_records
from qa_core.records import DEFAULT_RULES, ReadingRules, Record
from qa_core.storage import (
    digest_file,
    is_directory,
    is_file,
    join,
    list_files,
    read_pieces,
)
from qa_core.table_records import csv_records, dataset_records, parquet_records

EMBEDDED = ("embedded:train", "embedded:dev", "embedded:handwritten")
DELIMITERS = {"csv": ",", "tsv": "\t"}
LINES = ("jsonl", "ndjson")
TEXT_FORMATS = ("json", *LINES, *DELIMITERS)  # also with .gz
FORMATS = "SQuAD JSON, JSON lines (.jsonl, .ndjson), .csv, .tsv (all also .gz) or .parquet"
SAVED_BY_DATASETS = {"state.json", "dataset_dict.json"}  # one of them is in each such folder
WILDCARDS = "*?["
HIDDEN = (".", "_")  # names that begin so are other programs' notes: _SUCCESS, .crc
IGNORED_SHOWN = 5  # of the files of no known kind in an error text


def iterate_records(source: str, rules: ReadingRules = DEFAULT_RULES) -> Iterator[Record]:
    """The records of a source that is no folder or glob of files (`expand_source`), in order.

    Raises `DataError` for a source of no known kind, and where a file breaks off.
    """
    check_source(source)
    if source.startswith("embedded:"):
        return _embedded_records(source, rules)
    if source.startswith("hub:") or is_directory(source):
        dataset = _load_hub(source) if source.startswith("hub:") else _load_folder(source)
        return dataset_records(dataset, source, rules)
    kind = _format_of(source)
    if kind == "parquet":
        return parquet_records(source, rules)
    if kind in DELIMITERS:
        return csv_records(_pieces(source), source, rules, delimiter=DELIMITERS[kind])
    read = json_line_records if kind in LINES else json_records
    return read(_pieces(source), source, rules)


def _embedded_records(source: str, rules: ReadingRules) -> Iterator[Record]:
    """Columns have our names here, whatever the other sources call them."""
    own_names = replace(rules, columns={})
    for number, article in enumerate(load_embedded(source)["data"]):
        yield from article_records(article, f"data[{number}]", own_names)


def _format_of(file: str) -> str:
    """A file's format by its name; "" where the name says none."""
    name = file.rpartition("/")[2].lower()
    text = name.removesuffix(".gz").rpartition(".")[2]
    if text in TEXT_FORMATS:
        return text
    return "parquet" if name.endswith(".parquet") else ""


def _pieces(source: str) -> Iterator[bytes]:
    """The content of a file, unpacked."""
    try:
        yield from read_pieces(source)
    except StorageError as error:
        cause = error.__cause__
        if not source.lower().endswith(".gz") or getattr(cause, "errno", None) is not None:
            raise
        raise DataError(
            f"gzip that is cut short or damaged ({cause})",
            where=source,
            expected="a whole gzip file",
            remedy="copy or pack it again",
        ) from error


def expand_source(source: str) -> list[str]:
    """A folder or glob of files as these files, sorted; any other source as itself.

    A folder's files are those of the folders below it too; in a glob, `*`, `?` and `[…]` stand
    for parts of one name between slashes. Names that begin with "." or "_" are left out.
    Raises `DataError` where no file is left, and where there are files of no known format.
    """
    if _is_glob(source):
        return _known_files(_match_files(source), source)
    check_source(source)
    if source.startswith(("embedded:", "hub:")) or not is_directory(source):
        return [source]
    start = len(join(source, ""))
    files = {file[start:]: file for file in list_files(source)}
    if files.keys() & SAVED_BY_DATASETS:
        return [source]
    return _known_files([file for name, file in files.items() if not _is_hidden(name)], source)


def _is_glob(source: str) -> bool:
    """Whether wildcards are meant: a local file may have them in its name."""
    if source.startswith(("embedded:", "hub:")) or not set(WILDCARDS) & set(source):
        return False
    return "://" in source or not (is_file(source) or is_directory(source))


def _is_hidden(below: str) -> bool:
    return any(part.startswith(HIDDEN) for part in below.split("/"))


def _match_files(pattern: str) -> list[str]:
    """Files whose path matches, name by name."""
    parts = pattern.split("/")
    first = next(number for number, part in enumerate(parts) if set(WILDCARDS) & set(part))
    folder = "/".join(parts[:first]) or ("/" if pattern.startswith("/") else ".")
    if not is_directory(folder):
        raise DataError("no such folder", folder, "the folder of a glob", f"check {pattern}")
    wanted = parts[first:]
    start = len(join(folder, ""))
    return [
        file if parts[:first] else file.removeprefix("./")
        for file in list_files(folder, recursive=len(wanted) > 1)
        if not _is_hidden(file[start:]) and _is_match(file[start:].split("/"), wanted)
    ]


def _is_match(names: Sequence[str], wanted: Sequence[str]) -> bool:
    return len(names) == len(wanted) and all(map(fnmatch.fnmatchcase, names, wanted))


def _known_files(files: Sequence[str], source: str) -> list[str]:
    unknown = [file for file in files if not _format_of(file)]
    if unknown:
        raise DataError(
            f"{len(unknown)} files of no known format: {', '.join(unknown[:IGNORED_SHOWN])}",
            where=source,
            expected=FORMATS,
            remedy='move them away, name files with a glob, or begin their names with "_"',
        )
    if not files:
        raise DataError("no file to read", source, FORMATS, "check the path or pattern")
    return list(files)


def check_source(source: str) -> None:
    """Raise `DataError` unless `source` names something that can be read; reads nothing."""
    if source.startswith("embedded:"):
        if source not in EMBEDDED:
            raise DataError("no such embedded data", source, f"one of {', '.join(EMBEDDED)}")
    elif source.startswith("hub:"):
        pass  # only the Hub can say
    elif _is_glob(source):
        expand_source(source)
    elif not is_file(source) and not is_directory(source):
        raise DataError(
            "no such file or folder",
            where=source,
            expected=f"{FORMATS}, a folder or glob of them, a folder saved by datasets, "
            "hub:NAME:SPLIT, or " + ", ".join(EMBEDDED),
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
        files = expand_source(source) if _is_glob(source) else list_files(source)
        for file in files:
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
