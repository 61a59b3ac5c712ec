"""Lines of a file that comes in pieces."""

import codecs
from collections.abc import Iterable, Iterator


def split_lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    r"""The lines, without their line feeds and without a byte order mark; holds one at a time.

    >>> list(split_lines([b"a\nb", b"c\n"]))
    [b'a', b'bc']
    """
    lines = _lines(pieces)
    yield next(lines, b"").removeprefix(codecs.BOM_UTF8)
    yield from lines


def _lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    parts: list[bytes] = []  # of a line that goes on
    for piece in pieces:
        first, *others = piece.split(b"\n")
        parts.append(first)
        for line in others:
            yield b"".join(parts)
            parts = [line]
    if last := b"".join(parts):
        yield last
