"""reach: which questions have an exact match among the spans of their windows.

The answer is exact, not a bound: a question counts where decoding could give the text, be it
the marked answer, the same words elsewhere, or tokens that hold a bit more or less which scoring
does not mind.
"""

import string
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from qa_core.errors import ConfigError
from qa_core.features import EncodedExamples
from qa_core.labelling import holds_answer, pair_answers
from qa_core.normalizing import normalize_answer
from qa_core.scoring import gold_texts
from qa_core.tokenizing import splits_of
from qa_core.windowing import Windows


def find_held(encoded: EncodedExamples, windows: Windows) -> NDArray[np.bool_]:
    """Whether some window holds some accepted answer whole, (examples,)."""
    window, answer = pair_answers(windows, encoded.spans)
    spans, texts = encoded.spans, encoded.texts
    is_held = holds_answer(windows, window, spans, answer, texts, encoded.context_of)
    return np.isin(np.arange(len(encoded)), windows.example[window[is_held]])


def find_reachable(
    examples: pa.Table, encoded: EncodedExamples, windows: Windows, *, max_answer_length: int
) -> NDArray[np.bool_]:
    """Whether the exact match of each example can be had, (examples,).

    By a span of at most `max_answer_length` context tokens of one window, or by the null answer
    where none is expected: the example has no answer, or all of them normalise to nothing.

    Most have an answer that is just some tokens of a window: that is seen at once. The spans of
    the others' windows are searched, which takes some fifth of a millisecond each.
    """
    if max_answer_length < 1:
        found = f"max_answer_length is {max_answer_length}"
        raise ConfigError(found, "decoding.max_answer_length", "1 or more")
    spans = encoded.spans
    is_plain = _is_plain(examples["answers"], encoded, max_answer_length)  # (answers,)
    window, answer = pair_answers(windows, encoded.spans)
    start, length = windows.start[window], windows.length[window]
    is_inside = (start <= spans.start_token[answer]) & (spans.end_token[answer] < start + length)
    is_reachable = np.asarray(spans.counts == 0, np.bool_)
    is_reachable[windows.example[window[is_inside & is_plain[answer]]]] = True
    rows = np.flatnonzero(~is_reachable)
    reaches = _reaches(windows, rows, max_answer_length)
    is_reachable[rows] = _search_examples(examples.take(rows), encoded.take(rows), reaches)
    return is_reachable


# An ASCII letter or digit that no article has, or a sign beyond ASCII that is no white space:
# what holds one does not normalise to nothing.
_SURELY_TEXT = r"[b-df-gi-mo-su-zB-DF-GI-MO-SU-Z0-9]|[^\x00-\x{85}\pZ]"


def _is_plain(
    answers: pa.ChunkedArray, encoded: EncodedExamples, max_answer_length: int
) -> NDArray[np.bool_]:
    """Whether the tokens of each answer have just its characters and scoring counts it."""
    spans = encoded.spans
    texts = answers.combine_chunks().field("text").flatten()
    is_text = pc.match_substring_regex(texts, _SURELY_TEXT).to_numpy(zero_copy_only=False)
    for answer in np.flatnonzero(~is_text):
        is_text[answer] = bool(normalize_answer(texts[int(answer)].as_py()))
    num_tokens = spans.end_token - spans.start_token + 1
    is_span = (num_tokens > 0) & (num_tokens <= max_answer_length)
    # an answer may begin before the first token of its context, or end after the last
    is_span &= (spans.start_token >= 0) & (spans.end_token < encoded.context_lengths[spans.example])
    first = encoded.texts.splits[encoded.context_of[spans.example]]
    start, end = (
        np.where(is_span, first + token, 0) for token in (spans.start_token, spans.end_token)
    )
    offsets = encoded.texts.offsets
    is_exact = (offsets[start, 0] == spans.start_char) & (offsets[end, 1] == spans.end_char)
    return np.asarray(is_span & is_exact & is_text, np.bool_)


def _reaches(
    windows: Windows, rows: NDArray[np.int64], max_answer_length: int
) -> Iterator[NDArray[np.int64]]:
    """For each example of `rows`, the last token (inclusive) of a span from each context token.

    Of all windows that hold a token, the last one reaches furthest.
    """
    begin = np.searchsorted(windows.example, rows)
    stop = np.searchsorted(windows.example, rows, side="right")
    for first, after in zip(begin.tolist(), stop.tolist(), strict=True):
        starts = windows.start[first:after]
        ends = starts + windows.length[first:after] - 1
        token = np.arange(ends[-1] + 1)  # (context tokens,)
        window = np.searchsorted(starts, token, side="right") - 1
        yield np.minimum(ends[window], token + max_answer_length - 1)


def _search_examples(
    examples: pa.Table, encoded: EncodedExamples, reaches: Iterable[NDArray[np.int64]]
) -> list[bool]:
    """Whether a span of each example's windows is an exact match, or none is expected."""
    skeletons: dict[int, Skeleton] = {}  # of the contexts, by number of the text
    contexts, numbers = examples["context"].to_pylist(), encoded.context_of.tolist()
    found = []
    for context, number, gold, reach in zip(
        contexts, numbers, gold_texts(examples), reaches, strict=True
    ):
        if number not in skeletons:
            skeletons[number] = Skeleton.of(context)
        begin, stop = encoded.texts.splits[number : number + 2]
        offsets = encoded.texts.offsets[begin:stop]
        is_found = gold == [""] or has_match(context, skeletons[number], offsets, reach, gold)
        found.append(is_found)
    return found


def has_match(
    context: str,
    skeleton: "Skeleton",
    offsets: NDArray[np.int32],
    reach: NDArray[np.int64],
    gold: Sequence[str],
) -> bool:
    """Whether a span of tokens of the context scores an exact match with an answer of `gold`.

    `skeleton` is the context's, `offsets` its tokens', (tokens, 2); `reach` is the last token
    of a span from each, (tokens,). The work is one search for the skeleton of an answer, and to
    normalise the few spans that have the same.
    """
    normalized = {normalize_answer(text) for text in gold}
    begin, end = skeleton.before[offsets[:, 0]], skeleton.before[offsets[:, 1]]  # (tokens,)
    tried = set()
    for wanted in {Skeleton.of(text).text for text in normalized}:
        is_hit = skeleton.find_all(wanted)
        start = np.flatnonzero(is_hit[begin])
        ahead = np.arange((reach[start] - start).max(initial=0) + 1)
        stop = start[:, None] + ahead  # (starts, ahead)
        is_allowed = stop <= reach[start][:, None]
        is_same = end[np.minimum(stop, len(end) - 1)] == begin[start][:, None] + len(wanted)
        row, column = np.nonzero(is_allowed & is_same)
        for first, after in zip(
            offsets[start[row], 0].tolist(), offsets[stop[row, column], 1].tolist(), strict=True
        ):
            if (first, after) not in tried and normalize_answer(context[first:after]) in normalized:
                return True
            tried.add((first, after))
    return False


@dataclass(frozen=True)
class Skeleton:
    """What of a text no normalisation and no cut changes: equal answers have equal skeletons.

    It is the lower case without white space, ASCII punctuation and the letters of "a", "an" and
    "the", so it is the same whether a cut makes a word of "and" an article or not. Lower case
    itself depends on what is around for a sigma, and gives two characters for "İ": both sigmas
    are one here, and "İ" goes, as do the two. So skeleton(normalize_answer(x)) == skeleton(x) and
    skeleton(x + y) == skeleton(x) + skeleton(y).

    >>> Skeleton.of("The Harbour-Bridge").text
    'rbourbridg'
    """

    text: str
    before: NDArray[np.int64]  # (characters + 1,) characters of `text` before each of the whole

    @classmethod
    def of(cls, text: str) -> "Skeleton":
        """The skeleton of `text`."""
        lower = text.replace("\u0130", " ").lower().replace("\u03c2", "\u03c3")  # length stays
        codes = np.frombuffer(lower.encode("utf-32-le"), np.uint32)  # (characters,)
        is_kept = ~_IS_DROPPED[np.minimum(codes, len(_IS_DROPPED) - 1)]
        return cls(
            codes[is_kept].tobytes().decode("utf-32-le"), splits_of(is_kept.astype(np.int64))
        )

    def find_all(self, wanted: str) -> NDArray[np.bool_]:
        """Whether `wanted` stands at each place of `text`, its end included, (places,)."""
        is_hit = np.zeros(len(self.text) + 1, np.bool_)
        place = self.text.find(wanted)
        while place >= 0:
            is_hit[place] = True
            place = self.text.find(wanted, place + 1)
        return is_hit


def _dropped_codes() -> NDArray[np.bool_]:
    """Whether a skeleton is without the character of each code, (codes,); none beyond is."""
    last = 0x3000  # the last white space
    codes = [code for code in range(last + 1) if chr(code).isspace()]
    codes += map(ord, string.punctuation + "anthe" + "i\u0307")  # "İ".lower() is the last two
    return np.isin(np.arange(last + 2), codes)


_IS_DROPPED = _dropped_codes()
