"""What a record is before it is checked, and what a source calls our columns."""

import difflib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from qa_core.errors import ConfigError, DataError

COLUMNS = ("id", "title", "context", "question", "answers")
OPTIONAL = "title"  # the only column no stage needs


@dataclass(frozen=True)
class ReadingRules:
    """What a source calls its columns, and what of it may be mended.

    `columns` maps our names (`COLUMNS`) to the source's; a name left out is its own. In nested
    JSON they are the keys of the article (title), the paragraph (context) and the question.
    Without `has_answers` every question has none: answers are not needed, and not looked at.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    repair_offsets: bool = False
    has_answers: bool = True

    def __post_init__(self) -> None:
        for name in self.columns:
            if name not in COLUMNS:
                near = nearest_name(name, COLUMNS)
                expected = f"one of {', '.join(COLUMNS)}" + (f"; nearest: {near}" if near else "")
                raise ConfigError(f"no such column: {name!r}", "data.columns", expected)

    def column(self, name: str) -> str:
        """The source's name of our column `name`."""
        return self.columns.get(name, name)

    def is_mapped(self, name: str) -> bool:
        """Whether the source's name is another than ours."""
        return self.column(name) != name

    @cached_property
    def read_columns(self) -> tuple[str, ...]:
        """Our names of the columns that are looked at."""
        return tuple(name for name in COLUMNS if self.has_answers or name != "answers")

    @cached_property
    def has_mapping(self) -> bool:
        """Whether any column has another name than ours."""
        return any(map(self.is_mapped, COLUMNS))


DEFAULT_RULES = ReadingRules()


class Record(NamedTuple):
    """One question as its source gives it, unchecked, by our names of columns.

    `problem` is set where it has no shape; `hints` says for a column more than that it is missing.
    """

    place: str
    fields: Mapping[str, Any]
    problem: str = ""
    hints: Mapping[str, str] = {}


def rename_fields(fields: Mapping[str, Any], rules: ReadingRules) -> Mapping[str, Any]:
    """The fields by our names; a column of our name is not taken where another is mapped."""
    if not rules.has_mapping:
        return fields
    pairs = [(name, rules.column(name)) for name in (*COLUMNS, "is_impossible")]
    return {name: fields[theirs] for name, theirs in pairs if theirs in fields}


def flat_record(
    item: Any, place: str, rules: ReadingRules, hints: Mapping[str, str] | None = None
) -> Record:
    """The record of an object that holds a question together with its context."""
    if not isinstance(item, dict):
        return Record(place, {}, f"expected an object, found {short_repr(item)}")
    return Record(place, rename_fields(item, rules), "", hints or {})


def first_record_hints(item: Any, rules: ReadingRules) -> dict[str, str]:
    """For each column the first record lacks, what to do: the others most likely lack it too."""
    if not isinstance(item, dict):
        return {}
    needed = [name for name in rules.read_columns if name != OPTIONAL]
    lacking = [name for name in needed if rules.column(name) not in item]
    found = sorted(item)[:12]
    return {
        name: f"; the first record has no {rules.column(name)!r} either (it has {found}): "
        + column_advice(name, item, rules)
        for name in lacking
    }


def check_columns(found: Collection[str], source: str, rules: ReadingRules) -> None:
    """Raise `DataError` unless a columnar source has every column needed, or mapped, once."""
    needed = [name for name in rules.read_columns if name != OPTIONAL or rules.is_mapped(name)]
    missing = [name for name in needed if rules.column(name) not in found]
    twice = [name for name in needed if list(found).count(rules.column(name)) > 1]
    if not missing and not twice:
        return
    named = sorted(rules.column(name) for name in missing or twice)
    problem = "are missing" if missing else "stand there twice"
    names = ", ".join(rules.column(name) for name in rules.read_columns if name != OPTIONAL)
    raise DataError(
        f"columns {named} {problem} (it has {list(found)})",
        where=source,
        expected=names + (" (text, answer_start)" if rules.has_answers else ""),
        remedy="; ".join(column_advice(name, found, rules) for name in missing or twice),
    )


def column_advice(name: str, found: Iterable[str], rules: ReadingRules) -> str:
    """Which setting names the column, and the name there is most like it."""
    near = nearest_name(rules.column(name), found)
    return f"set data.columns.{name}" + (f" (nearest name here: {near!r})" if near else "")


def nearest_name(name: str, names: Iterable[str]) -> str:
    """The name most like `name`; "" where none is much like it."""
    close = difflib.get_close_matches(name, [str(each) for each in names], n=1, cutoff=0.4)
    return close[0] if close else ""


def short_repr(value: Any, limit: int = 60) -> str:
    """What was found, for an error's text, cut to `limit` characters."""
    text = repr(value[: 2 * limit]) if isinstance(value, str) else repr(value)
    return text if len(text) <= limit else text[:limit] + "…"
