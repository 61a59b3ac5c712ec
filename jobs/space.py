"""The search space as it is written: any key of the configuration takes a list or a range.

    features.doc_stride: [32, 64, 128]              a grid
    train.learning_rate: loguniform(1e-5, 1e-3)
    train.warmup_ratio: quniform(0, 0.2, 0.05)      0, 0.05, 0.1, 0.15, 0.2
    train.schedule: choice(linear, cosine)

The same in a file and on the command line. A list that is a value of its key by itself (several
sources of data.train) is that value; `choice([a.json, b.json], [c.json])` tries two of them.
"""

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from jobs.configuration import (
    SweepConfig,
    config_keys,
    get_value,
    parse_config,
    read_value,
    with_value,
)
from qa_core.errors import ConfigError
from qa_core.search_space import Domain, Point, Range, Space, Values, check_range

SEARCHED = ("data.train", "model.", "features.", "train.", "decoding.")
# Of these, what does not apply to trials, which are scored at rungs and at their end.
NOT_SEARCHED = (
    "train.checkpoint_every_steps",
    "train.score_every_steps",
    "train.score_untrained",
    "train.early_stopping_patience",
)
RANGES = {"uniform": 2, "loguniform": 2, "quniform": 3}  # their number of arguments
CALL = re.compile(r"\s*(\w+)\((.*)\)\s*", re.DOTALL)


def parse_sweep(arguments: Sequence[str] | None = None) -> tuple[SweepConfig, Space]:
    """The configuration with the default of every searched key, and the space.

    Raises `ConfigError` for unknown keys, for values that their keys do not take, and where there
    is nothing to search.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if any(argument in ("-h", "--help", "--print_config") for argument in given):
        parse_config(SweepConfig, given)
    plain, space = [], {}
    for key, text in expand_arguments(given):
        domain = find_domain(key, text)
        if domain is not None:
            space[key] = domain
        else:
            plain.append(f"--{key}={text}")
            space.pop(key, None)  # what comes later wins
    config = parse_config(SweepConfig, plain)
    if not space:
        raise ConfigError(
            "nothing to search",
            where="search space",
            expected="a list or a range for one key at least, "
            "such as --features.doc_stride '[32, 64, 128]'",
            remedy="see jobs/configs for examples, or jobs.train to train one setting",
        )
    return config, space


def expand_arguments(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Keys and texts of a command line, files of settings in the place of their --config."""
    rest = list(arguments)
    while rest:
        key, has_value, text = rest.pop(0).partition("=")
        if not key.startswith("--"):
            raise ConfigError(f"{key!r}", "command line", "--KEY VALUE or --KEY=VALUE")
        if not has_value:
            is_switch = not rest or rest[0].startswith("--")
            text = "true" if is_switch else rest.pop(0)
        if key == "--config":
            yield from read_settings(text)
        else:
            yield key.removeprefix("--"), text


def read_settings(file: str) -> Iterator[tuple[str, str]]:
    """Keys and texts of a file of settings."""
    try:
        values = yaml.safe_load(Path(file).expanduser().read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(
            f"cannot be read ({' '.join(str(error).split())})", file, "a YAML file of settings"
        ) from error
    if not isinstance(values, dict):
        raise ConfigError(f"{type(values).__name__}", file, "keys with their values")
    for key, value in config_keys(values):
        yield key, value if isinstance(value, str) else json.dumps(value)


def find_domain(key: str, text: str) -> Domain | None:
    """What `text` lets `key` be searched over; None where it is a value of the key."""
    call = CALL.fullmatch(text)
    if call and (call[1] in RANGES or call[1] == "choice"):
        items = as_items(key, call[2])
        check_searched(key)
        return find_values(key, items) if call[1] == "choice" else find_range(key, call[1], items)
    listed = as_list(text)
    if listed is None:
        return None
    try:
        is_value = not isinstance(read_value(SweepConfig, key, text), str)
    except ConfigError:
        is_value = False
    if is_value:
        return None
    if listed:  # an error of the first item, an unknown key perhaps, tells more
        read_value(SweepConfig, key, as_text(listed[0]))
    check_searched(key)
    return find_values(key, listed)


def find_values(key: str, items: Sequence[Any]) -> Values:
    """Each of the values as the key takes it."""
    if not items:
        raise ConfigError("an empty list", key, "one value at least")
    values = tuple(read_value(SweepConfig, key, as_text(item)) for item in items)
    texts = [json.dumps(value) for value in values]
    repeated = sorted({text for text in texts if texts.count(text) > 1})
    if repeated:
        raise ConfigError(f"{', '.join(repeated)} more than once", key, "each value once")
    return Values(values)


def find_range(key: str, kind: str, items: Sequence[Any]) -> Range:
    """A range of numbers that the key takes; whole ones where it takes no others."""
    if len(items) != RANGES[kind]:
        wanted = "low, high, step" if kind == "quniform" else "low, high"
        raise ConfigError(f"{kind} with {len(items)} numbers", key, f"{kind}({wanted})")
    bounds = [read_value(SweepConfig, key, as_text(item)) for item in items[:2]]
    for bound in bounds:
        if isinstance(bound, bool) or not isinstance(bound, int | float):
            raise ConfigError(f"{bound!r}", key, "numbers as bounds", "a list, or choice(…)")
    low, high = bounds
    domain = Range(
        low,
        high,
        is_log=kind == "loguniform",
        step=as_number(key, items[2]) if kind == "quniform" else None,
        is_whole=takes_whole_numbers_alone(key, bounds[0]),
    )
    check_range(key, domain)
    return domain


def check_searched(key: str) -> None:
    """Raise `ConfigError` for a key that no trial may have its own value of."""
    if key.startswith(SEARCHED) and key not in NOT_SEARCHED:
        return
    raise ConfigError(
        "cannot be searched",
        where=key,
        expected="a key of data.train, model, features, train or decoding; not how or on what "
        "trials are scored",
        remedy="give one value",
    )


def with_point(config: SweepConfig, point: Mapping[str, Any]) -> SweepConfig:
    """The configuration with the values of a point."""
    for key, value in point.items():
        config = with_value(config, key, value)
    return config


def default_point(config: SweepConfig, space: Space) -> Point:
    """The point of the configuration itself."""
    return {key: get_value(config, key) for key in space}


def describe_space(space: Space) -> dict[str, str]:
    """The space as it is written, by key."""
    return {key: describe_domain(domain) for key, domain in space.items()}


def describe_domain(domain: Domain) -> str:
    """A domain as it is written."""
    if isinstance(domain, Values):
        return json.dumps(list(domain.values))
    bounds = f"{domain.low:g}, {domain.high:g}"
    if domain.step is not None:
        return f"quniform({bounds}, {domain.step:g})"
    return f"{'loguniform' if domain.is_log else 'uniform'}({bounds})"


def takes_whole_numbers_alone(key: str, bound: float) -> bool:
    """Whether a key whose value may be `bound` takes no number beside the whole ones."""
    if not isinstance(bound, int):
        return False
    try:
        between = read_value(SweepConfig, key, str(bound + 0.5))
    except ConfigError:
        return True
    return not isinstance(between, float)


def as_list(text: str) -> list[Any] | None:
    """The list that a text is; None of any other."""
    if not text.lstrip().startswith("["):
        return None
    try:
        items = yaml.safe_load(text)
    except yaml.YAMLError:
        return None
    return items if isinstance(items, list) else None


def as_items(key: str, text: str) -> list[Any]:
    """What is between the parentheses of a range."""
    items = as_list(f"[{text}]")
    if items is None:
        raise ConfigError(f"({text})", key, "values with commas between them")
    return items


def as_text(item: Any) -> str:
    """An item of a list as it would be given alone."""
    return item if isinstance(item, str) else json.dumps(item)


def as_number(key: str, item: Any) -> float:
    """A number; PyYAML reads 1e-3 as text."""
    try:
        return float(item)
    except (TypeError, ValueError):
        raise ConfigError(f"a step of {item!r}", key, "a number") from None
