"""Does the memory of feature generation grow with the data? Peaks at 1,000,000 and 100,000.

    python -m benchmarks.memory --data squadshifts_new_wiki.json --json memory.json

Starts a Ray head for each size, runs `jobs.prepare` against it as a process of its own, and looks
five times a second at the driver and at all processes together: proportional set size, so that
shared memory counts once. About ten minutes on two cores.
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from jsonargparse import auto_cli

from benchmarks.figures import write_figures
from benchmarks.repeated_data import write_repeated

SECONDS_BETWEEN_LOOKS = 0.2
STARTED = "Ray runtime started"  # what `ray start` prints


def main(
    data: str = "embedded:train",
    small: int = 100_000,
    large: int = 1_000_000,
    json: str | None = None,
) -> None:
    """Measure; see the module.

    Args:
        data: SQuAD JSON that the questions are made from.
        small: questions of the first run.
        large: questions of the second.
        json: where to write the figures, too.
    """
    figures = compare_memory(data, small, large)
    for name in ("driver_growth", "memory_growth"):
        print(f"{name} {figures[name]:.3f}")
    write_figures(json, figures)


def measure_prepare(file: Path, folder: str) -> dict[str, float]:
    """Peaks and seconds while the file is prepared."""
    return peak_memory(
        *("jobs.prepare", f"--data.train={file}", "--data.dev=embedded:handwritten"),
        f"--storage_path={folder}/store",
    )


def compare_memory(
    data: str,
    small: int,
    large: int,
    measure: Callable[[Path, str], dict[str, float]] = measure_prepare,
) -> dict[str, Any]:
    """Peaks, times and growth of what `measure` runs with a file and a folder to write in."""
    figures: dict[str, Any] = {}
    for name, num_questions in (("small", small), ("large", large)):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "data.json")
            write_repeated(data, file, num_questions)
            figures |= {f"{name}_questions": num_questions, f"{name}_bytes": file.stat().st_size}
            figures |= {f"{name}_{k}": v for k, v in measure(file, folder).items()}
    figures["driver_growth"] = figures["large_driver_peak"] / figures["small_driver_peak"]
    figures["memory_growth"] = figures["large_all_peak"] / figures["small_all_peak"]
    return figures


def peak_memory(module: str, *arguments: str) -> dict[str, float]:
    """Peak bytes of the driver and of all processes while a job runs on a new Ray, and seconds."""
    with ray_head() as (head, address):
        command = [sys.executable, "-m", module, *arguments]
        started = time.monotonic()
        driver = subprocess.Popen(command, env={**os.environ, "RAY_ADDRESS": address})
        peaks = {"driver_peak": 0, "all_peak": 0}
        while driver.poll() is None:
            own = memory_of(psutil.Process(driver.pid))
            rest = sum(memory_of(process) for process in family(head.pid))
            now = {"driver_peak": own, "all_peak": own + rest}
            peaks = {name: max(peaks[name], now[name]) for name in peaks}
            time.sleep(SECONDS_BETWEEN_LOOKS)
        if driver.returncode:
            raise RuntimeError(f"{module} ended with {driver.returncode}")
        return {**peaks, "seconds": time.monotonic() - started}


def family(pid: int) -> list[psutil.Process]:
    """A process and all below it."""
    parent = psutil.Process(pid)
    return [parent, *parent.children(recursive=True)]


def memory_of(process: psutil.Process) -> int:
    """Proportional set size in bytes; 0 of a process that has gone."""
    try:
        lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


@contextmanager
def ray_head() -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A Ray head of this benchmark's own, and its address."""
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # A folder of its own: a later ray.init would look for this head where Ray notes the last one.
    session = tempfile.mkdtemp(prefix="ray", dir="/tmp")
    command = [
        *(str(Path(sys.executable).with_name("ray")), "start", "--head", "--block"),
        *(f"--port={port}", "--node-ip-address=127.0.0.1"),
        *("--include-dashboard=false", f"--temp-dir={session}"),
    ]
    log = Path(session, "head.log")
    with log.open("w") as output:
        head = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        wait_for(head, log)
        yield head, f"127.0.0.1:{port}"
    finally:
        processes = family(head.pid) if head.poll() is None else []
        head.terminate()
        psutil.wait_procs(processes, timeout=30)
        shutil.rmtree(session, ignore_errors=True)


def wait_for(head: subprocess.Popen[bytes], log: Path, seconds: float = 120) -> None:
    """Until the head says that its node has started too: a port alone answers sooner."""
    deadline = time.monotonic() + seconds
    while STARTED not in (said := log.read_text()):
        if head.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"Ray did not start:\n{said[-2000:]}")
        time.sleep(0.2)


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
