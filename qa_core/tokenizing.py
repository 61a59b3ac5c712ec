"""tokenize: texts → token ids and character offsets, each distinct text once, nothing cut off."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from tokenizers import Tokenizer

from qa_core.errors import ModelError, first_line

TEXTS_PER_CALL = 1024  # bounds the tokenizers library's own objects that live at a time

OFFSETS_PROBE = "In 1912 the engineers measured 48 old bridges"  # plain words any vocabulary has


@dataclass(frozen=True)
class Tokens:
    """Tokens of several texts, one text after another; token i of text t is at `splits[t] + i`."""

    ids: NDArray[np.int32]  # (tokens,)
    offsets: NDArray[np.int32]  # (tokens, 2) half-open characters of the token's own text
    splits: NDArray[np.int64]  # (texts + 1,)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each text, (texts,)."""
        return np.diff(self.splits)


@dataclass(frozen=True)
class PairTemplate:
    """How a tokenizer lays out a (question, context) pair around its special tokens.

    A window is `before`, the first text, `between`, the second text, `after`. For left-padded
    families the context is the first text.
    """

    before: tuple[int, ...]
    between: tuple[int, ...]
    after: tuple[int, ...]
    before_types: tuple[int, ...]
    between_types: tuple[int, ...]
    after_types: tuple[int, ...]
    first_type: int
    second_type: int
    is_context_first: bool
    null_special: int | None  # which special token stands for "no answer"; None: the first token

    @property
    def special_ids(self) -> tuple[int, ...]:
        """The special tokens of every window, in their order."""
        return (*self.before, *self.between, *self.after)

    @property
    def num_special_tokens(self) -> int:
        """Special tokens in every window."""
        return len(self.special_ids)


@dataclass(frozen=True)
class PairEncoder:
    """What of a tokenizer makes features; costs the parsing of its vocabulary, so make it once."""

    backend: Tokenizer
    template: PairTemplate

    @classmethod
    def of(cls, tokenizer: Any) -> "PairEncoder":
        """From a fast tokenizer of transformers."""
        backend = backend_of(tokenizer)
        return cls(backend, probe_template(tokenizer, backend))


def load_tokenizer(name_or_path: str) -> Any:
    """The fast tokenizer of a model folder or Hub name; `ModelError` where there is none."""
    from transformers import AutoTokenizer  # a second or two to import

    try:
        tokenizer = AutoTokenizer.from_pretrained(name_or_path)
    except Exception as error:  # a damaged file raises errors of many kinds
        raise ModelError(
            f"its tokenizer cannot be loaded ({first_line(error)})",
            where=name_or_path,
            expected="a folder or name that AutoTokenizer loads",
            remedy="check the path, or the network for a Hub name",
        ) from error
    check_fast(tokenizer)
    _check_filled(tokenizer, name_or_path)
    return tokenizer


def check_fast(tokenizer: Any) -> None:
    """Raise `ModelError` unless `tokenizer` is a fast one (it alone gives character offsets)."""
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(
            "has no fast tokenizer, so no character offsets",
            where=str(getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__),
            expected="a tokenizer backed by the tokenizers library (tokenizer.json)",
            remedy="choose a model with a tokenizer.json",
        )


def _check_filled(tokenizer: Any, where: str) -> None:
    """Raise `ModelError` for the empty tokenizer that transformers makes up where there is none."""
    if not set(tokenizer.get_vocab()) - {*tokenizer.all_special_tokens, "▁"}:
        raise ModelError(
            "has no tokenizer (transformers made up one without words)",
            where=where,
            expected="the files of the model's tokenizer beside its weights (tokenizer.json)",
            remedy="save the tokenizer into the folder: tokenizer.save_pretrained(folder)",
        )


def backend_of(tokenizer: Any) -> Tokenizer:
    """A copy of the tokenizers-library object inside, without its truncation and padding."""
    check_fast(tokenizer)
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_truncation()
    backend.no_padding()
    # Not part of what to_str writes: whether "[SEP]" in a text is that token or five characters.
    backend.encode_special_tokens = bool(getattr(tokenizer, "split_special_tokens", False))
    return backend


def check_offsets(tokenizer: Any) -> None:
    """Raise `ModelError` where the tokenizer's offsets do not lead back to the text.

    On a plain text, tokens must begin one after another, each have the characters that it stands
    for (a mark of a word's beginning stands for none), and together leave nothing out but white
    space.
    """
    encoding = backend_of(tokenizer).encode(OFFSETS_PROBE, add_special_tokens=False)
    covered = [False] * len(OFFSETS_PROBE)
    start_before = 0
    for token, token_id, (start, end) in zip(
        encoding.tokens, encoding.ids, encoding.offsets, strict=True
    ):
        found = OFFSETS_PROBE[start:end]
        if _letters(token) and token_id != tokenizer.unk_token_id:
            if start < start_before or _letters(token) != _letters(found):
                _raise_for_offsets(tokenizer, f"says that its token {token!r} is {found!r}")
            start_before = start
        covered[start:end] = [True] * (end - start)
    missed = "".join(c for c, is_in in zip(OFFSETS_PROBE, covered, strict=True) if not is_in)
    if missed.strip():
        _raise_for_offsets(tokenizer, f"has no token at {missed.strip()!r}")


def _raise_for_offsets(tokenizer: Any, found: str) -> None:
    raise ModelError(
        f"{found} in {OFFSETS_PROBE!r}",
        where=f"tokenizer {tokenizer.name_or_path or type(tokenizer).__name__}",
        expected="character offsets that lead back to the text",
        remedy="choose a model whose fast tokenizer keeps offsets",
    )


def _letters(text: str) -> str:
    """The ASCII letters and digits of a token or a text, in lower case: without any markers."""
    return "".join(c for c in text.lower() if c.isascii() and c.isalnum())


def check_vocabulary(tokenizer: Any, model_config: Any) -> None:
    """Raise `ModelError` where the tokenizer has ids that the model has no embedding for."""
    size = getattr(model_config, "vocab_size", None)
    largest = max(tokenizer.get_vocab().values(), default=-1)
    if isinstance(size, int) and largest >= size:
        raise ModelError(
            f"the tokenizer has ids up to {largest}, and the model has {size} embeddings",
            where=str(tokenizer.name_or_path or type(tokenizer).__name__),
            expected="the tokenizer that the model was trained with",
            remedy="put the model's own tokenizer beside it, or name another model",
        )


def tokenizer_digest(tokenizer: Any) -> str:
    """Hexadecimal digest of everything that decides which tokens a text gets."""
    backend = backend_of(tokenizer)
    state = f"{tokenizer.padding_side} {backend.encode_special_tokens}\n{backend.to_str()}"
    return hashlib.sha256(state.encode()).hexdigest()


def distinct_texts(column: pa.ChunkedArray) -> tuple[list[str], NDArray[np.int64]]:
    """The distinct texts of `column` in order of first appearance, and each row's number there."""
    encoded = column.combine_chunks().dictionary_encode()
    return encoded.dictionary.to_pylist(), encoded.indices.to_numpy().astype(np.int64)


def encode_texts(backend: Tokenizer, texts: Sequence[str], *, has_offsets: bool = True) -> Tokens:
    """Tokens of `texts`, in their order, without special tokens.

    Without offsets, which are then (-1, -1), the library does a third less. It encodes the next
    texts while those before become arrays.
    """
    parts = [
        texts[first : first + TEXTS_PER_CALL] for first in range(0, len(texts), TEXTS_PER_CALL)
    ]
    encode = partial(
        backend.encode_batch if has_offsets else backend.encode_batch_fast,
        add_special_tokens=False,
    )
    arrays = [_NO_TOKENS]
    with ThreadPoolExecutor(max_workers=1) as thread:
        coming = [thread.submit(encode, list(part)) for part in parts[:1]]
        for following in (*parts[1:], None):
            encodings = [encoding for done in coming for encoding in done.result()]
            coming = [thread.submit(encode, list(following))] if following is not None else []
            arrays.append(_token_arrays(encodings, has_offsets=has_offsets))
    return join_tokens(arrays)


def join_tokens(parts: Sequence[Tokens]) -> Tokens:
    """The texts of `parts`, one after another."""
    lengths = np.concatenate([part.lengths for part in parts])
    return Tokens(
        np.concatenate([part.ids for part in parts]),
        np.concatenate([part.offsets for part in parts]),
        splits_of(lengths),
    )


def cut_texts(tokens: Tokens, lengths: NDArray[np.int64]) -> Tokens:
    """The first `lengths` tokens of each text, (texts,), no more than it has."""
    kept = concatenated_ranges(tokens.splits[:-1], lengths)
    return Tokens(tokens.ids[kept], tokens.offsets[kept], splits_of(lengths))


def splits_of(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where runs of such lengths begin, and the end of the last, (runs + 1,)."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def concatenated_ranges(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """The numbers starts[i] to starts[i] + lengths[i] - 1, one range after another.

    >>> concatenated_ranges(np.array([5, 0]), np.array([2, 3])).tolist()
    [5, 6, 0, 1, 2]
    """
    before = np.cumsum(lengths) - lengths  # (ranges,)
    numbers = np.repeat(starts - before, lengths)
    numbers += np.arange(len(numbers))
    return numbers


def _token_arrays(encodings: Sequence[Any], *, has_offsets: bool) -> Tokens:
    parts = [encoding.ids for encoding in encodings]
    splits = splits_of(np.array([len(part) for part in parts], np.int64))
    num_tokens = int(splits[-1])
    ids = np.fromiter(chain.from_iterable(parts), np.int32, count=num_tokens)
    if not has_offsets:
        return tokens_without_offsets(ids, splits)
    pairs = chain.from_iterable(encoding.offsets for encoding in encodings)
    flat = np.fromiter(chain.from_iterable(pairs), np.int32, count=2 * num_tokens)
    return Tokens(ids, flat.reshape(-1, 2), splits)


def tokens_without_offsets(ids: NDArray[np.int32], splits: NDArray[np.int64]) -> Tokens:
    """Tokens that are no part of a context: their offsets are (-1, -1)."""
    return Tokens(ids, np.full((len(ids), 2), -1, np.int32), splits)


_NO_TOKENS = Tokens(np.zeros(0, np.int32), np.zeros((0, 2), np.int32), np.zeros(1, np.int64))


def probe_template(tokenizer: Any, backend: Tokenizer | None = None) -> PairTemplate:
    """The layout of a pair, read off what the tokenizer itself makes of a short one.

    `backend` is its `backend_of` where that is at hand. Raises `ModelError` when it lays a pair
    out in a way that is not two runs of text.
    """
    backend = backend or backend_of(tokenizer)
    encoding = backend.encode("a", "b")
    sequences = encoding.sequence_ids
    first = [i for i, s in enumerate(sequences) if s == 0]
    second = [i for i, s in enumerate(sequences) if s == 1]
    if not first or not second or first[-1] > second[0]:
        raise ModelError(
            f"lays out the pair ('a', 'b') as {encoding.tokens}",
            where=str(tokenizer.name_or_path),
            expected="the first text, then the second, around special tokens",
        )
    ids, types = encoding.ids, encoding.type_ids
    spans = (slice(0, first[0]), slice(first[-1] + 1, second[0]), slice(second[-1] + 1, None))
    before, between, after = spans
    special = [*ids[before], *ids[between], *ids[after]]
    return PairTemplate(
        before=tuple(ids[before]),
        between=tuple(ids[between]),
        after=tuple(ids[after]),
        before_types=tuple(types[before]),
        between_types=tuple(types[between]),
        after_types=tuple(types[after]),
        first_type=types[first[0]],
        second_type=types[second[0]],
        is_context_first=tokenizer.padding_side == "left",
        null_special=_null_special(tokenizer, special),
    )


def _null_special(tokenizer: Any, special: Sequence[int]) -> int | None:
    """Index in `special` of the CLS token, else of the beginning-of-text token."""
    for token_id in (tokenizer.cls_token_id, tokenizer.bos_token_id):
        if token_id is not None and token_id in special:
            return list(special).index(token_id)
    return None
