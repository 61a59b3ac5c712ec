"""Object storage over the wire: what is written is read back, what fails in passing is tried again.

Credentials stay out of addresses, files and logs.
"""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from qa_core.checkpoints import find_checkpoints
from qa_core.errors import StorageError
from qa_core.storage import (
    S3_ATTEMPTS,
    check_writable,
    file_bytes,
    is_directory,
    is_file,
    join,
    list_files,
    read_bytes,
    read_columns,
    read_table,
    remove_file,
    write_bytes,
    write_file,
    write_json_lines,
    write_table,
)
from tests.s3 import FaultyS3, s3_server, storage_at


@pytest.fixture(scope="module")
def one_server() -> Iterator[FaultyS3]:
    """An S3 server."""
    with s3_server() as server:
        yield server


@pytest.fixture
def server(one_server: FaultyS3) -> Iterator[FaultyS3]:
    """The server that s3:// means; nothing is wrong with it yet."""
    one_server.errors, one_server.refused = {}, []
    with storage_at(one_server.address):
        yield one_server


@pytest.mark.usefixtures("server")
def test_files_are_read_back_as_written(tmp_path: Path) -> None:
    """Bytes, copies of files, tables; a file is replaced; names with spaces and percents hold."""
    folder = "s3://bucket/a folder/50%20of it"
    write_bytes(f"{folder}/one", b"first")
    write_bytes(f"{folder}/one", b"second")
    big = tmp_path / "big"
    big.write_bytes(bytes(range(256)) * 40_000)  # more than one part of an upload
    write_file(f"{folder}/below/big", big)
    assert read_bytes(f"{folder}/one") == b"second"
    assert read_bytes(f"{folder}/below/big") == big.read_bytes()
    assert list_files(folder) == [f"{folder}/below/big", f"{folder}/one"]
    assert file_bytes(f"{folder}/below/big") == 256 * 40_000
    assert is_directory(folder)
    assert not is_file(f"{folder}/two")
    table = pa.table({"a": [1, 2], "b": ["x", "y"]})
    write_table(f"{folder}/table", table)
    assert read_table(f"{folder}/table").equals(table)
    assert read_columns(f"{folder}/table", ["b"]).equals(table.select(["b"]))
    remove_file(f"{folder}/one")
    assert not is_file(f"{folder}/one")


def test_what_fails_in_passing_is_tried_again(server: FaultyS3) -> None:
    """Unavailable, slow down, internal error: of reading, writing and looking alike."""
    server.errors = {"PUT": [503, 500], "GET": [503], "HEAD": [503]}
    write_bytes("s3://bucket/again/one", b"content")
    assert is_file("s3://bucket/again/one")
    assert read_bytes("s3://bucket/again/one") == b"content"
    assert sorted(server.refused) == [("GET", 503), ("HEAD", 503), ("PUT", 500), ("PUT", 503)]


def test_what_is_forbidden_is_not_tried_again(server: FaultyS3) -> None:
    """The error names the place and what the server said."""
    server.errors = {"PUT": [403] * S3_ATTEMPTS}
    with pytest.raises(StorageError, match=r"s3://bucket/closed/.*ACCESS_DENIED"):
        check_writable("s3://bucket/closed")
    assert server.refused == [("PUT", 403)]


@pytest.mark.usefixtures("server")
def test_a_bucket_that_does_not_exist_is_named() -> None:
    """And nothing makes it."""
    with pytest.raises(StorageError, match=r"s3://nowhere/.*(NO_SUCH_BUCKET|does not exist)"):
        check_writable("s3://nowhere/runs")
    with pytest.raises(StorageError, match="no such file"):
        read_bytes("s3://nowhere/file")


@pytest.mark.usefixtures("server")
def test_folders_that_are_not_there_are_empty() -> None:
    """Checkpoints of a run that has none."""
    assert find_checkpoints("s3://bucket/none/checkpoints") == ([], [])


@pytest.mark.parametrize("address", ["s3://key:secret@bucket/runs", "gs://key:secret@bucket/runs"])
def test_credentials_in_an_address_are_refused(address: str) -> None:
    """It would be written to config.yaml; the error does not repeat them."""
    with pytest.raises(StorageError, match="credentials") as caught:
        write_bytes(join(address, "file"), b"")
    assert "secret" not in str(caught.value)


@pytest.mark.usefixtures("server")
def test_lines_hold_their_text() -> None:
    """UTF-8, a line a row."""
    write_json_lines("s3://bucket/lines.jsonl", [{"a": "é"}, {"a": "b"}])
    assert read_bytes("s3://bucket/lines.jsonl").decode() == '{"a": "é"}\n{"a": "b"}\n'
