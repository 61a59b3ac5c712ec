"""The page of a run, made again from its files; or of several runs, beside each other.

Needs no cluster and no model. A run that is still going gives a page of what there is so far.

    python -m jobs.report runs/demo
    python -m jobs.report runs/first runs/second --out comparison.html
"""

import sys
from collections.abc import Sequence

from jobs.artefacts import REPORT
from jobs.cluster import console, run_job
from jobs.configuration import ReportConfig, parse_config
from jobs.console import warn
from qa_core.errors import ConfigError
from qa_core.report_page import build_page
from qa_core.run_files import read_run
from qa_core.storage import join, write_bytes

SEVERAL = "comparison.html"  # beside the folder of the first run


def main(arguments: Sequence[str] | None = None) -> None:
    """Make a page of runs."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    folders, options = split_arguments(given)
    config = parse_config(ReportConfig, options)
    if not folders:
        raise ConfigError(
            "no run is named",
            where="the command line",
            expected="folders of runs, before any option",
            remedy="python -m jobs.report runs/demo",
        )
    runs = [read_run(folder) for folder in folders]
    page = build_page(runs)
    for run in runs:
        for note in run.notes:
            warn(f"{run.name}: {note}")
    out = config.out or default_place(folders)
    write_bytes(out, page.encode())
    console.print(f"{out}  ({len(page.encode()) / 1e6:.1f} MB)", markup=False)


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The runs' folders, and the options after them.

    >>> split_arguments(["runs/one", "runs/two/", "--out", "page.html"])
    (['runs/one', 'runs/two'], ['--out', 'page.html'])
    """
    number = next((n for n, text in enumerate(arguments) if text.startswith("-")), len(arguments))
    return [folder.rstrip("/") for folder in arguments[:number]], list(arguments[number:])


def default_place(folders: Sequence[str]) -> str:
    """Where a page goes that was given no place."""
    first = folders[0]
    if len(folders) == 1:
        return join(first, REPORT)
    return join(first.rpartition("/")[0] or ".", SEVERAL)


if __name__ == "__main__":
    run_job(main)
