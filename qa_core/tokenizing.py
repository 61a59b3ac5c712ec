"""tokenize: texts → token ids and character offsets, each distinct text once, nothing cut off."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from tokenizers import Tokenizer

from qa_core.errors import ModelError, first_line

TEXTS_PER_CALL = 256  # bounds the tokenizers library's own objects that live at a time


@dataclass(frozen=True)
class Tokens:
    """Tokens of several texts, one text after another.

    Token i of text t is at `splits[t] + i`; its characters are `starts[...]` to `ends[...]`,
    half-open.
    """

    ids: NDArray[np.int32]  # (tokens,)
    starts: NDArray[np.int32]  # (tokens,)
    ends: NDArray[np.int32]  # (tokens,)
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
    def num_special_tokens(self) -> int:
        """Special tokens in every window."""
        return len(self.before) + len(self.between) + len(self.after)


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


def backend_of(tokenizer: Any) -> Tokenizer:
    """A copy of the tokenizers-library object inside, without its truncation and padding."""
    check_fast(tokenizer)
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_truncation()
    backend.no_padding()
    return backend


def tokenizer_digest(tokenizer: Any) -> str:
    """Hexadecimal digest of everything that decides which tokens a text gets."""
    state = f"{tokenizer.padding_side}\n{backend_of(tokenizer).to_str()}"
    return hashlib.sha256(state.encode()).hexdigest()


def encode_distinct(
    backend: Tokenizer, column: pa.ChunkedArray
) -> tuple[Tokens, NDArray[np.int64]]:
    """Tokens of the distinct texts of `column` and, for each row, the number of its text.

    Distinct texts are in order of first appearance; each is encoded once.
    """
    encoded = column.combine_chunks().dictionary_encode()
    texts = encoded.dictionary.to_pylist()
    return encode_texts(backend, texts), encoded.indices.to_numpy().astype(np.int64)


def encode_texts(backend: Tokenizer, texts: Sequence[str]) -> Tokens:
    """Tokens of `texts`, in their order, without special tokens."""
    parts: list[tuple[NDArray[np.int32], NDArray[np.int32]]] = []
    for first in range(0, len(texts), TEXTS_PER_CALL):
        batch = list(texts[first : first + TEXTS_PER_CALL])
        encodings = backend.encode_batch(batch, add_special_tokens=False)
        parts.extend((np.array(e.ids, np.int32), _offsets_array(e.offsets)) for e in encodings)
    lengths = [len(ids) for ids, _ in parts]
    ids = np.concatenate([np.zeros(0, np.int32), *(ids for ids, _ in parts)])
    offsets = np.concatenate([np.zeros((0, 2), np.int32), *(o for _, o in parts)])  # (tokens, 2)
    splits = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)
    return Tokens(ids, offsets[:, 0].copy(), offsets[:, 1].copy(), splits)


def _offsets_array(offsets: Sequence[tuple[int, int]]) -> NDArray[np.int32]:
    return np.array(offsets, np.int32).reshape(-1, 2)  # (tokens, 2)


def probe_template(tokenizer: Any) -> PairTemplate:
    """The layout of a pair, read off what the tokenizer itself makes of a short one.

    Raises `ModelError` when it lays a pair out in a way that is not two runs of text.
    """
    backend = backend_of(tokenizer)
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
