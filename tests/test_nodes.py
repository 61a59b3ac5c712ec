"""What nodes see, and what is said when one does not, is lost, or joins."""

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from jobs import nodes
from jobs.nodes import (
    NodeWatch,
    alive_nodes,
    ask_nodes,
    check_growing,
    check_nodes,
    file_system_kind,
    look,
    place_bytes,
    problem_error,
)
from qa_core.errors import DataError, ModelError, ResourceError, StorageError


def test_a_node_tells_what_it_sees_otherwise(tmp_path: Path) -> None:
    """A probe that is not there, a file that is missing, one of another size."""
    probe = tmp_path / "probe"
    assert look(str(probe), str(tmp_path), {}) == {
        str(tmp_path): "what the driver writes there is not seen"
    }
    probe.write_bytes(b"seen")
    (tmp_path / "short").write_bytes(b"12")
    places = {str(tmp_path / "short"): 3, str(tmp_path / "gone"): 1, str(probe): 4}
    assert look(str(probe), str(tmp_path), places) == {
        str(tmp_path / "short"): "2 bytes, and the driver sees 3",
        str(tmp_path / "gone"): "not there",
    }


def test_a_folder_counts_by_its_files(tmp_path: Path) -> None:
    """All below it; names of the Hub and of the package are no places."""
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/one").write_bytes(b"123")
    (tmp_path / "a/b/two").write_bytes(b"45")
    assert place_bytes(str(tmp_path / "a")) == 5
    assert place_bytes(str(tmp_path / "a/one")) == 3
    assert place_bytes("hub:squad:train") is None
    assert place_bytes("embedded:train") is None
    assert place_bytes(str(tmp_path / "none")) is None


@pytest.mark.parametrize(
    ("place", "kind", "remedy"),
    [
        ("/runs", StorageError, "s3://"),
        ("s3://b/runs", StorageError, "give the node access"),
        ("/data/train.json", DataError, "copy it to the same place on every node"),
        ("/models/bert", ModelError, "give a URI"),
    ],
)
def test_the_error_names_place_nodes_and_remedy(
    place: str, kind: type[Exception], remedy: str
) -> None:
    """Three nodes by name, the others by number."""
    problems = {f"10.0.0.{number}": {place: "not there"} for number in range(5)}
    storage = "s3://b/runs" if "://" in place else "/runs"
    error = problem_error(problems, storage, {"/data/train.json": 1})
    assert type(error) is kind
    text = str(error)
    assert "10.0.0.0, 10.0.0.1, 10.0.0.2 and 2 more: not there" in text
    assert place in text
    assert remedy in text


def test_a_node_that_does_not_answer_is_an_error_of_the_cluster() -> None:
    """With the way to find out more."""
    error = problem_error({"10.0.0.1": {"": "no answer in 120 s"}}, "/runs", {})
    assert isinstance(error, ResourceError)
    assert "jobs.check" in str(error)


def test_a_disk_of_its_own_is_refused_where_more_nodes_may_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those could not see it; a URI, or a cluster that does not grow, is no trouble."""
    monkeypatch.setattr(nodes, "growth", lambda: {"CPU": 8.0})
    check_growing("s3://bucket/runs")
    with pytest.raises(StorageError, match=r"own disk .* can start more nodes"):
        check_growing(str(tmp_path))
    monkeypatch.setattr(nodes, "file_system_kind", lambda path: "nfs4")
    check_growing(str(tmp_path))
    monkeypatch.undo()
    assert file_system_kind("/proc/self") == "proc"


def node(number: int, *, is_alive: bool = True, **more: Any) -> dict[str, Any]:
    """A node as Ray lists it."""
    return {
        "NodeID": f"id{number}",
        "NodeManagerAddress": f"10.0.0.{number}",
        "Alive": is_alive,
        "Resources": {"CPU": 4.0, "GPU": 1.0, "memory": 1e9},
        **more,
    }


def test_a_lost_node_and_a_new_one_are_told_in_a_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once each; a node that was dead before is nobody's concern."""
    monkeypatch.setattr(NodeWatch, "_watch", lambda self: None)
    watch = NodeWatch([nodes.Node("id1", "10.0.0.1", {"CPU": 4.0})])
    gone = node(1, is_alive=False, DeathReasonMessage="health check failed")
    for _ in range(2):
        watch.look([gone, node(2), node(3, is_alive=False)])
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "Node 10.0.0.1 is lost (health check failed); what ran there is done again elsewhere; "
        "4 CPU less",
        "Node 10.0.0.2 has joined: 4 CPU, 1 GPU",
    ]


def test_a_training_that_must_wait_says_for_what(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And for how long; where the other nodes suffice, nothing."""
    monkeypatch.setattr(NodeWatch, "_watch", lambda self: None)
    monkeypatch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "300")
    for needed, says in (({"CPU": 6.0, "GPU": 0}, True), ({"CPU": 4.0}, False)):
        watch = NodeWatch([nodes.Node(f"id{n}", f"10.0.0.{n}", {"CPU": 4.0}) for n in (1, 2)])
        watch.needed = needed
        watch.look([node(1, is_alive=False), node(2)])
        told = "needs 6 CPU at once, and 4 are left: it waits for nodes, 5 minutes each time"
        assert (told in " ".join(capsys.readouterr().out.split())) == says


@pytest.mark.ray
@pytest.mark.usefixtures("local_ray")
def test_every_node_is_asked() -> None:
    """Answers and errors come back by node, also from where no CPU is free."""
    [here] = alive_nodes()
    assert ask_nodes(os.getppid, nodes=[here]) != [os.getppid()]
    assert ask_nodes(socket.gethostname, nodes=[here]) == [socket.gethostname()]
    [error] = ask_nodes(int, "x", nodes=[here])
    assert isinstance(error, ValueError)
    gone = nodes.Node("0" * 56, "10.0.0.9", {})
    [answer] = ask_nodes(os.getpid, nodes=[gone], patience=5)
    assert isinstance(answer, Exception)


@pytest.mark.ray
@pytest.mark.usefixtures("local_ray")
def test_a_node_lost_while_it_is_asked_is_left_out_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job goes on with the others; one that lives and cannot be asked still ends it."""
    [here] = alive_nodes()
    gone = nodes.Node("0" * 56, "10.0.0.9", {"CPU": 4.0})
    seen = iter([[here, gone], [here, gone], [here]])
    monkeypatch.setattr(nodes, "alive_nodes", lambda: next(seen))
    check_nodes(str(tmp_path))
    assert capsys.readouterr().out.splitlines() == [
        "Node 10.0.0.9 is lost before it has answered; the job goes on without it; 4 CPU less"
    ]
    monkeypatch.setattr(nodes, "alive_nodes", lambda: [here, gone])
    with pytest.raises(ResourceError, match=r"10\.0\.0\.9: "):
        check_nodes(str(tmp_path))


@pytest.mark.ray
@pytest.mark.usefixtures("local_ray")
def test_one_node_is_not_asked(tmp_path: Path) -> None:
    """It sees what the driver sees: nothing is written."""
    check_nodes(str(tmp_path / "runs"), sources=["/none"], models=["/none"])
    assert not (tmp_path / "runs").exists()
