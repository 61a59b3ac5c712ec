"""Sides of a comparison that are processes of their own and work only when they are asked.

What a process sets for itself (threads, how memory is freed) then touches no other side, and each
keeps what it has built from its first turn to its last.
"""

import multiprocessing
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, Self

from benchmarks.figures import alternate


class Side:
    """A process that runs `work(connection, *arguments)`; it sends first, when it is ready."""

    def __init__(self, work: Callable[..., None], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs, *arguments), daemon=True)
        self.process.start()
        theirs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.connection.close()
        self.process.join(10)
        self.process.kill()

    def tell(self, message: str) -> None:
        """Have it begin."""
        self.connection.send(message)

    def answer(self) -> Any:
        """What it sends next."""
        try:
            return self.connection.recv()
        except EOFError:
            self.process.join()
            raise RuntimeError(f"a side ended with {self.process.exitcode}; see above") from None

    def ask(self, message: str) -> Any:
        """Have it work and wait for the answer."""
        self.tell(message)
        return self.answer()


def ask_all(sides: list[Side], message: str) -> list[Any]:
    """Have sides work at the same time; their answers."""
    for side in sides:
        side.tell(message)
    return [side.answer() for side in sides]


def serve(connection: Connection, actions: Mapping[str, Callable[[], Any]]) -> None:
    """Of a side: say that it is ready, then answer messages until the other end is closed."""
    connection.send(None)
    with suppress(EOFError):
        while True:
            connection.send(actions[connection.recv()]())


def take_turns(count: int, *runs: Callable[[], Any]) -> list[list[Any]]:
    """What each of `runs` gives, turn by turn; they take turns in changing order."""
    results: list[list[Any]] = [[] for _ in runs]

    def noted(number: int) -> Callable[[], None]:
        return lambda: results[number].append(runs[number]())

    alternate(count, *map(noted, range(len(runs))))
    return results
