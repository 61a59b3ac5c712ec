"""Fixtures shared by tests: models made on the spot and one local Ray a session."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import torch

os.environ.update(
    {
        "HF_HUB_OFFLINE": "1",  # a test that reached for the Hub would fail, not wait
        "TOKENIZERS_PARALLELISM": "false",
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.25",
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
        "PYTHONPATH": str(Path(__file__).parent.parent),
    }
)

from tests.runs import write_data
from tests.tiny import save_model

torch.set_num_threads(1)  # the models are tiny: more threads only wait for one another

SECONDS_TO_START = 120


@dataclass(frozen=True)
class LocalRay:
    """A running head node."""

    dashboard: str  # URL
    address: str  # for RAY_ADDRESS
    pid: int  # of the process that every other one of this Ray is below


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Files of `tests.runs.write_data`, by name."""
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a two-layer BERT with random weights; windows up to 128 tokens."""
    return save_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def local_ray() -> Iterator[LocalRay]:
    """`ray start --head` with four logical CPUs, joined by this process, stopped at the end.

    Ports are free ones, so that another Ray on the machine is no trouble; the process that was
    started is ended by its id.
    """
    import ray

    with ExitStack() as stack:
        ports = free_ports(4)
        # The paths of Ray's sockets may have no more than 107 bytes: not below pytest's folder.
        folder = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="ray", dir="/tmp", ignore_cleanup_errors=True)
        )
        log = stack.enter_context(Path(folder, "head.log").open("w"))
        command = [
            str(Path(sys.executable).with_name("ray")),
            *("start", "--head", "--block", "--num-cpus=4", "--object-store-memory=300000000"),
            *("--dashboard-host=127.0.0.1", "--node-ip-address=127.0.0.1"),
            *(f"--port={ports[0]}", f"--dashboard-port={ports[1]}"),
            f"--dashboard-agent-listen-port={ports[2]}",
            f"--ray-client-server-port={ports[3]}",
            f"--temp-dir={folder}",
        ]
        # As in an activated environment: a submitted job's `python` is found on the head's PATH.
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        head = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, "PATH": path}
        )
        stack.callback(end_process, head)
        join(f"127.0.0.1:{ports[0]}", head, Path(log.name))
        stack.callback(ray.shutdown)
        address = f"127.0.0.1:{ports[0]}"
        yield LocalRay(f"http://127.0.0.1:{ports[1]}", address, head.pid)


def join(address: str, head: subprocess.Popen[bytes], log: Path) -> None:
    """Connect to the head as soon as it answers."""
    import ray

    deadline = time.monotonic() + SECONDS_TO_START
    while True:
        try:
            ray.init(address=address, logging_level="error", log_to_driver=False)
        except ConnectionError:
            if head.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"Ray did not start: {log.read_text()}") from None
            time.sleep(1)
        else:
            return


def end_process(process: subprocess.Popen[bytes]) -> None:
    """Ask a process to end, and wait for it and for all below it, which write to the end."""
    if process.poll() is not None:
        return
    below = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    try:
        process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    psutil.wait_procs(below, timeout=30)


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on at this moment."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
