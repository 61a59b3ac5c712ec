"""Reading and writing files by path or URI, through pyarrow's filesystems."""

import contextlib
import hashlib
import io
import json
import os
import posixpath
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
from pyarrow import fs
from tenacity import retry, retry_if_exception, stop_after_attempt, wait_exponential

from qa_core.errors import StorageError

PIECE_BYTES = 2**20  # read at a time where a whole file is not needed
# Of a request to S3 that fails in passing, with pauses that double: about a minute in all.
S3_ATTEMPTS = 10
# Where the answer to a short read is an error with a longer text, it is not among these requests.
READ_ATTEMPTS = 6
PASSING = ("INTERNAL_FAILURE", "SERVICE_UNAVAILABLE", "SLOW_DOWN", "THROTTLING")
S3_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")  # of storage that is not Amazon's


def locate(uri: str | Path) -> tuple[fs.FileSystem, str]:
    """The filesystem that holds `uri` and the path in it.

    A text without a scheme is a local path; `s3://`, `gs://` and what else pyarrow knows are URIs.
    """
    text = str(uri)
    if "://" not in text:
        return fs.LocalFileSystem(), str(Path(text).expanduser().absolute())
    scheme, _, rest = text.partition("://")
    place = rest.partition("?")[0]
    if "@" in place.partition("/")[0]:
        raise StorageError(
            "there are credentials in it",
            f"{scheme}://…@{place.rpartition('@')[2]}",
            "an address alone: it is written to files and logs",
            "put them into the environment or a profile (AWS_PROFILE, ~/.aws/credentials)",
        )
    try:
        if scheme == "s3" and place == rest:
            return _s3(place.partition("/")[0]), place.rstrip("/")
        filesystem, path = fs.FileSystem.from_uri(text)
    except (pa.ArrowInvalid, OSError) as error:
        raise StorageError(
            f"cannot open this URI ({error})", text, "a path, s3://… or gs://…", "check the scheme"
        ) from error
    return filesystem, path


@lru_cache(maxsize=8)
def _s3(bucket: str) -> fs.FileSystem:
    """The file system of a bucket, once a process: to find region and credentials takes requests.

    Requests that fail in passing are tried again.
    """
    endpoint = next(filter(None, map(os.environ.get, S3_ENDPOINTS)), None)
    return fs.S3FileSystem(
        region=None if endpoint else fs.resolve_s3_region(bucket),
        endpoint_override=endpoint,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=S3_ATTEMPTS),
    )


def join(uri: str, *names: str) -> str:
    """`uri` with `names` below it, separated by slashes."""
    return posixpath.join(uri.rstrip("/") or "/", *names)


def is_file(uri: str | Path) -> bool:
    """Whether `uri` names a file."""
    return bool(_kind_of(uri) == fs.FileType.File)


def is_directory(uri: str | Path) -> bool:
    """Whether `uri` names a folder."""
    return bool(_kind_of(uri) == fs.FileType.Directory)


def file_bytes(uri: str | Path) -> int:
    """Size of a file."""
    filesystem, path = locate(uri)
    return int(filesystem.get_file_info(path).size)


def _kind_of(uri: str | Path) -> fs.FileType:
    """File, folder, something else or nothing."""
    filesystem, path = locate(uri)
    try:
        return filesystem.get_file_info(path).type
    except (OSError, ValueError) as error:  # a name too long, not Unicode, no credentials
        raise StorageError(f"cannot be looked up ({error})", str(uri), "a path or URI") from error


def list_files(uri: str | Path, *, recursive: bool = True) -> list[str]:
    """The file `uri` itself, or all files in and (if `recursive`) below the folder, sorted."""
    filesystem, path = locate(uri)
    if _kind_of(uri) != fs.FileType.Directory:
        return [str(uri)]
    found = filesystem.get_file_info(fs.FileSelector(path, recursive=recursive))
    below = sorted(info.path for info in found if info.type == fs.FileType.File)
    return [join(str(uri), posixpath.relpath(file, path)) for file in below]


def _is_passing(error: BaseException) -> bool:
    return isinstance(error, StorageError) and any(word in error.args[0] for word in PASSING)


@retry(
    retry=retry_if_exception(_is_passing),
    stop=stop_after_attempt(READ_ATTEMPTS),
    wait=wait_exponential(multiplier=0.1, max=10),
    reraise=True,
)
def read_bytes(uri: str | Path) -> bytes:
    """The whole content of a file; `StorageError` where it is missing or cannot be read."""
    with _open(uri) as stream:
        return bytes(stream.read())


def read_pieces(uri: str | Path) -> Iterator[bytes]:
    """The content of a file, `PIECE_BYTES` at a time; that of a .gz file unpacked."""
    is_packed = str(uri).lower().endswith(".gz")
    with _open(uri, compression="gzip" if is_packed else None) as stream:
        while piece := stream.read(PIECE_BYTES):
            yield bytes(piece)


@contextlib.contextmanager
def open_file(uri: str | Path) -> Iterator[pa.NativeFile]:
    """A file open for reading at any place, its errors made the project's own."""
    filesystem, path = locate(uri)
    with _own_errors(uri), filesystem.open_input_file(path) as file:
        yield file


@contextlib.contextmanager
def _open(uri: str | Path, *, compression: str | None = None) -> Iterator[pa.NativeFile]:
    """A file open for reading from its begin, its errors made the project's own."""
    filesystem, path = locate(uri)
    with _own_errors(uri), filesystem.open_input_stream(path, compression=compression) as stream:
        yield stream


@contextlib.contextmanager
def _own_errors(uri: str | Path) -> Iterator[None]:
    """Makes the errors of a file the project's own."""
    try:
        yield
    except FileNotFoundError as error:
        raise StorageError(
            "no such file",
            str(uri),
            "an existing file",
            f"check the path (it is taken from {Path.cwd()} when relative)",
        ) from error
    except OSError as error:
        raise StorageError(f"cannot be read ({error})", str(uri), "a readable file") from error


def digest_file(uri: str | Path) -> bytes:
    """SHA-256 of a file's content, read a piece at a time; `StorageError` as `read_bytes`."""
    digest = hashlib.sha256()
    with _open(uri) as stream:
        while piece := stream.read(PIECE_BYTES):
            digest.update(piece)
    return digest.digest()


def write_bytes(uri: str, content: bytes | memoryview) -> None:
    """Write a whole file, so that a reader sees the old content or the new, never a part.

    Folders above it are made. `StorageError` where that is not possible.
    """
    _write_stream(uri, io.BytesIO(content))


def write_file(uri: str, file: Path) -> None:
    """Copy a local file to `uri`, a piece at a time, whole or not at all as `write_bytes`."""
    with file.open("rb") as source:
        _write_stream(uri, source)


def _write_stream(uri: str, source: BinaryIO) -> None:
    filesystem, path = locate(uri)
    # An object appears when all of it is there; to move one is to copy it.
    is_atomic = isinstance(filesystem, fs.S3FileSystem)
    partial = path if is_atomic else f"{path}.{uuid.uuid4().hex}.partial"
    try:
        with _create(filesystem, partial) as sink:
            shutil.copyfileobj(source, sink, PIECE_BYTES)
        if not is_atomic:
            filesystem.move(partial, path)
    except (OSError, pa.ArrowInvalid) as error:
        if not is_atomic:
            _discard(filesystem, partial)
        raise StorageError(
            f"cannot be written ({error})", uri, "a writable place", "choose another storage_path"
        ) from error


def _create(filesystem: fs.FileSystem, path: str) -> pa.NativeFile:
    """A new file; folders above it are made where they are missing."""
    try:
        return filesystem.open_output_stream(path)
    except FileNotFoundError:
        filesystem.create_dir(posixpath.dirname(path), recursive=True)
        return filesystem.open_output_stream(path)


def write_json_lines(uri: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object a line, in UTF-8."""
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_bytes(uri, "".join(lines).encode())


def _discard(filesystem: fs.FileSystem, path: str) -> None:
    """Delete a file that may or may not be there."""
    with contextlib.suppress(OSError, pa.ArrowInvalid):
        filesystem.delete_file(path)


def check_writable(uri: str) -> None:
    """Raise `StorageError` unless a file can be written below `uri`, which is made if missing."""
    probe = join(uri, f".writable-{uuid.uuid4().hex}")
    write_bytes(probe, b"")
    remove_file(probe)


def remove_file(uri: str) -> None:
    """Delete a file that may or may not be there."""
    _discard(*locate(uri))


def write_table(uri: str, table: pa.Table) -> None:
    """Write `table` as one uncompressed Arrow file (it can be mapped into memory), whole or not."""
    write_bytes(uri, memoryview(table_to_bytes(table)))


def table_to_bytes(table: pa.Table) -> pa.Buffer:
    """An Arrow file of `table`."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def table_from_bytes(content: bytes) -> pa.Table:
    """The inverse of `table_to_bytes`."""
    return pa.ipc.open_file(pa.BufferReader(content)).read_all()


def read_table(uri: str) -> pa.Table:
    """The table of an Arrow file: mapped, not loaded, where the file is local."""
    filesystem, path = locate(uri)
    with _reading_arrow(uri):
        if isinstance(filesystem, fs.LocalFileSystem):
            return pa.ipc.open_file(pa.memory_map(path)).read_all()
        return table_from_bytes(read_bytes(uri))


def read_columns(uri: str, columns: Sequence[str]) -> pa.Table:
    """These columns of an Arrow file, loaded: the others are not read, and no file stays open."""
    filesystem, path = locate(uri)
    with _reading_arrow(uri), filesystem.open_input_file(path) as source:
        names = pa.ipc.open_file(source).schema.names
        options = pa.ipc.IpcReadOptions(included_fields=[names.index(name) for name in columns])
        return pa.ipc.open_file(source, options=options).read_all().select(list(columns))


@contextlib.contextmanager
def _reading_arrow(uri: str) -> Iterator[None]:
    """Errors of reading an Arrow file, made the project's own."""
    try:
        yield
    except (OSError, pa.ArrowInvalid) as error:
        raise StorageError(f"cannot be read ({error})", uri, "an Arrow file") from error


def write_parquet(uri: str, table: pa.Table) -> None:
    """Write a table as one Parquet file, whole or not at all."""
    from pyarrow import parquet  # slow to import

    sink = pa.BufferOutputStream()
    parquet.write_table(table, sink)
    write_bytes(uri, memoryview(sink.getvalue()))


def read_parquet(uri: str, columns: Sequence[str] | None = None) -> pa.Table:
    """A Parquet file, or some of its columns."""
    from pyarrow import parquet

    with open_file(uri) as stream:
        return parquet.read_table(stream, columns=columns)
