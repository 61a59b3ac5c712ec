"""Spaces: what a key may be set to, and the points that follow."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qa_core.errors import ConfigError
from qa_core.search_space import (
    LARGEST_GRID,
    Range,
    Space,
    Values,
    check_range,
    draw_point,
    grid_points,
    point_name,
    same_point,
)

MIXED: Space = {
    "length": Values((64, 128, 256, None)),
    "stride": Range(8, 64, step=8, is_whole=True),
    "rate": Range(1e-5, 1e-3, is_log=True),
    "epochs": Range(1, 4, is_whole=True),
    "batch": Range(4, 64, is_log=True, is_whole=True),
    "warmup": Range(0.0, 0.2, step=0.05),
    "decay": Range(0.7, 1.0),
}


@settings(deadline=None)
@given(seed=st.integers(0, 10**6))
def test_drawn_values_lie_in_their_domains(seed: int) -> None:
    """Within the bounds, on the steps, and whole where they should be."""
    point = draw_point(MIXED, np.random.default_rng(seed))
    assert point["length"] in (64, 128, 256, None)
    assert point["stride"] in range(8, 65, 8)
    assert 1e-5 <= point["rate"] <= 1e-3
    assert point["epochs"] in (1, 2, 3, 4)
    assert isinstance(point["batch"], int)
    assert 4 <= point["batch"] <= 64
    assert round(point["warmup"] / 0.05, 6) in (0, 1, 2, 3, 4)
    assert 0.7 <= point["decay"] <= 1.0


def test_a_grid_has_every_combination_once() -> None:
    """Steps included: the last value is the upper bound where a step ends there."""
    space: Space = {"a": Values((1, 2)), "b": Range(0.0, 0.3, step=0.1)}
    points = list(grid_points(space))
    assert len(points) == 8
    assert [round(point["b"], 6) for point in points[:4]] == [0.0, 0.1, 0.2, 0.3]
    assert len({str(point) for point in points}) == 8


def test_a_grid_without_end_or_too_large_is_refused() -> None:
    """With the key, or the size."""
    with pytest.raises(ConfigError, match="rate: a grid of endlessly many"):
        grid_points({"rate": Range(0.0, 1.0)})
    with pytest.raises(ConfigError, match="a grid of 1000000 points"):
        grid_points({name: Values(tuple(range(100))) for name in "abc"})


@pytest.mark.parametrize(
    ("domain", "message"),
    [
        (Range(2.0, 1.0), "from 2 to 1 is upside down"),
        (Range(0.0, 1.0, is_log=True), "loguniform from 0"),
        (Range(0.0, 1.0, step=0.0), "a step of 0"),
        (Range(0.0, 1.0, step=2.0), "a step of 2"),
    ],
)
def test_a_range_that_holds_nothing_is_refused(domain: Range, message: str) -> None:
    """With its bounds."""
    with pytest.raises(ConfigError, match=message):
        check_range("key", domain)
    check_range("key", Range(1.0, 1.0))


def test_points_are_compared_with_their_types() -> None:
    """True is not 1; names of points are short."""
    assert same_point({"a": 1}, {"a": 1})
    assert not same_point({"a": 1}, {"a": True})
    assert not same_point({"a": 1}, {"b": 1})
    assert point_name({"x.y": 0.00003, "z": None}) == "y 3e-05, z None"


@settings(deadline=None)
@given(
    low=st.floats(-1e3, 1e3),
    width=st.floats(1e-3, 1e3),
    parts=st.integers(1, 40),
    is_whole=st.booleans(),
)
def test_steps_lie_within_the_bounds(low: float, width: float, parts: int, is_whole: bool) -> None:
    """Rising from the lower bound, a step apart, none beyond the upper bound, whole where whole.

    Three steps of 0.1 used to lie above a bound of 0.3.
    """
    if is_whole:
        low, width = math.floor(low), math.ceil(width)
    step = max(1, width // parts) if is_whole else width / parts
    domain = Range(low, low + width, step=step, is_whole=is_whole)
    check_range("key", domain)
    found = domain.finite
    assert found is not None
    assert found[0] == pytest.approx(low, rel=1e-12)
    assert all(domain.low <= value <= domain.high for value in found)
    assert np.diff(found) == pytest.approx(step, rel=1e-6)
    assert domain.high - found[-1] < step * (1 + 1e-6)
    assert all(isinstance(value, int) == is_whole for value in found)
    assert domain.draw(np.random.default_rng(0)) in found


def test_steps_are_the_numbers_people_write() -> None:
    """What is shown, kept and compared is 0.3, not 0.30000000000000004."""
    assert Range(0.0, 0.3, step=0.1).finite == (0.0, 0.1, 0.2, 0.3)
    assert Range(0.0, 0.2, step=0.05).finite == (0.0, 0.05, 0.1, 0.15, 0.2)
    assert Range(1, 10, step=4, is_whole=True).finite == (1, 5, 9)
    two = Range(0.2, 0.3, step=0.1)  # whose difference is 0.09999999999999998
    check_range("key", two)
    assert two.finite == (0.2, 0.3)


def test_a_logarithmic_range_is_drawn_evenly_over_the_logarithm() -> None:
    """A third of the numbers in each of three decades; half of a plain range below its middle."""
    random = np.random.default_rng(0)
    drawn = np.array([Range(1e-5, 1e-2, is_log=True).draw(random) for _ in range(3000)])
    decades = np.histogram(np.log10(drawn), bins=[-5, -4, -3, -2])[0]
    assert decades.sum() == 3000
    assert np.all(np.abs(decades - 1000) < 120)
    plain = np.array([Range(2.0, 4.0).draw(random) for _ in range(3000)])
    assert abs(np.mean(plain < 3) - 0.5) < 0.05


def test_both_bounds_of_whole_numbers_are_drawn() -> None:
    """Each of them as often as a number between them."""
    random = np.random.default_rng(0)
    counts = np.bincount([Range(1, 4, is_whole=True).draw(random) for _ in range(2000)])
    assert counts[0] == 0
    assert np.all(np.abs(counts[1:] - 500) < 100)
    only = {Range(3, 3, is_whole=True, is_log=True).draw(random) for _ in range(10)}
    assert only == {3}


def test_the_last_key_of_a_grid_changes_fastest() -> None:
    """And values keep the order they were given in."""
    space: Space = {"a": Values((3, 1)), "b": Values(("y", "x"))}
    found = [tuple(point.values()) for point in grid_points(space)]
    assert found == [(3, "y"), (3, "x"), (1, "y"), (1, "x")]
    assert list(grid_points({})) == [{}]


def test_the_largest_grid_is_not_too_large() -> None:
    """One more is."""
    points = grid_points({"a": Values(tuple(range(LARGEST_GRID)))})
    assert sum(1 for _ in points) == LARGEST_GRID
    with pytest.raises(ConfigError, match=f"a grid of {LARGEST_GRID + 1} points"):
        grid_points({"a": Values(tuple(range(LARGEST_GRID + 1)))})


@pytest.mark.parametrize("step", [0.5, 1.5])
def test_whole_numbers_have_whole_steps(step: float) -> None:
    """Rounded steps gave 1, 2, 2, 2, 3 as five values, and Optuna a step of 0."""
    with pytest.raises(ConfigError, match=f"epochs: a step of {step}.*a whole number"):
        check_range("epochs", Range(1, 4, step=step, is_whole=True))
    check_range("epochs", Range(1, 4, step=1.0, is_whole=True))
