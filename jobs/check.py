"""Before a long job: whether this cluster can run a configuration, told in seconds.

Every node is asked for its versions, its modules, its GPUs, its clock, the storage, the data and
the model; memory and disk are compared with what the configuration needs. The options are those of
`jobs.train`. The exit status is 1 where something is missing.

    python -m jobs.check --storage_path s3://BUCKET/runs --data.train s3://BUCKET/train.json …
"""

import importlib
import platform
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

import psutil
from rich.markup import escape
from rich.table import Table

from jobs.artefacts import PACKAGES
from jobs.cluster import (
    absolute_storage,
    check_workers,
    connect,
    console,
    run_folder,
    run_job,
    wants_gpu,
)
from jobs.configuration import CheckConfig, parse_config
from jobs.hub import check_hub
from jobs.models import check_model
from jobs.needs import Needs, megabytes, needs_of
from jobs.nodes import (
    Node,
    alive_nodes,
    ask_nodes,
    check_growing,
    look,
    place_bytes,
)
from jobs.prepare import SPLITS, find_split
from qa_core.errors import QAError, first_line
from qa_core.storage import join, remove_file, write_bytes

MODULES = ("jobs.training_worker", "jobs.token_shards", "jobs.shard_scoring")
CLOCK_SECONDS = 5.0  # apart; the sweep's deadline and signatures of storage requests need less
GOOD, BAD = "[green]ok[/green]", "[bold red]no[/bold red]"


@dataclass(frozen=True)
class Finding:
    """What was looked at, and what is there."""

    what: str
    where: str  # a node's address, or "cluster"
    is_good: bool
    found: str
    remedy: str = ""


@dataclass(frozen=True)
class NodeFacts:
    """What a node says of itself."""

    versions: dict[str, str]
    import_error: str  # empty where all modules can be imported
    num_gpus: int
    gpu_bytes: int  # of the smallest
    memory_bytes: int
    free_disk_bytes: int  # where tokens and models go: the local storage, or temporary files
    clock: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Look at everything, print it, and exit with 1 where something is missing."""
    started = time.monotonic()
    config = parse_config(CheckConfig, arguments)
    findings = list(check(config))
    show(findings)
    bad = sum(not finding.is_good for finding in findings)
    console.print(
        f"{len(findings)} checks in {time.monotonic() - started:.0f} s: "
        + (f"[bold]{bad} to be mended[/bold]" if bad else "this cluster can run it")
    )
    if bad:
        raise SystemExit(1)


def check(config: CheckConfig) -> Iterator[Finding]:
    """All findings, those of the configuration first."""
    splits, problems = [], []
    for name in SPLITS:
        try:
            splits.append(find_split(config.data, name))
        except QAError as error:
            problems.append(Finding(f"data.{name}", "driver", False, str(error)))
    yield from problems
    yield from (
        Finding(f"data.{s.name}", "driver", True, f"{len(s.sources)} source(s)") for s in splits
    )
    model = None
    try:
        model = check_model(config.model.name_or_path, config.features)
        yield Finding("model", "driver", True, model)
    except QAError as error:
        yield Finding("model", "driver", False, str(error))
    if config.hub.repo_id is not None:
        yield check_push(config)
    connect()
    nodes = alive_nodes()
    yield from check_resources(config, nodes)
    storage = absolute_storage(config.storage_path)
    facts = node_facts(nodes, None if "://" in storage else storage)
    use_gpu = wants_gpu(config.scaling.use_gpu)
    yield from check_facts(nodes, facts, use_gpu=use_gpu)
    places = [source for split in splits for source in split.sources] + ([model] if model else [])
    yield from check_places(storage, places, nodes)
    if model is not None and len(splits) == len(SPLITS):
        needs = needs_of(config, splits[0].sources, model, use_gpu=use_gpu)
        yield from check_needs(needs, config, nodes, facts)


def check_push(config: CheckConfig) -> Finding:
    """Whether the model can be pushed to the Hub."""
    run = run_folder(config.storage_path, config.run_name)
    try:
        check_hub(config.hub, run, is_finished=False)
    except QAError as error:
        return Finding("hub", "driver", False, str(error))
    return Finding("hub", "driver", True, f"{config.hub.repo_id} can be pushed to")


def check_resources(config: CheckConfig, nodes: Sequence[Node]) -> Iterator[Finding]:
    """Whether there is room for all workers."""
    try:
        check_workers(config.scaling)
    except QAError as error:
        yield Finding("workers", "cluster", False, str(error.args[0]), str(error.args[3]))
        return
    total = {name: sum(node.resources.get(name, 0) for node in nodes) for name in ("CPU", "GPU")}
    yield Finding(
        "workers",
        "cluster",
        True,
        f"{config.scaling.num_workers} wanted; {len(nodes)} node(s) with {total['CPU']:g} CPU and "
        f"{total['GPU']:g} GPU",
    )


def node_facts(nodes: Sequence[Node], place: str | None) -> list[NodeFacts | Exception]:
    """What every node says of itself; its clock as it differs from the driver's, in seconds.

    The disk is that of the folder `place`, which need not exist; None: of temporary files.
    """
    facts = ask_nodes(say_facts, place, nodes=nodes)
    return [
        answer if isinstance(answer, Exception) else with_clock(node, answer)
        for node, answer in zip(nodes, facts, strict=True)
    ]


def say_facts(place: str | None = None) -> NodeFacts:
    """The facts of this node; `place` as of `node_facts`."""
    import torch

    path = Path(place or tempfile.gettempdir())
    folder = next(folder for folder in (path, *path.parents) if folder.exists())
    gpus = range(torch.cuda.device_count())
    return NodeFacts(
        versions={"python": platform.python_version(), **own_versions()},
        import_error=import_problem(),
        num_gpus=len(gpus),
        gpu_bytes=min((torch.cuda.get_device_properties(n).total_memory for n in gpus), default=0),
        memory_bytes=psutil.virtual_memory().total,
        free_disk_bytes=shutil.disk_usage(folder).free,
        clock=time.time(),
    )


def own_versions() -> dict[str, str]:
    """Versions of the packages that matter; "none" where one is not installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "none"
    return found


def import_problem() -> str:
    """Why the modules that work here cannot be imported; empty where they can."""
    for name in MODULES:
        try:
            importlib.import_module(name)
        except Exception as error:
            return f"{name}: {first_line(error)}"
    return ""


def with_clock(node: Node, facts: NodeFacts) -> NodeFacts:
    """The facts, with how many seconds at least the node's clock differs from the driver's."""
    before = time.time()
    [answer] = ask_nodes(time.time, nodes=[node])
    after = time.time()
    if isinstance(answer, Exception):
        return facts
    return replace(facts, clock=max(before - answer, answer - after, 0.0))


def check_facts(
    nodes: Sequence[Node], facts: Sequence[NodeFacts | Exception], *, use_gpu: bool
) -> Iterator[Finding]:
    """Versions as here, modules that can be imported, GPUs that are seen, a clock that agrees."""
    expected = {"python": platform.python_version(), **own_versions()}
    for node, said in zip(nodes, facts, strict=True):
        if isinstance(said, Exception):
            remedy = "see the node's logs; set it up as cluster.yaml does"
            yield Finding("answer", node.name, False, first_line(said), remedy)
            continue
        other = [
            f"{name} {version}, the driver has {expected[name]}"
            for name, version in said.versions.items()
            if version != expected[name]
        ]
        yield Finding(
            "versions",
            node.name,
            not other,
            "; ".join(other) or "as the driver's",
            "install with constraints.txt on every node",
        )
        yield Finding(
            "modules",
            node.name,
            not said.import_error,
            said.import_error or "can be imported",
            "pip install -c constraints.txt -e . on the node",
        )
        yield Finding(
            "clock",
            node.name,
            said.clock <= CLOCK_SECONDS,
            f"{said.clock:.1f} s apart",
            "let the nodes keep time with NTP",
        )
        counted = int(node.resources.get("GPU", 0))
        if use_gpu and (counted or said.num_gpus):
            yield Finding(
                "GPUs",
                node.name,
                counted == said.num_gpus,
                f"Ray counts {counted}, torch sees {said.num_gpus}",
                "install the NVIDIA driver and a CUDA build of torch; `nvidia-smi` on the node",
            )


def check_places(storage: str, places: Sequence[str], nodes: Sequence[Node]) -> Iterator[Finding]:
    """Whether every node writes to the storage, and reads data and model as the driver does."""
    remedy = "give a URI (s3://, gs://) or a mounted folder, and the node access to it"
    probe = join(storage, f".seen-{uuid.uuid4().hex}")
    try:
        check_growing(storage)
        write_bytes(probe, b"seen")
        sizes = {place: size for place in places if (size := place_bytes(place)) is not None}
        answers = ask_nodes(look, probe, storage, sizes, nodes=nodes)
        remove_file(probe)
    except QAError as error:
        yield Finding("storage", "driver", False, str(error), remedy)
        return
    for node, answer in zip(nodes, answers, strict=True):
        problems = {"": first_line(answer)} if isinstance(answer, Exception) else answer
        words = "; ".join(f"{place}: {why}" for place, why in problems.items())
        good = f"{storage} is written, {len(sizes)} file(s) or folder(s) are read"
        yield Finding("storage and data", node.name, not problems, words or good, remedy)


def check_needs(
    needs: Needs, config: CheckConfig, nodes: Sequence[Node], facts: Sequence[NodeFacts | Exception]
) -> Iterator[Finding]:
    """Memory and disk of every node that can train, against what its workers need."""
    for node, said in zip(nodes, facts, strict=True):
        num_workers = workers_on(node, config, needs)
        if isinstance(said, Exception) or not num_workers:
            continue
        memory = num_workers * needs.worker_bytes
        yield Finding(
            "memory",
            node.name,
            memory <= said.memory_bytes,
            f"{num_workers} worker(s) x {needs.worker_words} = {megabytes(memory)}; "
            f"the node has {megabytes(said.memory_bytes)}",
            "lower train.per_worker_batch_size (train.gradient_accumulation_steps makes up for it) "
            "or take larger nodes",
        )
        if needs.gpu_bytes:
            yield Finding(
                "GPU memory",
                node.name,
                needs.gpu_bytes <= said.gpu_bytes * config.scaling.gpus_per_worker,
                f"{needs.gpu_words} = {megabytes(needs.gpu_bytes)}; "
                f"a GPU has {megabytes(said.gpu_bytes)}",
                "lower train.per_worker_batch_size, or train.gradient_checkpointing true",
            )
        yield Finding(
            "disk",
            node.name,
            needs.disk_bytes <= said.free_disk_bytes,
            f"{needs.disk_words} = {megabytes(needs.disk_bytes)}; "
            f"free are {megabytes(said.free_disk_bytes)}",
            "make room in storage_path, or, where that is a URI, in the node's TMPDIR",
        )


def workers_on(node: Node, config: CheckConfig, needs: Needs) -> int:
    """Training workers that Ray may put on a node."""
    scaling = config.scaling
    room = int(node.resources.get("CPU", 0) // scaling.cpus_per_worker)
    if needs.gpu_bytes:
        room = min(room, int(node.resources.get("GPU", 0) / scaling.gpus_per_worker + 1e-9))
    return int(min(room, scaling.num_workers))


def show(findings: Sequence[Finding]) -> None:
    """A table of all findings, and what to do about the bad ones."""
    table = Table("check", "where", "", "found")
    for finding in findings:
        text = escape(finding.found)
        if not finding.is_good and finding.remedy:
            text += f"\n[bold]Do:[/bold] {escape(finding.remedy)}"
        table.add_row(finding.what, finding.where, GOOD if finding.is_good else BAD, text)
    console.print(table)


if __name__ == "__main__":
    run_job(main)
