"""Tokens of object storage on a node's disk: copied once, whole, by one worker."""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from jobs.node_copies import copy_folder, copy_of, on_this_node
from qa_core.errors import StorageError


@dataclass(frozen=True)
class Store:
    """What `on_this_node` looks at of a store."""

    folder: str


@dataclass(frozen=True)
class Data:
    """What `on_this_node` looks at of prepared data."""

    store: Store

    @property
    def folder(self) -> str:
        """Of the store."""
        return self.store.folder


@pytest.fixture
def far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder reached by a URI; copies go below a folder of the test's own."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "node"))
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "tokens.arrow").write_text("tokens")
    return tmp_path / "far"


def test_one_worker_copies_and_all_read_the_copy(far: Path) -> None:
    """The first copies before the others go on; a second run finds the copy."""
    waits: list[bool] = []
    data = Data(Store(far.as_uri()))

    def wait() -> None:
        waits.append(copy_of(data.folder).exists())

    for is_first in (True, False):
        found = on_this_node(data, is_first=is_first, wait=wait)
        assert (Path(found.folder) / "tokens.arrow").read_text() == "tokens"
        assert not Path(found.folder).is_relative_to(far)
    assert waits == [True, True]
    (far / "tokens.arrow").unlink()  # not read again: the name tells the content
    copy_folder(data.folder)
    names = {path.name for path in copy_of(data.folder).parent.iterdir()}
    assert names == {"far", "far.lock"}


def test_a_local_folder_stays_where_it_is(far: Path) -> None:
    """No copy, no waiting."""
    data = Data(Store(str(far)))
    found = on_this_node(data, is_first=True, wait=lambda: 1 / 0)
    assert found == replace(data)


def test_a_folder_that_is_gone_is_named(far: Path) -> None:
    """The error says what was copied where; nothing half is left."""
    with pytest.raises(StorageError, match=r"gone: cannot be copied to .*node"):
        copy_folder(f"{far.as_uri()}/gone")
    assert list((far.parent / "node").rglob("*.partial")) == []
