"""Folders and globs become their files: sorted, none left out in silence."""

import gzip
import re
from pathlib import Path

import datasets
import pytest

from qa_core.errors import DataError
from qa_core.reading import ReadingRules, read_examples
from qa_core.sources import EMBEDDED, check_source, expand_source, source_digest
from tests.formats import WRITERS
from tests.test_formats import make_row


def make_files(folder: Path, *names: str) -> Path:
    """Files that hold their names, with the folders above them."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def test_a_folder_gives_its_files_sorted(tmp_path: Path) -> None:
    """Those of folders below it too; names of other programs' notes are left out."""
    names = ["b.jsonl", "a.csv.gz", "c/d.parquet", "c/A.TSV", "b.json", "z.ndjson.gz"]
    make_files(tmp_path, *names, "_SUCCESS", ".b.jsonl.crc", ".cache/x.bin", "c/_temporary/e.json")
    expected = [str(tmp_path / name) for name in sorted(names)]
    assert expand_source(str(tmp_path)) == expected
    assert expand_source(f"{tmp_path}/") == expected
    assert expand_source(f"file://{tmp_path}") == [f"file://{name}" for name in expected]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*.jsonl", ["a.jsonl", "b.jsonl"]),
        ("[b-z].json*", ["b.jsonl", "c.json"]),
        ("?.json", ["c.json"]),
        ("*/*.jsonl", ["p=1/a.jsonl", "p=2/a.jsonl"]),
        ("p=[2-9]/a.*", ["p=2/a.jsonl"]),
    ],
)
def test_a_glob_gives_the_files_it_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str, names: list[str]
) -> None:
    """As a shell does: a star does not cross a slash; absolute, relative and as a URI."""
    make_files(tmp_path, "b.jsonl", "a.jsonl", "c.json", ".d.jsonl", "p=1/a.jsonl", "p=2/a.jsonl")
    assert expand_source(f"{tmp_path}/{pattern}") == [f"{tmp_path}/{name}" for name in names]
    assert expand_source(f"file://{tmp_path}/{pattern}") == [
        f"file://{tmp_path}/{name}" for name in names
    ]
    monkeypatch.chdir(tmp_path)
    assert expand_source(pattern) == names
    check_source(pattern)
    assert source_digest(pattern) == source_digest(f"{tmp_path}/{pattern}")


def test_a_file_with_wildcards_in_its_name_is_itself(tmp_path: Path) -> None:
    """Also where it would match nothing, or another file."""
    make_files(tmp_path, "a[1].json", "a1.json")
    assert expand_source(str(tmp_path / "a[1].json")) == [str(tmp_path / "a[1].json")]


@pytest.mark.parametrize("source", [*EMBEDDED, "hub:squad:train", "hub:a*:train"])
def test_other_sources_are_themselves(source: str) -> None:
    """What is no path has no files."""
    assert expand_source(source) == [source]


def test_a_folder_saved_by_datasets_is_one_source(tmp_path: Path) -> None:
    """Its files are not read one by one; nor are the splits of a dictionary."""
    rows = datasets.Dataset.from_list([make_row()])
    rows.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict({"train": rows}).save_to_disk(str(tmp_path / "splits"))
    for name in ("one", "splits", "splits/train"):
        assert expand_source(str(tmp_path / name)) == [str(tmp_path / name)]


def test_files_of_no_known_format_are_named(tmp_path: Path) -> None:
    """In folders and globs alike; a few of them, and what to do."""
    make_files(tmp_path, "a.json", "b.txt", "c.json.zip", *(f"d{n}.arrow" for n in range(9)))
    message = (
        rf"{re.escape(str(tmp_path))}.*: 11 files of no known format: .*/b\.txt, .*/c\.json\.zip, "
        r".*d2\.arrow\. Expected: SQuAD JSON, .*\.parquet\. Do: move them away, name files with a"
    )
    for source in (str(tmp_path), f"{tmp_path}/*"):
        with pytest.raises(DataError, match=message):
            expand_source(source)


@pytest.mark.parametrize(
    ("below", "message"),
    [
        ("", "no file to read"),
        ("/*.json", "no file to read"),
        ("/nowhere/*.json", "no such folder"),
        ("/nowhere", "no such file or folder"),
    ],
)
def test_a_folder_or_glob_without_a_file_is_an_error(
    tmp_path: Path, below: str, message: str
) -> None:
    """At set-up, not as an empty data set."""
    make_files(tmp_path, "_a.json", "b.jsonl/c.json/_d")
    with pytest.raises(DataError, match=message):
        expand_source(str(tmp_path) + below)
    if below:
        with pytest.raises(DataError, match=message):
            check_source(str(tmp_path) + below)


def test_a_folder_of_every_format_is_read(tmp_path: Path) -> None:
    """Each example knows its file; an id in a later file is a duplicate."""
    names = sorted(WRITERS)
    for name in names:
        WRITERS[name](tmp_path / name, [make_row(name), make_row("again")])
    examples, rejections = read_examples(tmp_path)
    assert examples["id"].to_pylist() == [names[0], "again", *names[1:]]
    files = [str(tmp_path / name) for name in names]
    assert examples["source"].unique().to_pylist() == files
    assert rejections["source"].to_pylist() == files[1:]


def test_a_packed_file_has_a_digest_of_its_bytes(tmp_path: Path) -> None:
    """So that a damaged one still has a digest: what is wrong with it, reading says."""
    file = tmp_path / "a.json.gz"
    file.write_bytes(gzip.compress(b"{}")[:-3])
    assert source_digest(str(file)) == source_digest(str(file))


def test_embedded_data_keeps_our_names() -> None:
    """A mapping for the user's own data must not spoil it."""
    examples, rejections = read_examples("embedded:dev", rules=ReadingRules({"context": "passage"}))
    assert len(examples) > 40
    assert len(rejections) == 0
