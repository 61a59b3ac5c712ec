"""The nodes of a cluster: whether each sees what a job needs, and when one is lost or joins."""

import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import psutil
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from rich.markup import escape

from jobs.cluster import connect, console, growth, start_minutes
from qa_core.errors import DataError, ModelError, QAError, ResourceError, StorageError, first_line
from qa_core.storage import (
    check_writable,
    file_bytes,
    is_directory,
    is_file,
    join,
    list_files,
    remove_file,
    write_bytes,
)

Answer = TypeVar("Answer")

SECONDS_TO_ANSWER = 120.0  # a node may first have to unpack the working directory
SECONDS_BETWEEN_LOOKS = 2.0
NAMES_SHOWN = 3
# Kinds of file systems that nodes can share.
SHARED_KINDS = ("nfs", "cifs", "smb", "lustre", "ceph", "gpfs", "beegfs", "fuse", "9p", "virtiofs")


@dataclass(frozen=True)
class Node:
    """A node that is alive."""

    id: str
    name: str  # its address in the cluster
    resources: Mapping[str, float]


def alive_nodes() -> list[Node]:
    """The nodes that are alive, the head first."""
    nodes = [
        Node(node["NodeID"], node["NodeManagerAddress"], node["Resources"])
        for node in ray.nodes()
        if node["Alive"]
    ]
    return sorted(nodes, key=lambda n: ("node:__internal_head__" not in n.resources, n.name))


@ray.remote(num_cpus=0, max_retries=0)  # type: ignore[untyped-decorator]  # Ray's types do not hold
def _answer(question: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    return question(*arguments)


def ask_nodes(
    question: Callable[..., Answer],
    *arguments: Any,
    nodes: Sequence[Node],
    patience: float = SECONDS_TO_ANSWER,
) -> list[Answer | Exception]:
    """What `question(*arguments)` gives on each of `nodes`, or the error it raised there.

    It needs no CPU, so that nodes answer that are busy, or do no work. One that does not answer in
    `patience` seconds has a `TimeoutError`.
    """
    asked = [
        _answer.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False)
        ).remote(question, arguments)
        for node in nodes
    ]
    ray.wait(asked, num_returns=len(asked), timeout=patience)
    answers: list[Answer | Exception] = []
    for one in asked:
        try:
            answers.append(ray.get(one, timeout=0.1))
        except ray.exceptions.GetTimeoutError:
            ray.cancel(one, force=True)
            answers.append(TimeoutError(f"no answer in {patience:.0f} s"))
        except Exception as error:  # of the question itself, or of the node
            answers.append(error)
    return answers


def ask_living_nodes(
    question: Callable[..., Answer], *arguments: Any
) -> list[tuple[Node, Answer | Exception]]:
    """What every node that lives answers, as of `ask_nodes`; one lost meanwhile is told of."""
    nodes = alive_nodes()
    answers = ask_nodes(question, *arguments, nodes=nodes)
    alive = {node.id for node in alive_nodes()}
    for node in nodes:
        if node.id not in alive:
            console.print(
                f"[bold]Node {escape(node.name)} is lost[/bold] before it has answered; the job "
                f"goes on without it; {describe(node.resources)} less"
            )
    return [pair for pair in zip(nodes, answers, strict=True) if pair[0].id in alive]


def join_cluster(
    storage: str,
    *,
    sources: Iterable[str] = (),
    models: Iterable[str] = (),
) -> "NodeWatch":
    """Connect; raise unless all nodes see what the job needs; from then on tell of lost nodes.

    `storage`, `sources` and `models` as `check_nodes` takes them.
    """
    connect()
    check_nodes(storage, sources=sources, models=models)
    return NodeWatch(alive_nodes())


def check_nodes(storage: str, *, sources: Iterable[str] = (), models: Iterable[str] = ()) -> None:
    """Raise unless every node can write to `storage` and reads these files and folders.

    `sources` are the files of the data, `models` folders or URIs of models. Nothing is asked where
    the only node is this one.
    """
    if len(alive_nodes()) < 2 and not growth():
        return
    check_growing(storage)
    places = {source: size for source in sources if (size := place_bytes(source)) is not None}
    folders = {model: size for model in models if (size := place_bytes(model)) is not None}
    probe = join(storage, f".seen-{uuid.uuid4().hex}")
    write_bytes(probe, b"seen")
    try:
        answers = ask_living_nodes(look, probe, storage, {**places, **folders})
    finally:
        remove_file(probe)
    problems = {
        node.name: answer if isinstance(answer, dict) else {"": first_line(answer)}
        for node, answer in answers
        if answer
    }
    if problems:
        raise problem_error(problems, storage, places)


def look(probe: str, storage: str, places: Mapping[str, int]) -> dict[str, str]:
    """What this node does not see as the driver sees it, and why."""
    found: dict[str, str] = {}
    try:
        if not is_file(probe):
            return {storage: "what the driver writes there is not seen"}
        check_writable(storage)
    except QAError as error:
        found[storage] = error.args[0]
    for place, size in places.items():
        try:
            own = place_bytes(place)
        except QAError as error:
            found[place] = error.args[0]
            continue
        if own is None:
            found[place] = "not there"
        elif own != size:
            found[place] = f"{own:,} bytes, and the driver sees {size:,}"
    return found


def place_bytes(place: str) -> int | None:
    """Bytes of a file or of a folder's files; None where there is neither (a Hub name, say)."""
    if place.startswith(("hub:", "embedded:")):
        return None
    if is_file(place):
        return file_bytes(place)
    if is_directory(place):
        return sum(file_bytes(file) for file in list_files(place))
    return None


def problem_error(
    problems: Mapping[str, Mapping[str, str]], storage: str, sources: Mapping[str, int]
) -> QAError:
    """One error for what nodes do not see: the first place, and the nodes it concerns."""
    place = next(iter(next(iter(problems.values()))))
    nodes = [name for name, own in problems.items() if place in own]
    why = problems[nodes[0]][place]
    shown = ", ".join(nodes[:NAMES_SHOWN]) + (
        f" and {len(nodes) - NAMES_SHOWN} more" if len(nodes) > NAMES_SHOWN else ""
    )
    if not place:
        return ResourceError(
            f"{shown}: {why}", "the cluster", "nodes that run this project", "python -m jobs.check"
        )
    is_local = "://" not in place
    remedy = "give the node access: its role, or the environment of its `ray start`"
    if place == storage:
        if is_local:
            remedy = "give --storage_path s3://…, gs://… or a folder that all nodes mount"
        return StorageError(f"node {shown}: {why}", place, "storage that every node writes", remedy)
    kind = DataError if place in sources else ModelError
    if is_local:
        remedy = "give a URI (s3://…, gs://…), or copy it to the same place on every node"
    return kind(f"node {shown}: {why}", place, "the same on every node", remedy)


def check_growing(storage: str) -> None:
    """Raise where nodes that are still to be started could not see a local `storage`."""
    if "://" in storage or not growth():
        return
    kind = file_system_kind(storage)
    if not kind.startswith(SHARED_KINDS):
        raise StorageError(
            f"a folder on this node's own disk ({kind}), and the cluster can start more nodes",
            storage,
            "storage that every node sees",
            "give --storage_path s3://…, gs://… or a folder that all nodes mount",
        )


def file_system_kind(path: str) -> str:
    """The kind of file system a local path lies on: ext4, nfs4, …"""
    mounts = {part.mountpoint: part.fstype for part in psutil.disk_partitions(all=True)}
    above = [point for point in mounts if f"{path}/".startswith(f"{point.rstrip('/')}/")]
    return mounts[max(above, key=len)] if above else "unknown"


class NodeWatch:
    """Says in a line when a node is lost or joins, in a thread that ends with the process."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.known = {node.id: node for node in nodes}
        # What a training must have at once: with less it waits, and a line says for what.
        self.needed: Mapping[str, float] = {}
        self.thread = threading.Thread(target=self._watch, name="nodes", daemon=True)
        self.thread.start()

    def _watch(self) -> None:
        while ray.is_initialized():
            time.sleep(SECONDS_BETWEEN_LOOKS)
            try:
                self.look(ray.nodes())
            except Exception:  # Ray is being stopped, or its head is gone: others say so
                return

    def look(self, nodes: Sequence[Mapping[str, Any]]) -> None:
        """Compare the nodes of now (`ray.nodes()`) with those of before."""
        for node in nodes:
            name, known = node["NodeManagerAddress"], node["NodeID"] in self.known
            if node["Alive"] and not known:
                self.known[node["NodeID"]] = Node(node["NodeID"], name, node["Resources"])
                console.print(f"Node {escape(name)} has joined: {describe(node['Resources'])}")
            elif known and not node["Alive"]:
                gone = self.known.pop(node["NodeID"])
                reason = node.get("DeathReasonMessage") or "its reason is not known"
                console.print(
                    f"[bold]Node {escape(name)} is lost[/bold] ({escape(reason)}); what ran there "
                    f"is done again elsewhere; {describe(gone.resources)} less"
                )
                self._tell_wait()

    def _tell_wait(self) -> None:
        """Say what a job has to wait for now."""
        for name, amount in self.needed.items():
            left = sum(node.resources.get(name, 0) for node in self.known.values())
            if left < amount:
                console.print(
                    f"Training needs {amount:g} {name} at once, and {left:g} are left: it waits "
                    f"for nodes, {start_minutes():.0f} minutes each time"
                )


def describe(resources: Mapping[str, float]) -> str:
    """CPUs and GPUs of a node, for people."""
    parts = [f"{resources[name]:g} {name}" for name in ("CPU", "GPU") if resources.get(name)]
    return ", ".join(parts) or "no CPU"
