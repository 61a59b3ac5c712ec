"""Plans equal a brute force over all spans of all windows, however the examples are sharded."""

import itertools
import string
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qa_core.errors import ConfigError
from qa_core.features import encode_examples, fill_features, find_unfit, label_examples
from qa_core.normalizing import normalize_answer
from qa_core.planning import WindowPlan, epoch_cost, find_dominated, merge_plans, plan_examples
from qa_core.reaching import Skeleton
from qa_core.scoring import gold_texts, score_text
from qa_core.tokenizing import PairEncoder
from tests.families import FAMILIES
from tests.tiny import TEXTS, make_examples, train_tokenizer

SIZES = [(12, 0), (14, 3), (20, 7), (64, 16)]


@cache
def encoder_of(family: str) -> PairEncoder:
    """One training for each family, however many tests ask."""
    return PairEncoder.of(train_tokenizer(family))


def plan(
    examples: pa.Table, sizes: tuple[int, int], *, family: str = "wordpiece", longest: int = 30
) -> WindowPlan:
    """Encode and plan."""
    return plan_examples(
        examples,
        encode_examples(examples, encoder=encoder_of(family)),
        max_length=sizes[0],
        doc_stride=sizes[1],
        max_answer_length=longest,
    )


def brute_force(
    examples: pa.Table, sizes: tuple[int, int], *, family: str, longest: int
) -> WindowPlan:
    """The same counts by walking over the features of each example, span by span."""
    max_length, doc_stride = sizes
    unfit = find_unfit(
        encode_examples(examples, encoder=encoder_of(family)),
        max_length=max_length,
        doc_stride=doc_stride,
    )
    fit = [row for row in range(len(examples)) if row not in set(unfit.tolist())]
    total = WindowPlan(max_length, doc_stride, longest, 0, len(unfit), 0, (0,) * 5, *[0] * 6)
    for row in fit:
        one = examples.slice(row, 1)
        features = features_of(one, sizes, family=family)
        lengths = [len(feature["input_ids"]) for feature in features]
        answers = one["answers"][0].as_py()
        bin_of = min(len(features), 5) - 1
        total = total.merge(
            WindowPlan(
                max_length,
                doc_stride,
                longest,
                num_examples=1,
                num_roomless=0,
                num_windows=len(features),
                window_counts=tuple(int(n == bin_of) for n in range(5)),
                num_tokens=sum(lengths),
                num_token_pairs=sum(length * length for length in lengths),
                num_null_windows=sum(f["start_positions"] == f["cls_index"] for f in features),
                num_answerable=int(bool(answers["text"])),
                num_cut=int(bool(answers["text"]) and not is_held(features, answers)),
                num_reachable=int(is_reached(one, features, longest)),
            )
        )
    return total


def features_of(examples: pa.Table, sizes: tuple[int, int], *, family: str) -> list[dict[str, Any]]:
    """What `build_features` gives, with the encoder that is at hand."""
    encoded = encode_examples(examples, encoder=encoder_of(family))
    planned = label_examples(encoded, max_length=sizes[0], doc_stride=sizes[1])
    return fill_features(encoded, planned, ids=examples["id"]).to_pylist()


def context_offsets(feature: dict[str, Any]) -> list[list[int]]:
    """Offsets of the window's context tokens alone."""
    return [pair for pair in feature["offset_mapping"] if pair != [-1, -1]]


def is_held(features: list[dict[str, Any]], answers: dict[str, Any]) -> bool:
    """Whether the context of some window spans some answer."""
    for feature, (text, start) in itertools.product(
        features, zip(answers["text"], answers["answer_start"], strict=True)
    ):
        offsets = context_offsets(feature)
        if offsets and offsets[0][0] <= start and offsets[-1][1] >= start + len(text):
            return True
    return False


def is_reached(example: pa.Table, features: list[dict[str, Any]], longest: int) -> bool:
    """Whether the null answer, where none is expected, or a span has an exact match of 1."""
    context, [gold] = example["context"][0].as_py(), gold_texts(example)
    if gold == [""]:
        return True
    for offsets in map(context_offsets, features):
        for first, (start, _) in enumerate(offsets):
            for _, end in offsets[first : first + longest]:
                if score_text(context[start:end], gold)[0]:
                    return True
    return False


# Articles alone, inside words and at cuts; signs that go and signs that stay; letters whose lower
# case has two characters or depends on what is around.
PIECES = [
    *("the", "The", "a", "an", "A", "ant", "theatre", "Athena", "a-the", "tan", "he", "then"),
    *("Orla", "1912", "bridge", "bridges", "don't", "U.S.", "(a)", "$2,300", "engineers", "x"),
    *(
        "ΟΔΟΣ",
        "ΣΑΣ",
        "ς",
        "σ",
        "İstanbul",
        "i\u0307",
        "İ",
        "ß",
        "東京は",
        "😀",
        "e\u0301",
        "ﬁ",
        "Å",
    ),
    *(".", "-", "'", "—", "«", "\u200b", "!?", "..."),
]
GAPS = ["", "", " ", " ", " ", "  ", "\n", "\u00a0", "\u0085", "\x1c"]


@st.composite
def rows_of_questions(draw: st.DrawFn) -> list[dict[str, Any]]:
    """One to three questions, some long, about contexts of drawn pieces; answers cut anywhere."""
    rows = []
    for _ in range(draw(st.integers(1, 3))):
        pieces = draw(st.lists(st.sampled_from(PIECES), max_size=14))
        context = "".join(piece + draw(st.sampled_from(GAPS)) for piece in pieces) or "\u200b"
        answers = []
        for _ in range(draw(st.integers(0, 3))):
            start = draw(st.integers(0, len(context) - 1))
            end = draw(st.integers(start + 1, min(len(context), start + 12)))
            answers.append((context[start:end], start))
        question = "who " * draw(st.sampled_from([1, 1, 1, 3, 7]))
        rows.append({"context": context, "question": question, "answers": answers})
    return rows


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    rows=rows_of_questions(), sizes=st.sampled_from(SIZES), longest=st.sampled_from([1, 2, 5, 30])
)
def test_plans_equal_a_brute_force(
    family: str, rows: list[dict[str, Any]], sizes: tuple[int, int], longest: int
) -> None:
    """Every count, reachability above all, with words cut by tokens and by windows."""
    examples = make_examples(rows)
    expected = brute_force(examples, sizes, family=family, longest=longest)
    assert plan(examples, sizes, family=family, longest=longest) == expected


def demo_rows() -> list[dict[str, Any]]:
    """Two dozen questions about the tiny texts, some unanswerable, some with a far answer."""
    long = " ".join(TEXTS * 2)
    rows = []
    for number in range(24):
        start = 23 * number % (len(long) - 40)
        answers = [(long[start : start + 5 + number], start)] if number % 4 else []
        rows.append({"context": long[: 60 * (number + 1)], "question": "Who?", "answers": answers})
        rows[-1]["answers"] = [a for a in answers if a[1] + len(a[0]) <= 60 * (number + 1)]
    rows.append({"context": long, "question": "who " * 60, "answers": [("The", 0)]})
    return rows


@pytest.mark.parametrize("sizes", SIZES)
def test_sharding_and_order_change_nothing(sizes: tuple[int, int]) -> None:
    """Slices, encoded apart, merge in any order to the plan of the whole table."""
    examples = make_examples(demo_rows())
    whole = plan(examples, sizes)
    bounds = [0, 1, 1, 9, 16, len(examples)]  # one of them empty
    parts = [plan(examples.slice(a, b - a), sizes) for a, b in itertools.pairwise(bounds)]
    assert whole.num_windows > whole.num_examples
    assert whole.num_roomless == 1
    assert sum(whole.window_counts) == whole.num_examples
    for order in itertools.permutations(parts):
        assert merge_plans(order) == whole
    assert parts[0].merge(parts[4]) == parts[4].merge(parts[0])


def test_the_ceiling_is_whole_where_every_answer_is_held() -> None:
    """Answers on the tokens' own bounds in windows that hold the context cost nothing."""
    rows = [
        {"context": text, "question": "Who?", "answers": [(word, text.index(word))]}
        for text in TEXTS[:2]
        for word in ("bridge", text.split()[4])
    ]
    found = plan(make_examples([*rows, {"context": "Orla", "question": "Why?"}]), (128, 32))
    assert (found.ceiling, found.num_cut, found.num_null_windows) == (100, 0, 1)
    assert found.windows_per_question == 1
    assert found.num_padded_tokens == 5 * 128
    assert found.padding_share == 1 - found.num_tokens / (5 * 128)


def question(context: str, *answers: str) -> pa.Table:
    """One example; the answers stand where they are first found."""
    pairs = [(text, context.index(text)) for text in answers]
    return make_examples([{"context": context, "question": "Who?", "answers": pairs}])


@pytest.mark.parametrize(
    ("example", "is_reachable"),
    [
        (question("The bridge over the Orla", "bridge"), True),
        (question("the engineers' bridge.", "engineers' bridge."), True),
        (question("committee", "comm"), False),  # one token has more than the answer
        (question("a committee, comm", "comm"), True),  # the same, in tokens of its own
        (question("over (the) Orla", "(the) Orla"), True),
        (question("over the Orla", "the"), True),  # normalises to nothing: the null answer
        (question("over the Orla", "the", "over"), True),
        (question("committee of the Orla", "the", "comm"), False),  # "the" does not count here
    ],
)
def test_what_can_be_reached(example: pa.Table, is_reachable: bool) -> None:
    """Whole words are; parts of a token are not, nor answers that scoring leaves out."""
    assert plan(example, (64, 16)).num_reachable == is_reachable
    assert plan(example, (64, 16)).num_cut == 0


def test_the_same_words_elsewhere_are_a_match() -> None:
    """The marked answer lies in no window whole; another place has the same words."""
    context = "bridge over the river Orla bridge over river"
    answers = [("bridge over the river", 0)]
    examples = make_examples([{"context": context, "question": "who", "answers": answers}])
    width = 3 + 1 + 3  # special tokens, "who", and three words of context
    assert [plan(examples, (width, stride)).num_cut for stride in (0, 2)] == [1, 1]
    assert [plan(examples, (width, stride)).num_reachable for stride in (0, 2)] == [0, 1]


def test_a_question_without_room_is_lost() -> None:
    """It has no window, so it lowers the ceiling even where no answer is expected."""
    rows = [
        {"context": "the bridge", "question": "Who?", "answers": []},
        {"context": " ".join(TEXTS), "question": "who " * 60, "answers": []},
    ]
    found = plan(make_examples(rows), (64, 16))
    assert (found.num_examples, found.num_roomless, found.num_questions) == (1, 1, 2)
    assert found.ceiling == 50


def test_blocks_of_nothing_are_planned() -> None:
    """A shard of roomless questions alone, or of none."""
    lost = make_examples([{"context": " ".join(TEXTS), "question": "who " * 60}])
    nothing = plan(lost.slice(0, 0), (64, 16))
    assert plan(lost, (64, 16)) == replace(nothing, num_roomless=1)
    assert (nothing.ceiling, nothing.windows_per_question, nothing.num_windows) == (0, 0, 0)


def test_texts_without_any_token_are_planned() -> None:
    """The answer's tokens would be beyond all tokens there are."""
    row = {"context": "\u200b", "question": " ", "answers": [("\u200b", 0)]}
    found = plan(make_examples([row]), (64, 16))
    assert (found.num_windows, found.num_cut, found.num_reachable) == (1, 1, 0)


def test_other_sizes_do_not_merge() -> None:
    """Sums over windows of two sizes would say nothing."""
    examples = make_examples(demo_rows()[:3])
    for other in (plan(examples, (64, 8)), plan(examples, (64, 16), longest=7)):
        with pytest.raises(AssertionError):
            plan(examples, (64, 16)).merge(other)


def test_impossible_sizes_are_refused() -> None:
    """The same errors as in building features and in decoding."""
    examples = make_examples(demo_rows()[:1])
    with pytest.raises(ConfigError, match="doc_stride 60 is too large for max_length 64"):
        plan(examples, (64, 60))
    with pytest.raises(ConfigError, match="max_answer_length is 0"):
        plan(examples, (64, 16), longest=0)


def test_cost_counts_the_multiplications_of_a_layer() -> None:
    """Against the products written out: four square weights, two of 4 h, and attention."""
    examples = make_examples(demo_rows())
    h = 48
    found = plan(examples, (64, 16))
    features = features_of(examples.slice(0, 24), (64, 16), family="wordpiece")
    lengths = [len(feature["input_ids"]) for feature in features]
    products = sum(4 * n * h * h + 2 * n * h * 4 * h + 2 * n * n * h for n in lengths)
    assert epoch_cost(found, hidden_size=h) == pytest.approx(2 * products / (24 * h * h))


def made_plan(num_reachable: int, num_tokens: int) -> WindowPlan:
    """A plan of ten questions with this much reached and this cost."""
    return WindowPlan(
        64, 16, 30, 10, 0, 10, (10, 0, 0, 0, 0), num_tokens, 0, 0, 10, 0, num_reachable
    )


def test_dominated_plans_name_a_better_one() -> None:
    """Cheap and low, dear and high both stay; equal plans leave the first."""
    plans = [made_plan(9, 500), made_plan(8, 400), made_plan(8, 600), made_plan(9, 500)]
    assert find_dominated(plans, hidden_size=8) == {2: 0, 3: 0}
    assert find_dominated([], hidden_size=8) == {}


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.lists(st.builds(made_plan, st.integers(5, 8), st.sampled_from([100, 200, 300])), max_size=7)
)
def test_domination_follows_its_definition(plans: list[WindowPlan]) -> None:
    """Exactly those with a better or an equal earlier plan; the one named is not among them."""
    dominated = find_dominated(plans, hidden_size=8)

    def beats(i: int, j: int) -> bool:
        mine = (-plans[i].num_reachable, plans[i].num_tokens)
        other = (-plans[j].num_reachable, plans[j].num_tokens)
        both = mine[0] <= other[0] and mine[1] <= other[1]
        return both and (mine != other or i < j)

    places = range(len(plans))
    assert set(dominated) == {j for j in places if any(beats(i, j) for i in places)}
    assert all(beats(i, j) and i not in dominated for j, i in dominated.items())


def skeleton(text: str) -> str:
    """The text alone."""
    return Skeleton.of(text).text


drawn_texts = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=20),
    st.lists(st.sampled_from(PIECES + GAPS), max_size=8).map("".join),
)


@settings(max_examples=500, deadline=None, derandomize=True)
@given(drawn_texts, drawn_texts)
def test_no_match_is_lost_to_the_filter(first: str, second: str) -> None:
    """Normalising leaves the skeleton, and cutting a text cuts its skeleton.

    Then texts that normalise to the same have the same skeleton, wherever they are cut out.
    """
    assert skeleton(normalize_answer(first)) == skeleton(first)
    whole = Skeleton.of(first + second)
    assert whole.text == skeleton(first) + skeleton(second)
    assert whole.before[len(first)] == len(skeleton(first))
    assert len(whole.before) == len(first + second) + 1


def test_the_filter_knows_every_character() -> None:
    """What this Python calls white space, and what it makes of each in lower case."""
    points = [p for p in range(0x110000) if not 0xD800 <= p < 0xE000]
    # between letters that stay: lower case may look around, normalising may strip
    text = " ".join(f"x{chr(p)}x" for p in points)
    assert skeleton(normalize_answer(text)) == skeleton(text)
    kept = np.diff(Skeleton.of("".join(map(chr, points))).before)
    dropped = {chr(p) for p, is_kept in zip(points, kept.tolist(), strict=True) if not is_kept}
    spaces = {chr(p) for p in points if chr(p).isspace()}
    assert dropped == spaces | set(string.punctuation) | set("antheiANTHEI\u0307\u0130")


@pytest.mark.parametrize(
    ("wanted", "places"), [("bb", [1, 2]), ("", [0, 1, 2, 3, 4]), ("x", [0]), ("y", [])]
)
def test_all_places_are_found(wanted: str, places: list[int]) -> None:
    """Overlapping ones too; the empty text is everywhere, at the end as well."""
    assert np.flatnonzero(Skeleton.of("xbbb").find_all(wanted)).tolist() == places
