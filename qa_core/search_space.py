"""space: what a sweep may set each key to, and the points that follow from it.

A point maps every searched key to one value. Keys are dotted names of a configuration
(`features.doc_stride`); nothing here knows what they mean.
"""

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from qa_core.errors import ConfigError

Value = Any  # what JSON holds
Point = dict[str, Value]
LARGEST_GRID = 100_000  # points: more are surely not meant


@dataclass(frozen=True)
class Values:
    """Some values, in the order given: a list, or `choice`."""

    values: tuple[Value, ...]

    @property
    def finite(self) -> tuple[Value, ...] | None:
        """All values."""
        return self.values

    def draw(self, random: np.random.Generator) -> Value:
        """One of them, each as likely."""
        return self.values[int(random.integers(len(self.values)))]


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included; whole numbers where both are."""

    low: float
    high: float
    is_log: bool = False  # drawn evenly over the logarithm
    step: float | None = None  # only low + a multiple of it
    is_whole: bool = False

    @property
    def finite(self) -> tuple[Value, ...] | None:
        """All values, where there is a step; else None."""
        if self.step is None:
            return None
        count = math.floor((self.high - self.low) / self.step + 1e-9) + 1
        numbers = (self.low + place * self.step for place in range(count))
        return tuple(self._number(float(f"{number:.15g}")) for number in numbers)  # 0.3, not 0.3…04

    def draw(self, random: np.random.Generator) -> Value:
        """One number, each (or the logarithm of each) as likely."""
        if self.finite is not None:
            return self.finite[int(random.integers(len(self.finite)))]
        if self.is_whole and not self.is_log:
            return int(random.integers(int(self.low), int(self.high) + 1))
        if self.is_log:
            number = math.exp(random.uniform(math.log(self.low), math.log(self.high)))
        else:
            number = random.uniform(self.low, self.high)
        return self._number(number)

    def _number(self, number: float) -> Value:
        within = min(max(number, self.low), self.high)
        return round(within) if self.is_whole else float(within)


Domain = Values | Range
Space = dict[str, Domain]


def check_range(key: str, domain: Range) -> None:
    """Raise `ConfigError` where no number, or no logarithm, is between the bounds."""
    if domain.low > domain.high:
        raise ConfigError(
            f"the range from {domain.low:g} to {domain.high:g} is upside down",
            where=key,
            expected="the smaller bound first",
        )
    if domain.is_log and domain.low <= 0:
        raise ConfigError(f"loguniform from {domain.low:g}", key, "bounds above 0")
    room = (domain.high - domain.low) * (1 + 1e-9)  # from 0.2 to 0.3 is a step of 0.1, rounded
    if domain.step is not None and not 0 < domain.step <= room:
        raise ConfigError(
            f"a step of {domain.step:g} from {domain.low:g} to {domain.high:g}",
            where=key,
            expected="a step above 0 that is not larger than the range",
        )
    if domain.step is not None and domain.is_whole and domain.step % 1:
        raise ConfigError(f"a step of {domain.step:g}", key, "a whole number, as the values are")


def grid_points(space: Mapping[str, Domain]) -> Iterator[Point]:
    """Every combination of the values of all keys; the last key changes fastest.

    Raises `ConfigError` for a key with endlessly many values, and for a grid that is too large.

    >>> [tuple(p.values()) for p in grid_points({"a": Values((1, 2)), "b": Values(("x",))})]
    [(1, 'x'), (2, 'x')]
    """
    finite: dict[str, tuple[Value, ...]] = {}
    for key, domain in space.items():
        values = domain.finite
        if values is None:
            raise ConfigError(
                "a grid of endlessly many values",
                where=key,
                expected="a list, choice(…) or quniform(…) for the grid searcher",
                remedy="--tune.searcher random, or optuna",
            )
        finite[key] = values
    size = math.prod(len(values) for values in finite.values())
    if size > LARGEST_GRID:
        raise ConfigError(
            f"a grid of {size} points",
            where="search space",
            expected=f"at most {LARGEST_GRID}",
            remedy="--tune.searcher random, or optuna",
        )
    return (
        dict(zip(finite, values, strict=True)) for values in itertools.product(*finite.values())
    )


def draw_point(space: Mapping[str, Domain], random: np.random.Generator) -> Point:
    """A point drawn at random, key by key."""
    return {key: domain.draw(random) for key, domain in space.items()}


def point_name(point: Mapping[str, Value]) -> str:
    """A point as people read it: last parts of the keys with their values.

    >>> point_name({"features.doc_stride": 64, "train.learning_rate": 0.00003})
    'doc_stride 64, learning_rate 3e-05'
    """
    return ", ".join(f"{key.rpartition('.')[2]} {show_value(v)}" for key, v in point.items())


def show_value(value: Value) -> str:
    """A value in a table: numbers with four digits at most."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def same_point(one: Mapping[str, Value], other: Mapping[str, Value]) -> bool:
    """Whether two points set the same keys to the same values (True is not 1)."""
    return one.keys() == other.keys() and all(
        one[key] == other[key] and type(one[key]) is type(other[key]) for key in one
    )
