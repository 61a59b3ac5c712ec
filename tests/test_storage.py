"""What is written is whole or absent; what cannot be reached is an error that names the place."""

import re
from pathlib import Path

import pyarrow as pa
import pytest

from qa_core.errors import StorageError
from qa_core.schemas import EXAMPLES
from qa_core.storage import (
    check_writable,
    is_directory,
    is_file,
    join,
    list_files,
    locate,
    read_bytes,
    read_table,
    write_bytes,
    write_table,
)
from tests.tiny import make_examples

TABLE = pa.table({"id": ["a", "b", None], "score": [0.5, -1.0, 2.0], "ids": [[1, 2], [], [3]]})


def test_written_bytes_are_read_back_and_nothing_else_is_left(tmp_path: Path) -> None:
    """Folders above are made, and the temporary file of the write is gone."""
    uri = str(tmp_path / "run" / "deep" / "metrics.json")
    write_bytes(uri, b"first")
    write_bytes(uri, b"second")
    assert read_bytes(uri) == read_bytes(Path(uri)) == b"second"
    assert [file.name for file in Path(uri).parent.iterdir()] == ["metrics.json"]


def test_a_reader_keeps_the_old_content_while_a_writer_replaces_it(tmp_path: Path) -> None:
    """Writing in place would mix old and new for whoever has the file open."""
    file = tmp_path / "state"
    write_bytes(str(file), b"old" * 1000)
    with file.open("rb") as reader:
        start = reader.read(5)
        write_bytes(str(file), b"new")
        assert start + reader.read() == b"old" * 1000
    assert file.read_bytes() == b"new"


def test_a_mapped_table_outlives_its_replacement(tmp_path: Path) -> None:
    """Shards are mapped, not loaded: truncating the file below would kill the process."""
    uri = str(tmp_path / "shard.arrow")
    write_table(uri, TABLE)
    mapped = read_table(uri)
    write_table(uri, TABLE.slice(0, 1))
    assert mapped.equals(TABLE)
    assert len(read_table(uri)) == 1


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_table_is_read_back_as_it_was_written(tmp_path: Path, scheme: str) -> None:
    """Schema, nulls and nested lists; also without rows, also in several chunks."""
    chunked = pa.concat_tables([TABLE, TABLE.slice(1)])
    tables = [
        TABLE,
        chunked,
        EXAMPLES.empty_table(),
        make_examples([{"context": "é", "question": "?"}]),
    ]
    for number, table in enumerate(tables):
        uri = f"{scheme}{tmp_path}/{number}.arrow"
        write_table(uri, table)
        found = read_table(uri)
        assert found.schema == table.schema
        assert found.equals(table)
    assert len(list(tmp_path.iterdir())) == len(tables) == 4


def test_a_truncated_table_is_refused_wherever_it_is_cut(tmp_path: Path) -> None:
    """A copy that broke off must not pass for a shorter table."""
    whole = tmp_path / "whole.arrow"
    write_table(str(whole), TABLE)
    content = whole.read_bytes()
    cut = tmp_path / "cut.arrow"
    lengths = range(0, len(content), 7)
    for length in lengths:
        cut.write_bytes(content[:length])
        with pytest.raises(StorageError, match=r"cut\.arrow: cannot be read \(.+\)\. .*Arrow file"):
            read_table(str(cut))
    assert len(lengths) > 50


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_missing_table_is_refused_with_its_path(tmp_path: Path, scheme: str) -> None:
    """The same error for a path and for its URI."""
    uri = f"{scheme}{tmp_path}/nope.arrow"
    with pytest.raises(StorageError, match=rf"^{re.escape(uri)}: cannot be read \(.+\)"):
        read_table(uri)


def test_a_missing_file_is_refused_with_path_and_remedy(tmp_path: Path) -> None:
    """A relative path from the wrong folder is the commonest cause."""
    message = (
        rf"^{re.escape(str(tmp_path))}/nope: no such file\. Expected: an existing file\. "
        rf"Do: check the path \(it is taken from {re.escape(str(Path.cwd()))} when relative\)"
    )
    with pytest.raises(StorageError, match=message):
        read_bytes(tmp_path / "nope")


def test_a_folder_cannot_be_read_as_a_file(tmp_path: Path) -> None:
    """The error is ours, whatever the filesystem raises."""
    with pytest.raises(StorageError, match=r"cannot be read \(.+\)\. Expected: a readable file"):
        read_bytes(tmp_path)


def test_writing_below_a_regular_file_is_refused(tmp_path: Path) -> None:
    """And the file in the way is left as it was."""
    file = tmp_path / "file"
    file.write_bytes(b"mine")
    with pytest.raises(
        StorageError, match=r"file/run/x: cannot be written \(.+\)\. .*storage_path"
    ):
        write_bytes(f"{file}/run/x", b"")
    assert file.read_bytes() == b"mine"


def test_check_writable_makes_the_folder_and_leaves_it_empty(tmp_path: Path) -> None:
    """It is called at set-up, before hours of work end in an unwritable place."""
    folder = tmp_path / "runs" / "first"
    check_writable(str(folder))
    assert folder.is_dir()
    assert list(folder.iterdir()) == []


def test_check_writable_refuses_a_place_below_a_regular_file(tmp_path: Path) -> None:
    """With the path, and what to change."""
    (tmp_path / "file").touch()
    place = str(tmp_path / "file" / "run")
    message = rf"^{re.escape(place)}/\S+: cannot be written \(.+\)\. .*choose another storage_path"
    with pytest.raises(StorageError, match=message):
        check_writable(place)


@pytest.mark.parametrize("uri", ["foo://bucket/file", "://", "file:///a b"])
def test_a_uri_that_cannot_be_opened_is_refused(uri: str) -> None:
    """An unknown scheme must not become a local folder of that name."""
    with pytest.raises(
        StorageError, match=rf"^{re.escape(uri)}: cannot open this URI \(.+\)\. Exp"
    ):
        locate(uri)
    with pytest.raises(
        StorageError, match=r"Expected: a path, s3://… or gs://…\. Do: check the sch"
    ):
        write_bytes(uri, b"")


def test_paths_are_absolute_and_the_home_folder_is_expanded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker's working folder is not the driver's."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    expected = str(tmp_path / "data" / "a.json")
    for uri in ("data/a.json", "~/data/a.json", Path("data/a.json"), f"file://{expected}"):
        assert locate(uri)[1] == expected


def test_files_and_folders_are_told_apart(tmp_path: Path) -> None:
    """What does not exist is neither."""
    file = tmp_path / "a.json"
    file.touch()
    assert (is_file(file), is_directory(file)) == (True, False)
    assert (is_file(tmp_path), is_directory(tmp_path)) == (False, True)
    assert (is_file(tmp_path / "b"), is_directory(tmp_path / "b")) == (False, False)


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_files_of_a_folder_are_listed_sorted_with_those_below(tmp_path: Path, scheme: str) -> None:
    """Each can be read by the name given, and the order does not depend on the disk."""
    for name in ("z", "a/y", "a/b/x", "m"):
        write_bytes(f"{tmp_path}/{name}", name.encode())
    (tmp_path / "empty").mkdir()
    root = f"{scheme}{tmp_path}"
    found = list_files(root)
    assert found == [f"{root}/{name}" for name in ("a/b/x", "a/y", "m", "z")]
    assert [read_bytes(file) for file in found] == [b"a/b/x", b"a/y", b"m", b"z"]
    assert list_files(root + "/") == found
    assert list_files(f"{root}/empty") == []


def test_a_file_lists_as_itself(tmp_path: Path) -> None:
    """So that files and folders are digested by the same loop."""
    file = str(tmp_path / "a.json")
    write_bytes(file, b"")
    assert list_files(file) == [file]


@pytest.mark.parametrize(
    ("uri", "names", "expected"),
    [
        ("runs", ("a", "b.json"), "runs/a/b.json"),
        ("/runs/", ("a",), "/runs/a"),
        ("/", ("a",), "/a"),
        ("s3://bucket", ("a",), "s3://bucket/a"),
        ("s3://bucket/runs//", ("a/b", "c"), "s3://bucket/runs/a/b/c"),
    ],
)
def test_names_are_joined_by_single_slashes(
    uri: str, names: tuple[str, ...], expected: str
) -> None:
    """Two slashes name another object in a bucket; pathlib would take one from the scheme."""
    assert join(uri, *names) == expected
