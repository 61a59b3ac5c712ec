"""A JSON stream gives what the json module gives, however its bytes come, and the same errors."""

import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qa_core import json_stream
from qa_core.errors import DataError
from qa_core.json_stream import TOO_LONG, JsonStream, decode_pieces

PIECE_SIZES = (1, 2, 3, 7, 1000)

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
values = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20
)


@pytest.fixture(autouse=True)
def _small_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that values are cut at every place, as in a large file."""
    monkeypatch.setattr(json_stream, "READ_CHARACTERS", 1)


def cut(content: bytes, size: int) -> Iterator[bytes]:
    """The content in pieces of `size` bytes."""
    return (content[at : at + size] for at in range(0, len(content), size))


def read_whole(content: bytes, size: int) -> Any:
    """A document read by entering its lists and objects, two levels deep."""
    stream = JsonStream(cut(content, size), "a.json")
    opening = stream.peek()
    if opening == "[":
        result: Any = [stream.value() for _ in stream.elements()]
    elif opening == "{":
        result = {}
        for key in stream.keys():  # noqa: SIM118 - no dict
            inside = stream.peek() == "["
            result[key] = [stream.value() for _ in stream.elements()] if inside else stream.value()
    else:
        result = stream.value()
    stream.finish()
    return result


@settings(max_examples=50, deadline=None, derandomize=True)
@given(value=values, size=st.sampled_from(PIECE_SIZES), indent=st.sampled_from([None, 1]))
def test_a_stream_gives_the_values_of_the_json_module(value: Any, size: int, indent: Any) -> None:
    """Numbers, escapes and characters of several bytes are not spoilt where a piece ends."""
    for is_ascii in (True, False):
        text = json.dumps(value, indent=indent, ensure_ascii=is_ascii)
        assert read_whole(text.encode("utf-8", "surrogatepass"), size) == json.loads(text)


def test_half_of_a_surrogate_pair_is_kept() -> None:
    """The check of texts then finds it; yajl would have made it a question mark."""
    for size in PIECE_SIZES:
        assert read_whole(rb'["a\ud800b", "\ud83d\ude00"]', size) == ["a\ud800b", "😀"]


DOCUMENT = '{"version": "v2.0",\n "data": [{"title": "Zoë", "n": [1, 2.5e3, -7]},\n true]}\n'


@pytest.mark.parametrize("size", PIECE_SIZES)
def test_a_cut_document_is_refused_wherever_it_ends(size: int) -> None:
    """With the line and column at which the json module stops."""
    whole = DOCUMENT.encode()
    num_cuts = 0
    for end in range(1, len(whole) - 2):
        try:
            text = whole[:end].decode()
        except UnicodeDecodeError:
            continue
        with pytest.raises(json.JSONDecodeError) as expected:
            json.loads(text)
        error = expected.value
        place = rf"^a\.json: not JSON at line {error.lineno}, column {error.colno} \("
        with pytest.raises(DataError, match=place):
            read_whole(whole[:end], size)
        num_cuts += 1
    assert num_cuts > 60


@pytest.mark.parametrize("at", range(0, len(DOCUMENT), 3))
def test_a_wrong_character_is_found_where_the_json_module_finds_it(at: int) -> None:
    """Also far from the end of what has been read."""
    text = DOCUMENT[:at] + "\x00" + DOCUMENT[at + 1 :]
    with pytest.raises(json.JSONDecodeError) as expected:
        json.loads(text)
    error = expected.value
    place = rf"not JSON at line {error.lineno}, column {error.colno} \("
    for size in PIECE_SIZES:
        with pytest.raises(DataError, match=place):
            read_whole(text.encode(), size)


@pytest.mark.parametrize("size", PIECE_SIZES)
def test_the_first_byte_that_is_not_utf8_is_named(size: int) -> None:
    """Counted in the file, not in the piece; a character cut by the end is one, too."""
    for content, byte in ((b'{"a": "\xc3\xab caf\xe9"}', 13), (b"ok \xf0\x9f\x98", 3)):
        with pytest.raises(DataError, match=rf"not UTF-8 at byte {byte}\. .*convert the file"):
            list(decode_pieces(cut(content, size), "a.json"))


def test_a_value_beyond_the_limit_is_left_unread() -> None:
    """The caller then enters it."""
    stream = JsonStream(cut(b"[1, " + b"2, " * 500 + b'3] "after"', 10), "a.json")
    assert stream.value(limit=100) is TOO_LONG
    assert sum(stream.value() for _ in stream.elements()) == 1004
    assert stream.value(limit=100) == "after"


def test_memory_follows_the_value_not_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten thousand records pass through a buffer of a few."""
    monkeypatch.setattr(json_stream, "READ_CHARACTERS", 100)
    pieces = (b'{"question": "When?"},\n' for _ in range(10_000))
    stream = JsonStream(itertools.chain([b"["], pieces, [b"null]"]), "a.json")
    assert stream.peek() == "["
    longest = num_values = 0
    for _ in stream.elements():
        stream.value()
        num_values += 1
        longest = max(longest, len(stream._text))
    assert num_values == 10_001
    assert longest < 500


def test_values_beyond_all_bounds_are_errors_of_ours() -> None:
    """Nesting that would exhaust the stack, a number of a million digits."""
    for content in (b"[" * 200_000, b"9" * 100_000):
        stream = JsonStream([content], "a.json")
        with pytest.raises(DataError, match=r"^a\.json: JSON beyond all bounds \("):
            stream.value()


def test_a_skipped_list_is_read_but_not_kept() -> None:
    """What follows it is next."""
    stream = JsonStream([b'[1, [2], {"a": 3}] {"b": 4} 5'], "a.json")
    stream.skip()
    stream.skip()
    assert stream.value() == 5
