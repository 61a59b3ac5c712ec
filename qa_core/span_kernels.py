"""decode: the loops of the span search, compiled on first use (numba).

Importing this module takes half a second, compiling it some seconds once a machine (kept beside
this file, or in numba's folder of the user).
"""

from collections.abc import Callable
from typing import NamedTuple, TypeVar, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

Function = TypeVar("Function", bound=Callable[..., object])


class ScoredTokens(NamedTuple):
    """The tokens of all windows, example after example, and what they score."""

    example_splits: NDArray[np.int64]  # (examples + 1,) where each example's windows begin
    splits: NDArray[np.int64]  # (windows + 1,) where each window's tokens begin
    start_logits: NDArray[np.float32]  # (tokens,)
    end_logits: NDArray[np.float32]  # (tokens,)
    offsets: NDArray[np.int32]  # (tokens, 2) half-open characters; -1 outside the context
    may_start: NDArray[np.bool_]  # (tokens,) whether an answer may begin there


class FoundSpans(NamedTuple):
    """The best spans of each example, best first."""

    spans: NDArray[np.int32]  # (examples, n_best, 2) half-open characters
    scores: NDArray[np.float32]  # (examples, n_best)
    counts: NDArray[np.int64]  # (examples,) rows in use


def _compile(function: Function) -> Function:
    """The function compiled; from the disk's cache where there is a folder for one."""
    try:
        if function.__name__.startswith("_"):
            return cast(Function, njit(cache=True, inline="always")(function))
        return cast(Function, njit(cache=True)(function))
    except RuntimeError:  # no folder that can be written: compiled anew in every process
        return cast(Function, njit(function))


@_compile
def exact_spans(tokens: ScoredTokens, found: FoundSpans, max_answer_length: int) -> None:
    """The best distinct spans of characters of all pairs of tokens, into `found`.

    Ties go to the earlier start, then the earlier end. The starts of a window are taken by their
    best pair, until that is below what a span must have to be kept. A score below float32's range
    is none.
    """
    longest = 1
    for window in range(len(tokens.splits) - 1):
        longest = max(longest, tokens.splits[window + 1] - tokens.splits[window])
    ends = np.empty(longest, np.float32)
    pairs = np.empty(longest, np.float32)
    for example in range(len(found.counts)):
        least = np.float32(-np.inf)  # what a span must have to be kept
        found.counts[example] = 0
        for window in range(tokens.example_splits[example], tokens.example_splits[example + 1]):
            first, stop = tokens.splits[window], tokens.splits[window + 1]
            window_ends, window_pairs = ends[: stop - first], pairs[: stop - first]
            _best_ends(tokens, first, window_ends, max_answer_length)
            has_repeats = _best_pairs(tokens, first, window_ends, window_pairs)
            has_repeats |= window > tokens.example_splits[example]
            while True:
                place = _highest(window_pairs)
                if window_pairs[place] < least or window_pairs[place] == -np.inf:
                    break
                window_pairs[place] = -np.inf
                start = first + place
                last = min(stop, start + max_answer_length)
                least = _keep_from(tokens, start, last, least, found, example, has_repeats)


@_compile
def _highest(values: NDArray[np.float32]) -> int:
    """Where the highest of values is, the first of equals."""
    place, highest = 0, values[0]
    for number in range(1, len(values)):
        if values[number] > highest:
            place, highest = number, values[number]
    return place


@_compile
def _best_ends(
    tokens: ScoredTokens, first: int, best: NDArray[np.float32], max_answer_length: int
) -> None:
    """Into `best`: the largest end logit of the answers that begin at each token of a window.

    Maxima of 1, 2, 4, … tokens, and of two such that overlap for what is left.
    """
    length = len(best)
    for token in range(length):
        is_context = tokens.offsets[first + token, 0] >= 0
        best[token] = tokens.end_logits[first + token] if is_context else -np.inf
    covered = 1
    while covered < max_answer_length:
        further = min(covered, max_answer_length - covered)
        for token in range(length - further):
            other = best[token + further]
            best[token] = other if other > best[token] else best[token]
        covered += further


@_compile
def _best_pairs(
    tokens: ScoredTokens, first: int, ends: NDArray[np.float32], best: NDArray[np.float32]
) -> bool:
    """Into `best`: the best score from each token of a window on; -inf where none may begin.

    Whether two tokens begin or end with the same character, so that spans may come twice.
    """
    has_repeats = False
    for token in range(first, first + len(best)):
        is_start = tokens.offsets[token, 0] >= 0 and tokens.may_start[token]
        score = tokens.start_logits[token] + ends[token - first]
        best[token - first] = score if is_start else -np.inf
        if tokens.offsets[token, 0] >= 0 and token > first:
            has_repeats |= tokens.offsets[token, 0] == tokens.offsets[token - 1, 0]
            has_repeats |= tokens.offsets[token, 1] == tokens.offsets[token - 1, 1]
    return has_repeats


@_compile
def _keep_from(
    tokens: ScoredTokens,
    start: int,
    last: int,
    least: np.float32,
    found: FoundSpans,
    example: int,
    has_repeats: bool,
) -> np.float32:
    """Keep the best spans from `start` that end before `last`; what one must have afterwards."""
    spans, scores, n_best = found.spans[example], found.scores[example], found.scores.shape[1]
    for end in range(start, last):
        score = tokens.start_logits[start] + tokens.end_logits[end]
        if score >= least and tokens.offsets[end, 0] >= 0:
            span = (tokens.offsets[start, 0], tokens.offsets[end, 1])
            count = found.counts[example]
            if has_repeats:
                count = _drop_worse(spans, scores, count, span, score)
            if count >= 0:
                count = _keep(spans, scores, count, span, score)
                found.counts[example] = count
                if count == n_best:
                    least = max(least, scores[n_best - 1])
    return least


@_compile
def _least_of_highest(values: NDArray[np.float32], highest: NDArray[np.float32]) -> np.float32:
    """A number that at least as many of `values` reach as `highest` has room for; -inf of fewer.

    It is the last of the highest maxima of groups of neighbours, which is close to that of all
    values and takes less time.
    """
    room, length = len(highest), len(values)
    size = max(1, length // (2 * room))  # of a group
    highest[:] = -np.inf
    for first in range(0, length, size):
        value = values[first]
        for place in range(first + 1, min(first + size, length)):
            value = values[place] if values[place] > value else value
        if value > highest[room - 1]:
            place = room - 1
            while place > 0 and highest[place - 1] < value:
                highest[place] = highest[place - 1]
                place -= 1
            highest[place] = value
    return highest[room - 1]  # type: ignore[no-any-return]  # a number of the array's type


@_compile
def _drop_worse(
    spans: NDArray[np.int32],
    scores: NDArray[np.float32],
    count: int,
    span: tuple[int, int],
    score: np.float32,
) -> int:
    """Drop the same span with a lower score; the number left, or -1 where it is as good."""
    for place in range(count):
        if spans[place, 0] == span[0] and spans[place, 1] == span[1]:
            if scores[place] >= score:
                return -1
            for later in range(place, count - 1):
                spans[later, 0], spans[later, 1] = spans[later + 1, 0], spans[later + 1, 1]
                scores[later] = scores[later + 1]
            return count - 1
    return count


@_compile
def _keep(
    spans: NDArray[np.int32],
    scores: NDArray[np.float32],
    count: int,
    span: tuple[int, int],
    score: np.float32,
) -> int:
    """Put a span among the best, where it belongs; their number afterwards."""
    place = count
    while place > 0 and scores[place - 1] < score:
        place -= 1
    while place > 0 and scores[place - 1] == score:
        before = (spans[place - 1, 0], spans[place - 1, 1])
        if before[0] < span[0] or (before[0] == span[0] and before[1] < span[1]):
            break
        place -= 1
    return _insert(spans, scores, count, place, span, score)


@_compile
def _insert(
    spans: NDArray[np.int32],
    scores: NDArray[np.float32],
    count: int,
    place: int,
    span: tuple[int, int],
    score: np.float32,
) -> int:
    """Put a span at `place`, the last of a full list falling out; their number afterwards."""
    if place == len(scores):
        return count
    for later in range(min(count, len(scores) - 1), place, -1):
        spans[later, 0], spans[later, 1] = spans[later - 1, 0], spans[later - 1, 1]
        scores[later] = scores[later - 1]
    spans[place, 0], spans[place, 1] = span
    scores[place] = score
    return min(count + 1, len(scores))


@_compile
def highest_tokens(
    splits: NDArray[np.int64],
    logits: NDArray[np.float32],
    tokens: NDArray[np.int64],
    has_ties: NDArray[np.bool_],
) -> None:
    """Into `tokens` (windows, n_best): the tokens with the highest logits, best first; else -1.

    `has_ties` (windows,) tells where equal logits leave open which they are, or their order.
    """
    n_best = tokens.shape[1]
    values = np.empty(n_best, np.float32)
    for window in range(len(splits) - 1):
        count = 0
        least = _least_of_highest(logits[splits[window] : splits[window + 1]], values)
        for token in range(splits[window], splits[window + 1]):
            value = logits[token]
            if value < least or (count == n_best and value <= values[n_best - 1]):
                continue
            place = min(count, n_best - 1)
            while place > 0 and values[place - 1] < value:
                values[place] = values[place - 1]
                tokens[window, place] = tokens[window, place - 1]
                place -= 1
            values[place] = value
            tokens[window, place] = token
            count = min(count + 1, n_best)
        for place in range(count, n_best):
            tokens[window, place] = -1
        num_as_high = 0
        for token in range(splits[window], splits[window + 1]):
            num_as_high += count > 0 and logits[token] >= values[count - 1]
        has_ties[window] = num_as_high > count
        for place in range(1, count):
            has_ties[window] |= values[place] == values[place - 1]


@_compile
def reference_spans(
    tokens: ScoredTokens,
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    found: FoundSpans,
    max_answer_length: int,
) -> None:
    """The best pairs of `starts` and `ends` (windows, n_best, -1: none), into `found`.

    Of equal scores the pair that comes first stays first: windows in order, starts and ends by
    rank. Ends are in falling order, so that the rest of a row can be passed over.
    """
    for example in range(len(found.counts)):
        found.counts[example] = 0
        for window in range(tokens.example_splits[example], tokens.example_splits[example + 1]):
            for start in starts[window]:
                if start >= 0 and tokens.offsets[start, 0] >= 0 and tokens.may_start[start]:
                    last = start + max_answer_length
                    _keep_with(tokens, start, last, ends[window], found, example)


@_compile
def _keep_with(
    tokens: ScoredTokens,
    start: int,
    last: int,
    ends: NDArray[np.int64],
    found: FoundSpans,
    example: int,
) -> None:
    """Keep the spans from `start` to those of `ends` before `last` that are among the best."""
    spans, scores, n_best = found.spans[example], found.scores[example], found.scores.shape[1]
    for end in ends:
        if end < 0:
            break
        score = tokens.start_logits[start] + tokens.end_logits[end]
        count = found.counts[example]
        if count == n_best and score <= scores[n_best - 1]:
            break
        if start <= end < last and tokens.offsets[end, 0] >= 0:
            place = count
            while place > 0 and scores[place - 1] < score:
                place -= 1
            span = (tokens.offsets[start, 0], tokens.offsets[end, 1])
            found.counts[example] = _insert(spans, scores, count, place, span, score)


@_compile
def most_context(tokens: ScoredTokens) -> None:
    """Into `may_start`: whether each token has the most context in its window.

    BERT's rule: the smaller number of context tokens on either side, plus a hundredth of the
    window's; of equals the first window. Windows of an example follow one another in the context,
    each beginning with the tokens that the one before ends with.
    """
    num_windows = len(tokens.splits) - 1
    first = np.zeros(num_windows, np.int64)  # first context token, in the flat arrays
    length = np.zeros(num_windows, np.int64)  # context tokens
    place = np.zeros(num_windows, np.int64)  # of the first one in the context
    for window in range(num_windows):
        for token in range(tokens.splits[window + 1] - 1, tokens.splits[window] - 1, -1):
            if tokens.offsets[token, 0] >= 0:
                first[window] = token
                length[window] += 1
    for example in range(len(tokens.example_splits) - 1):
        windows = (tokens.example_splits[example], tokens.example_splits[example + 1])
        for window in range(windows[0] + 1, windows[1]):
            skipped = _first_shared(tokens.offsets, first, length, window)
            place[window] = place[window - 1] + skipped
        for window in range(windows[0], windows[1]):
            for token in range(length[window]):
                is_most = _has_most(place[window] + token, window, windows, place, length)
                tokens.may_start[first[window] + token] = is_most


@_compile
def _has_most(
    token: int,
    window: int,
    windows: tuple[int, int],
    place: NDArray[np.int64],
    length: NDArray[np.int64],
) -> bool:
    """Whether a window, of those from windows[0] to before windows[1], is the token's best."""
    own = _context_around(token, place[window], length[window])
    for other in range(window - 1, windows[0] - 1, -1):  # neighbours, while they have it
        score = _context_around(token, place[other], length[other])
        if score < 0:
            break
        if score >= own:
            return False
    for other in range(window + 1, windows[1]):
        score = _context_around(token, place[other], length[other])
        if score < 0:
            break
        if score > own:
            return False
    return True


@_compile
def _first_shared(
    offsets: NDArray[np.int32], first: NDArray[np.int64], length: NDArray[np.int64], window: int
) -> int:
    """Context tokens of the window before that this one does not have: at least one."""
    before = window - 1
    for skipped in range(1, length[before]):
        shared = length[before] - skipped
        if shared > length[window]:
            continue
        is_same = True
        for token in range(shared):
            mine, other = first[window] + token, first[before] + skipped + token
            if offsets[mine, 0] != offsets[other, 0] or offsets[mine, 1] != offsets[other, 1]:
                is_same = False
                break
        if is_same:
            return skipped
    return int(length[before])


@_compile
def _context_around(token: int, place: int, length: int) -> float:
    """BERT's measure of the context of a token in a window; below 0 where it is not in it."""
    left, right = token - place, place + length - 1 - token
    if left < 0 or right < 0:
        return -1.0
    return min(left, right) + 0.01 * length


@_compile
def rank_spans(
    found: FoundSpans,
    null_scores: NDArray[np.float32],
    splits: NDArray[np.int64],
    spans: NDArray[np.int32],
    scores: NDArray[np.float32],
) -> None:
    """The spans of `found` one after another, the null answer (-1, -1) after those as good as it.

    Into `spans` (candidates, 2) and `scores`; `splits` (examples + 1,) tells where each example's
    begin. `null_scores` (examples,) or empty: no null answer.
    """
    for example in range(len(found.counts)):
        place, is_null_in = splits[example], len(null_scores) == 0
        for number in range(found.counts[example] + 1):
            is_last = number == found.counts[example]
            if not is_null_in and (is_last or found.scores[example, number] < null_scores[example]):
                spans[place, 0] = spans[place, 1] = -1
                scores[place] = null_scores[example]
                is_null_in = True
                place += 1
            if is_last or place == splits[example + 1]:
                break
            spans[place, 0] = found.spans[example, number, 0]
            spans[place, 1] = found.spans[example, number, 1]
            scores[place] = found.scores[example, number]
            place += 1


@_compile
def span_bytes(
    contexts: NDArray[np.uint8],
    context_splits: NDArray[np.int64],
    example_splits: NDArray[np.int64],
    spans: NDArray[np.int32],
    places: NDArray[np.int64],
) -> None:
    """Into `places` (spans, 2): the bytes of spans of characters in the UTF-8 of all contexts.

    `contexts` has one context after another, `context_splits` (examples + 1,) where each begins,
    `example_splits` (examples + 1,) where the spans of each example begin. Spans of -1 are empty.
    """
    longest = 0
    for example in range(len(context_splits) - 1):
        longest = max(longest, context_splits[example + 1] - context_splits[example])
    byte_of = np.empty(longest + 1, np.int64)  # where each character begins
    for example in range(len(context_splits) - 1):
        first, stop = context_splits[example], context_splits[example + 1]
        bits = np.uint8(0)
        for byte in contexts[first:stop]:
            bits |= byte
        is_ascii = bits < 0x80
        if not is_ascii:
            character = 0
            for byte in range(first, stop):
                if contexts[byte] & 0xC0 != 0x80:  # not within a character
                    byte_of[character] = byte
                    character += 1
            byte_of[character] = stop
        for number in range(example_splits[example], example_splits[example + 1]):
            for side in range(2):
                character = max(spans[number, side], 0)
                places[number, side] = first + character if is_ascii else byte_of[character]


@_compile
def copy_bytes(
    source: NDArray[np.uint8], places: NDArray[np.int64], target: NDArray[np.uint8]
) -> None:
    """Copy the ranges `places` (ranges, 2) of `source` into `target`, one after another."""
    written = 0
    for number in range(len(places)):
        first, stop = places[number, 0], places[number, 1]
        target[written : written + stop - first] = source[first:stop]
        written += stop - first
