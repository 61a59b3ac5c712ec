"""Copies of folders of object storage on a node's disk, where they can be mapped into memory.

Training reads windows in an order of its own, again every epoch: from a mapped file that costs
what is read, and no memory. The copy is shared by the workers of a node and used again by the next
run; it lies below the system's folder for temporary files.
"""

import posixpath
import shutil
import tempfile
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from filelock import FileLock
from pyarrow import fs

from jobs.prepared import Prepared
from qa_core.errors import StorageError
from qa_core.storage import locate


def on_this_node(prepared: Prepared, *, is_first: bool, wait: Callable[[], object]) -> Prepared:
    """The prepared data with its tokens in a local folder; without a URI it is as it was.

    One worker of the node, `is_first`, copies; all return from `wait` when it has.
    """
    folder = prepared.folder
    if "://" not in folder:
        return prepared
    if is_first:
        copy_folder(folder)
    wait()
    return replace(prepared, store=replace(prepared.store, folder=str(copy_of(folder))))


def model_on_this_node(model: str, digest: str) -> str:
    """`model` itself, or the copy on this node's disk of the URI's folder, made once a node."""
    if "://" not in model:
        return model
    target = Path(tempfile.gettempdir()) / "ray-extractive-qa" / f"model-{digest}"
    copy_folder_to(model, target)
    return str(target)


def copy_of(folder: str) -> Path:
    """Where the copy of a folder is. Its own name tells its content: it is made of a digest."""
    return Path(tempfile.gettempdir()) / "ray-extractive-qa" / posixpath.basename(folder)


def copy_folder(folder: str) -> None:
    """Copy a folder's files here, unless they are: whole or not at all."""
    copy_folder_to(folder, copy_of(folder))


def copy_folder_to(folder: str, target: Path) -> None:
    """Copy a folder's files to `target`, unless it is there: whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):  # of several processes of the node one copies
        if not target.exists():
            _copy(folder, target)


def _copy(folder: str, target: Path) -> None:
    partial = target.with_name(f"{target.name}.{uuid.uuid4().hex}.partial")
    filesystem, path = locate(folder)
    try:
        partial.mkdir(parents=True)
        fs.copy_files(path, str(partial), source_filesystem=filesystem)
        partial.rename(target)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise StorageError(
            f"cannot be copied to {target} ({error})",
            folder,
            "a readable folder, and room on the node's disk",
        ) from error
