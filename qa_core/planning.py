"""plan: what each (max_length, doc_stride) would cost and could reach, before any training.

A plan of a block of examples is sums alone, so blocks merge in any order. Nothing is tokenized:
one `encode_examples` serves all sizes.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from functools import reduce

import numpy as np
import pyarrow as pa

from qa_core.features import EncodedExamples, find_unfit, label_examples
from qa_core.labelling import Labels
from qa_core.reaching import find_held, find_reachable
from qa_core.windowing import Windows

NUM_WINDOW_COUNTS = 5  # questions with 1, 2, 3, 4 windows, and with 5 or more


@dataclass(frozen=True)
class WindowPlan:
    """Counts over examples cut with one (max_length, doc_stride); see `plan_examples`."""

    max_length: int  # tokens in a window, special ones and question included
    doc_stride: int  # tokens that neighbouring windows share
    max_answer_length: int  # tokens of the longest span that decoding gives
    num_examples: int  # whose question leaves room for context; all below are of these
    num_roomless: int  # whose question leaves none: they have no window
    num_windows: int
    window_counts: tuple[int, ...]  # examples with 1, 2, 3, 4 windows, and with 5 or more
    num_tokens: int  # real ones, in all windows
    num_token_pairs: int  # sum over windows of length * length, what attention looks at
    num_null_windows: int  # labelled "no answer"
    num_answerable: int
    num_cut: int  # answerable ones of which no window holds any accepted answer whole
    num_reachable: int  # whose exact match can be had: by a span, or by the null answer

    def merge(self, other: "WindowPlan") -> "WindowPlan":
        """The plan of both; they must share no example."""
        settings = ("max_length", "doc_stride", "max_answer_length")
        assert all(getattr(self, name) == getattr(other, name) for name in settings)
        counts = [field.name for field in fields(self) if field.name.startswith("num_")]
        sums = {name: getattr(self, name) + getattr(other, name) for name in counts}
        pairs = zip(self.window_counts, other.window_counts, strict=True)
        return replace(self, window_counts=tuple(a + b for a, b in pairs), **sums)

    @property
    def num_questions(self) -> int:
        """All examples, those without room included."""
        return self.num_examples + self.num_roomless

    @property
    def windows_per_question(self) -> float:
        """Mean over the examples that have room."""
        return self.num_windows / max(1, self.num_examples)

    @property
    def num_padded_tokens(self) -> int:
        """Tokens, padding included, of windows all padded to max_length (the usual recipe)."""
        return self.num_windows * self.max_length

    @property
    def padding_share(self) -> float:
        """Share of padding in `num_padded_tokens`, 0 to 1."""
        return 1 - self.num_tokens / max(1, self.num_padded_tokens)

    @property
    def ceiling(self) -> float:
        """The best exact match any model could reach, 0 to 100; without room is without match."""
        return 100 * self.num_reachable / max(1, self.num_questions)


def plan_examples(
    examples: pa.Table,
    encoded: EncodedExamples,
    *,
    max_length: int,
    doc_stride: int,
    max_answer_length: int = 30,
    labels: Labels = "first",
) -> WindowPlan:
    """The plan of a block; `encoded` is `encode_examples(examples)`, made once for all sizes.

    An example is reachable where two context tokens of one window, at most `max_answer_length`
    tokens from the first to the last, have a text that scoring takes for an exact match; also
    where no answer is expected (it has none, or all of them normalise to nothing). `labels`, as
    `label_examples` has it, decides which windows are null.

    Raises `ConfigError` for sizes that leave no question a window, or no span to give.
    """
    unfit = find_unfit(encoded, max_length=max_length, doc_stride=doc_stride)
    if len(unfit):
        fit = np.delete(np.arange(len(encoded)), unfit)
        examples, encoded = examples.select(["context", "answers"]).take(fit), encoded.take(fit)
    planned = label_examples(encoded, max_length=max_length, doc_stride=doc_stride, labels=labels)
    lengths = planned.layout.length.astype(np.int64)  # (windows,)
    is_answerable = encoded.spans.counts > 0
    is_held = find_held(encoded, planned.windows)
    is_reachable = find_reachable(
        examples, encoded, planned.windows, max_answer_length=max_answer_length
    )
    return WindowPlan(
        max_length=max_length,
        doc_stride=doc_stride,
        max_answer_length=max_answer_length,
        num_examples=len(encoded),
        num_roomless=len(unfit),
        num_windows=len(lengths),
        window_counts=_window_counts(planned.windows, len(encoded)),
        num_tokens=int(lengths.sum()),
        num_token_pairs=int((lengths * lengths).sum()),
        num_null_windows=int(planned.is_null.sum()),
        num_answerable=int(is_answerable.sum()),
        num_cut=int((is_answerable & ~is_held).sum()),
        num_reachable=int(is_reachable.sum()),
    )


def merge_plans(plans: Iterable[WindowPlan]) -> WindowPlan:
    """All plans (at least one, of one size) in one; their order does not matter."""
    return reduce(WindowPlan.merge, plans)


def epoch_cost(plan: WindowPlan, *, hidden_size: int) -> float:
    """Arithmetic of an epoch over the real tokens, to compare plans by: as if in tokens.

    A transformer layer on a window of l tokens multiplies by 12 h² weights a token (queries,
    keys, values and output 4 h², the feed-forward part 8 h²): 24 l h² operations. Attention's
    scores and their use take l² h products each: 4 l² h. Together 24 h² * l (1 + l / (6 h)); the
    sum over windows of the second factor is given. Embeddings and padding are left out.
    """
    return plan.num_tokens + plan.num_token_pairs / (6 * hidden_size)


def find_dominated(plans: Sequence[WindowPlan], *, hidden_size: int) -> dict[int, int]:
    """Numbers of plans no one should choose → the number of a plan to choose instead.

    The other's ceiling is at least as high and its epoch costs at most as much, one of them
    strictly so; of plans equal in both, all but the first are dominated. The other named is the
    highest of those, then the cheapest, then the first; so it is never dominated itself. The
    plans are of the same examples.
    """
    assert len({plan.num_questions for plan in plans}) <= 1
    # best first: whatever dominates a plan comes before it
    ranks = [
        (-plan.num_reachable, epoch_cost(plan, hidden_size=hidden_size), number)
        for number, plan in enumerate(plans)
    ]
    dominated = {}
    for rank in ranks:
        better = [r for r in ranks if r < rank and r[1] <= rank[1]]
        if better:
            dominated[rank[2]] = min(better)[2]
    return dominated


def _window_counts(windows: Windows, num_examples: int) -> tuple[int, ...]:
    counts = np.bincount(windows.example, minlength=num_examples)  # (examples,)
    capped = np.minimum(counts, NUM_WINDOW_COUNTS)
    return tuple(np.bincount(capped, minlength=NUM_WINDOW_COUNTS + 1)[1:].tolist())
