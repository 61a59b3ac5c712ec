"""score: answers + gold → exact match and F1, by the rules of the official SQuAD scripts.

Token overlap is that of SQuAD v2.0's script (v1.1's, but for a gold answer that normalises to
nothing, which v2.0 leaves out). Sums are taken one after another, as the scripts take them. What
crosses workers is `ExampleScores`: a few numbers an example, joined in any order (`merge`), about
50 bytes each.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from qa_core.decoding import null_odds as odds_of_answers
from qa_core.errors import DataError
from qa_core.normalizing import Language, normalize_answer

IDS_SHOWN = 5  # of the ids an error is about


@dataclass(frozen=True)
class ExampleScores:
    """Scores of single examples, sorted by id, so that joining shards in any order is the same."""

    ids: NDArray[np.object_]  # (examples,) texts
    has_answer: NDArray[np.bool_]  # (examples,) whether it has an accepted answer
    is_text: NDArray[np.bool_]  # (examples,) whether the span found is any text at all
    exact: NDArray[np.float64]  # (examples,) 0 or 1, of the best span
    f1: NDArray[np.float64]  # (examples,) 0 to 1, of the best span
    null_exact: NDArray[np.float64]  # (examples,) 0 or 1, of the null answer; its F1 is the same
    null_odds: NDArray[np.float64]  # (examples,) null_score - score

    def merge(self, other: "ExampleScores") -> "ExampleScores":
        """The scores of both; they must share no example."""
        return merge_scores([self, other])


@dataclass(frozen=True)
class GivenScores:
    """Scores of the answers that were given: texts, or "" for no answer."""

    ids: NDArray[np.object_]  # (examples,) texts
    has_answer: NDArray[np.bool_]  # (examples,) whether it has an accepted answer
    is_text: NDArray[np.bool_]  # (examples,) whether the answer given is any text at all
    exact: NDArray[np.float64]  # (examples,) 0 or 1
    f1: NDArray[np.float64]  # (examples,) 0 to 1

    @classmethod
    def joined(cls, parts: Sequence["GivenScores"]) -> "GivenScores":
        """The examples of all parts, one part after another; one part at least."""
        names = cls.__dataclass_fields__
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    def take(self, rows: NDArray[np.int64]) -> "GivenScores":
        """The examples at `rows`, in that order."""
        return GivenScores(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


def merge_scores(parts: Sequence[ExampleScores]) -> ExampleScores:
    """All parts in one, sorted by id; the order of the parts does not matter."""
    names = list(ExampleScores.__dataclass_fields__)
    columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    order = np.argsort(columns["ids"], kind="stable")
    return ExampleScores(**{name: column[order] for name, column in columns.items()})


def score_answers(
    answers: pa.Table,
    examples: pa.Table,
    *,
    golds: Sequence[Sequence[str]] | None = None,
    language: Language | None = None,
) -> ExampleScores:
    """Scores of best spans (decoded without, or before, a null threshold), row by row.

    `golds` are the `normalized_golds` of the examples, where they are known already.
    """
    golds = normalized_golds(examples, language=language) if golds is None else golds
    given = _score_texts(answers["text"].to_pylist(), golds, examples, language)
    scores = ExampleScores(
        ids=given.ids,
        has_answer=given.has_answer,
        is_text=given.is_text,
        exact=given.exact,
        f1=given.f1,
        null_exact=np.array([float("" in gold) for gold in golds], np.float64),
        null_odds=odds_of_answers(answers),
    )
    return merge_scores([scores])


def given_scores(scores: ExampleScores, *, null_threshold: float | None) -> GivenScores:
    """Scores with the null answer where null_odds > null_threshold, in the order of `scores`."""
    is_null = np.zeros(len(scores.ids), bool)
    if null_threshold is not None:
        is_null = scores.null_odds > null_threshold
    return GivenScores(
        ids=scores.ids,
        has_answer=scores.has_answer,
        is_text=scores.is_text & ~is_null,
        exact=np.where(is_null, scores.null_exact, scores.exact),
        f1=np.where(is_null, scores.null_exact, scores.f1),
    )


def summarize_scores(scores: ExampleScores, *, null_threshold: float | None) -> dict[str, float]:
    """The official figures, 0 to 100, as `score_predictions` would give them for the answers.

    With a null_threshold, the null answer stands where null_odds exceed it, and the best
    thresholds are reported too.
    """
    given = given_scores(scores, null_threshold=null_threshold)
    summary = _summary(given)
    return summary if null_threshold is None else summary | _thresholds(given, scores.null_odds)


def find_null_threshold(scores: ExampleScores) -> float:
    """The threshold on null_odds with the highest F1; of equals, the smallest.

    Only thresholds that can be applied count: examples with equal odds fall on the same side.
    Giving no answer at all is one of the choices (a threshold just below every odds).
    """
    order = np.argsort(scores.null_odds, kind="stable")
    odds = scores.null_odds[order]
    gain = np.cumsum((scores.f1 - scores.null_exact)[order])  # (examples,) of answering the first
    is_last = np.append(odds[1:] != odds[:-1], True)
    nothing = np.nextafter(odds[0], -np.inf)
    totals = np.concatenate([[0.0], gain[is_last]])
    return float(np.concatenate([[nothing], odds[is_last]])[int(np.argmax(totals))])


def score_predictions(
    predictions: Mapping[str, str],
    examples: pa.Table,
    *,
    null_odds: Mapping[str, float] | None = None,
    allow_missing: bool = False,
    language: Language | None = None,
) -> dict[str, float]:
    """The official figures of predictions (id → text, "" for no answer), 0 to 100.

    Keys: `exact`, `f1`, `total`; `HasAns_*` and `NoAns_*` where there are such examples;
    `exact_match` (v1.1's name) where every example has an answer; with `null_odds` (id → number,
    larger: no answer likelier) `best_exact`, `best_exact_thresh`, `best_f1`, `best_f1_thresh` as
    the official script finds them: of equal odds, those that `null_odds` has first come first.

    A `language` compares by MLQA's rules (`qa_core.normalizing`).

    Raises `DataError` listing predictions without an example and, unless `allow_missing`, ids
    without a prediction; allowed, these are scored as "" (right where there is no answer), with
    null odds of 0.
    """
    given = score_given(predictions, examples, allow_missing=allow_missing, language=language)
    if null_odds is None:
        return summarize_given(given)
    absent = find_missing(predictions, given.ids.tolist())
    without = dict.fromkeys(find_missing(null_odds, absent), 0.0)
    return summarize_given(given, null_odds={**null_odds, **without})


def summarize_given(
    given: GivenScores, *, null_odds: Mapping[str, float] | None = None
) -> dict[str, float]:
    """The official figures of scored predictions; `null_odds` as in `score_predictions`."""
    summary = _summary(given)
    if null_odds is None:
        return summary
    ids, odds_of = given.ids.tolist(), null_odds
    check_ids(odds_of, ids, what="null_odds", allow_missing=False)
    row_of = {example_id: row for row, example_id in enumerate(ids)}
    rows = np.array([row_of[example_id] for example_id in odds_of], np.int64)
    return summary | _thresholds(given.take(rows), np.array(list(odds_of.values()), np.float64))


def score_given(
    predictions: Mapping[str, str],
    examples: pa.Table,
    *,
    allow_missing: bool = False,
    language: Language | None = None,
) -> GivenScores:
    """Scores of single predictions, in the order of `examples`; see `score_predictions`."""
    ids = examples["id"].to_pylist()
    check_ids(predictions, ids, what="predictions", allow_missing=allow_missing)
    texts = [predictions.get(example_id, "") for example_id in ids]
    return _score_texts(texts, normalized_golds(examples, language=language), examples, language)


def find_missing(predictions: Mapping[str, object], ids: Sequence[str]) -> list[str]:
    """Those of `ids` that have no prediction, in their order."""
    return [example_id for example_id in ids if example_id not in predictions]


def check_ids(
    given: Mapping[str, object], ids: Sequence[str], *, what: str, allow_missing: bool
) -> None:
    """Raise `DataError` listing ids that nothing is given for, and what is given for no id."""
    missing = [] if allow_missing else find_missing(given, ids)
    unknown = sorted(given.keys() - set(ids))
    if not missing and not unknown:
        return
    parts = (("missing", missing), ("unknown", unknown))
    listed = [f"{len(n)} {k} ids ({', '.join(n[:IDS_SHOWN])})" for k, n in parts if n]
    remedies = []
    if unknown:
        remedies.append("leave out the unknown ids, or score them with their own data")
    if missing and what != "null_odds":
        remedies.append('allow the missing ones (allow_missing): they are scored as ""')
    expected = f"one for each of the {len(ids)} examples"
    raise DataError(" and ".join(listed), what, expected, "; ".join(remedies))


def gold_texts(examples: pa.Table, *, language: Language | None = None) -> list[list[str]]:
    """Accepted answers of each example that do not normalise to nothing; [""] without any."""
    lists = examples["answers"].combine_chunks().field("text").to_pylist()
    return [[text for text in texts if normalize_answer(text, language)] or [""] for texts in lists]


def normalized_golds(examples: pa.Table, *, language: Language | None = None) -> list[list[str]]:
    """The distinct `gold_texts` of each example, normalised; [""] without any."""
    lists = examples["answers"].combine_chunks().field("text").to_pylist()
    golds = []
    for texts in lists:
        normalized = {normalize_answer(text, language): None for text in dict.fromkeys(texts)}
        normalized.pop("", None)
        golds.append(list(normalized) or [""])
    return golds


def score_text(
    text: str, gold: Sequence[str], *, language: Language | None = None
) -> tuple[float, float]:
    """Exact match (0 or 1) and F1 (0 to 1) of a prediction: the best over the gold answers."""
    golds = [normalize_answer(answer, language) for answer in gold]
    return _score_normalized(normalize_answer(text, language), golds)


def word_f1(predicted: Sequence[str], gold: Sequence[str]) -> float:
    """F1 (0 to 1) of the words two normalised answers share, a repeated word counted as often.

    Without words on either side, whether both have none.
    """
    if not predicted or not gold:
        return float(not predicted and not gold)
    distinct, gold_distinct = set(predicted), set(gold)
    num_same = len(distinct & gold_distinct)
    if num_same == 0:
        return 0.0
    if len(distinct) + len(gold_distinct) < len(predicted) + len(gold):  # some word is repeated
        num_same = sum((Counter(predicted) & Counter(gold)).values())
    precision, recall = num_same / len(predicted), num_same / len(gold)
    return 2 * precision * recall / (precision + recall)


def _score_normalized(text: str, golds: Sequence[str]) -> tuple[float, float]:
    if text in golds:
        return 1.0, 1.0
    words = text.split()
    return 0.0, max([word_f1(words, answer.split()) for answer in golds])


def _score_texts(
    texts: Sequence[str],
    golds: Sequence[Sequence[str]],
    examples: pa.Table,
    language: Language | None,
) -> GivenScores:
    """Scores of `texts` by `normalized_golds`, row by row."""
    pairs = [
        _score_normalized(normalize_answer(text, language), gold)
        for text, gold in zip(texts, golds, strict=True)
    ]
    accepted = examples["answers"].combine_chunks().field("text")
    return GivenScores(
        ids=examples["id"].to_numpy(),
        has_answer=np.asarray(accepted.value_lengths()) > 0,
        is_text=np.array([bool(text) for text in texts], bool),
        exact=np.array([exact for exact, _ in pairs], np.float64),
        f1=np.array([f1 for _, f1 in pairs], np.float64),
    )


def _summary(given: GivenScores) -> dict[str, float]:
    if not len(given.ids):
        raise DataError("there are no examples to score", "scoring", "at least one example")
    everything = np.ones(len(given.ids), bool)
    has_answer = given.has_answer
    summary = {}
    for prefix, rows in (("", everything), ("HasAns_", has_answer), ("NoAns_", ~has_answer)):
        total = int(rows.sum())
        if total:
            summary[f"{prefix}exact"] = 100.0 * sum(given.exact[rows].tolist()) / total
            summary[f"{prefix}f1"] = 100.0 * sum(given.f1[rows].tolist()) / total
            summary[f"{prefix}total"] = total
    if has_answer.all():
        summary["exact_match"] = summary["exact"]
    return summary


def _thresholds(given: GivenScores, odds: NDArray[np.float64]) -> dict[str, float]:
    """The official search: start with no answer anywhere, add examples by rising odds."""
    order = np.argsort(odds, kind="stable")
    num_unanswerable = float((~given.has_answer).sum())
    summary = {}
    for name, scores in (("exact", given.exact), ("f1", given.f1)):
        change = np.where(given.has_answer, scores, np.where(given.is_text, -1.0, 0.0))[order]
        totals = np.cumsum(np.concatenate([[num_unanswerable], change]))  # (examples + 1,)
        best = int(np.argmax(totals))
        summary[f"best_{name}"] = 100.0 * float(totals[best]) / len(scores)
        summary[f"best_{name}_thresh"] = float(odds[order][best - 1]) if best else 0.0
    return summary
