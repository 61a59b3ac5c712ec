"""JSON read from a stream: one value at a time, so that a file of any size needs little memory.

The values are the json module's, with its errors and their lines and columns. (The yajl parser
behind ijson writes "?" for half of a surrogate pair, so that a spoilt text would pass.)
"""

import codecs
import json
from collections.abc import Iterable, Iterator
from typing import Any, Final

from qa_core.errors import DataError

JSON_SHAPES = (
    '{"data": [{"title", "paragraphs": [{"context", "qas": [...]}]}]}, '
    "a list of records, or JSON lines"
)
SQUAD_JSON = f"SQuAD JSON: {JSON_SHAPES}"
READ_CHARACTERS = 2**22  # at a time: what the end of it cuts is decoded again
LONGEST_TOKEN = 16  # characters of what the decoder reads at once besides a string: -Infinity, \u…
LONGEST_EXPONENT = 2  # characters of a number that is cut at, say, 1e- and would pass as 1

TOO_LONG: Final = object()  # given in place of a value beyond a limit

_DECODER = json.JSONDecoder()


class JsonStream:
    """A JSON text that comes in pieces; holds one value and a few million characters.

    `elements` and `keys` enter a list or an object: the caller reads each value (`value`, `skip`,
    or entering it) before it asks for the next.
    """

    def __init__(self, pieces: Iterable[bytes], source: str) -> None:
        self._pieces = decode_pieces(pieces, source)
        self._source = source
        self._text = ""  # read and not dropped yet
        self._position = 0  # in _text, of what is next
        self._line, self._column = 1, 1  # of _text's first character in the file
        self._is_whole = False  # nothing follows _text

    def peek(self) -> str:
        """The next character that is no white space; "" at the end."""
        while True:
            while self._position < len(self._text):
                character = self._text[self._position]
                if character not in " \t\n\r":
                    return character
                self._position += 1
            if self._is_whole:
                return ""
            self._read()

    def value(self, *, limit: int | None = None) -> Any:
        """The next value; `TOO_LONG`, and nothing is read, where it has over `limit` characters."""
        self.peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._position)
            except json.JSONDecodeError as error:
                if not self._is_cut(error):
                    raise self._error(error.msg, error.pos) from error
            except (RecursionError, ValueError) as error:
                raise DataError(
                    f"JSON beyond all bounds ({error})", self._source, JSON_SHAPES
                ) from error
            else:
                if limit is not None and end - self._position > limit:
                    return TOO_LONG
                if end + LONGEST_EXPONENT < len(self._text) or self._is_whole:
                    self._position = end
                    return value
            if limit is not None and len(self._text) - self._position > limit:
                return TOO_LONG
            self._read()

    def elements(self) -> Iterator[int]:
        """Enters a list; the number of each element."""
        assert self.peek() == "["
        self._position += 1
        if self.peek() == "]":
            self._position += 1
            return
        number = 0
        while True:
            yield number
            if self._take(",]", "Expecting ',' delimiter") == "]":
                return
            number += 1

    def keys(self) -> Iterator[str]:
        """Enters an object; each key."""
        assert self.peek() == "{"
        self._position += 1
        if self.peek() == "}":
            self._position += 1
            return
        while True:
            if self.peek() != '"':
                raise self._error(
                    "Expecting property name enclosed in double quotes", self._position
                )
            key = str(self.value())
            self._take(":", "Expecting ':' delimiter")
            yield key
            if self._take(",}", "Expecting ',' delimiter") == "}":
                return

    def skip(self) -> None:
        """Reads the next value and forgets it; a list is not held whole."""
        if self.peek() != "[":
            self.value()
            return
        for _ in self.elements():
            self.value()

    def finish(self) -> None:
        """Raise `DataError` where anything follows."""
        if self.peek():
            raise self._error("Extra data", self._position)

    def _take(self, characters: str, expected: str) -> str:
        found = self.peek()
        if not found or found not in characters:
            raise self._error(expected, self._position)
        self._position += 1
        return found

    def _is_cut(self, error: json.JSONDecodeError) -> bool:
        """Whether the error may be only that the rest has not been read yet."""
        near_end = error.pos > len(self._text) - LONGEST_TOKEN
        return not self._is_whole and (near_end or error.msg.startswith("Unterminated string"))

    def _read(self) -> None:
        """Drops what was used and reads as much again as is kept, so that the cost stays linear."""
        kept = self._text[self._position :]
        self._line, self._column = self._line_and_column(self._position)
        parts, size = [kept], 0
        while size < max(len(kept), READ_CHARACTERS):
            piece = next(self._pieces, None)
            if piece is None:
                self._is_whole = True
                break
            parts.append(piece)
            size += len(piece)
        self._text, self._position = "".join(parts), 0

    def _line_and_column(self, position: int) -> tuple[int, int]:
        num_lines = self._text.count("\n", 0, position)
        if not num_lines:
            return self._line, self._column + position
        return self._line + num_lines, position - self._text.rfind("\n", 0, position)

    def _error(self, message: str, position: int) -> DataError:
        line, column = self._line_and_column(position)
        error = DataError(
            f"not JSON at line {line}, column {column} ({message})",
            where=self._source,
            expected=SQUAD_JSON,
            remedy="check that the file is whole",
        )
        error.__cause__ = json.JSONDecodeError(message, "", 0)
        return error


def decode_pieces(pieces: Iterable[bytes], source: str) -> Iterator[str]:
    """The text of UTF-8 pieces, without a byte order mark; `DataError` names the first bad byte."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    num_bytes = 0
    for piece in _with_end(pieces):
        begun = len(decoder.getstate()[0])
        try:
            text = decoder.decode(piece, final=not piece)
        except UnicodeDecodeError as error:
            raise DataError(
                f"not UTF-8 at byte {num_bytes - begun + error.start}",
                where=source,
                expected="UTF-8 text",
                remedy="convert the file to UTF-8",
            ) from error
        yield text.removeprefix("\ufeff") if num_bytes == 0 else text
        num_bytes += len(piece)


def _with_end(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The pieces, then an empty one."""
    yield from (piece for piece in pieces if piece)
    yield b""
