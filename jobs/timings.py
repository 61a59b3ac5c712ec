"""timings.json: what the stages of a job took, by the clock."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from jobs.artefacts import write_json
from qa_core.storage import join

TIMINGS = "timings.json"


class Stages:
    """Seconds of each stage of a job, in the order they began."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time from here to its end to the stage called `name`."""
        started = time.monotonic()
        self.seconds.setdefault(name, 0.0)
        try:
            yield
        finally:
            self.seconds[name] += time.monotonic() - started

    def write(self, run: str) -> None:
        """Write timings.json."""
        write_json(
            join(run, TIMINGS), {"stages": {n: round(s, 3) for n, s in self.seconds.items()}}
        )
