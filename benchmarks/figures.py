"""What every benchmark does with its figures: ratios with their spread, a dated file."""

import datetime
import json
import os
import re
import shlex
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from time import perf_counter
from typing import Any

from rich.console import Console
from rich.table import Table

PACKAGES = ("ray", "torch", "transformers", "tokenizers", "datasets", "pyarrow", "numpy")


def alternate(
    count: int, *runs: Callable[[], Any], clock: Callable[[], float] = perf_counter
) -> list[list[float]]:
    """Seconds of each of `runs`, which take turns `count` times, in changing order."""
    seconds: list[list[float]] = [[] for _ in runs]
    for turn in range(count):
        order = range(len(runs)) if turn % 2 == 0 else reversed(range(len(runs)))
        for number in order:
            started = clock()
            runs[number]()
            seconds[number].append(clock() - started)
    return seconds


def ratio(peer: Sequence[float], ours: Sequence[float], name: str) -> dict[str, float]:
    """Median of peer over ours, turn by turn, with the smallest and the largest."""
    ratios = [a / b for a, b in zip(peer, ours, strict=True)]
    return {
        name: statistics.median(ratios),
        f"{name}_smallest": min(ratios),
        f"{name}_largest": max(ratios),
    }


def show_figures(title: str, figures: Mapping[str, Any]) -> None:
    """The figures in a table, a line each."""
    table = Table(title=title, title_justify="left", show_header=False, min_width=len(title) + 2)
    table.add_column("figure")
    table.add_column("value", justify="right")
    for name, value in figures.items():
        table.add_row(name, f"{value:.3f}" if isinstance(value, float) else str(value))
    Console().print(table)


def write_figures(file: str | None, figures: Mapping[str, Any]) -> None:
    """Write the figures flat, with date, command, versions and cores; nowhere without a file."""
    if file is None:
        return
    about = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "command": f"python -m {_module()} {shlex.join(map(_bare, sys.argv[1:]))}".strip(),
        "cores": os.cpu_count(),
        "versions": {name: metadata.version(name) for name in PACKAGES},
    }
    Path(file).write_text(json.dumps({**about, **figures}, indent=1) + "\n")


def _module() -> str:
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec.name if spec else Path(sys.argv[0]).name


def _bare(argument: str) -> str:
    """An argument with the folders of its paths left out.

    >>> _bare("[data/a.json, /tmp/b.json]")
    '[a.json, b.json]'
    """
    return re.sub(r"[^\s,=\[]*/", "", argument)
