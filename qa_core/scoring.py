"""score: answers + gold → exact match and F1, by the rules of the official SQuAD scripts.

Normalisation and token overlap are those of SQuAD v2.0's script (v1.1's, but for a gold answer
that normalises to nothing, which v2.0 leaves out). What crosses workers is `ExampleScores`: a
few numbers an example, joined in any order (`merge`), about 50 bytes each.
"""

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from qa_core.decoding import null_odds
from qa_core.errors import DataError

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


def merge_scores(parts: Sequence[ExampleScores]) -> ExampleScores:
    """All parts in one, sorted by id; the order of the parts does not matter."""
    names = list(ExampleScores.__dataclass_fields__)
    columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    order = np.argsort(columns["ids"], kind="stable")
    return ExampleScores(**{name: column[order] for name, column in columns.items()})


def score_answers(answers: pa.Table, examples: pa.Table) -> ExampleScores:
    """Scores of best spans (decoded without, or before, a null threshold), row by row."""
    texts = answers["text"].to_pylist()
    golds = gold_texts(examples)
    pairs = [score_text(text, gold) for text, gold in zip(texts, golds, strict=True)]
    scores = ExampleScores(
        ids=examples["id"].to_numpy(),
        has_answer=_has_answer(examples),
        is_text=np.array([bool(text) for text in texts], bool),
        exact=np.array([exact for exact, _ in pairs], np.float64),
        f1=np.array([f1 for _, f1 in pairs], np.float64),
        null_exact=np.array([float("" in gold) for gold in golds], np.float64),
        null_odds=null_odds(answers),
    )
    return merge_scores([scores])


def summarize_scores(scores: ExampleScores, *, null_threshold: float | None) -> dict[str, float]:
    """The official figures, 0 to 100, as `score_predictions` would give them for the answers.

    With a null_threshold, the null answer stands where null_odds exceed it, and the best
    thresholds are reported too.
    """
    is_null = np.zeros(len(scores.ids), bool)
    if null_threshold is not None:
        is_null = scores.null_odds > null_threshold
    exact = np.where(is_null, scores.null_exact, scores.exact)
    f1 = np.where(is_null, scores.null_exact, scores.f1)
    summary = _summary(exact, f1, scores.has_answer)
    if null_threshold is None:
        return summary
    is_text = scores.is_text & ~is_null
    return summary | _best_thresholds(exact, f1, is_text, scores.has_answer, scores.null_odds)


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
) -> dict[str, float]:
    """The official figures of predictions (id → text, "" for no answer), 0 to 100.

    Keys: `exact`, `f1`, `total`; `HasAns_*` and `NoAns_*` where there are such examples;
    `exact_match` (v1.1's name) where every example has an answer; with `null_odds` (id → number,
    larger: no answer likelier) `best_exact`, `best_exact_thresh`, `best_f1`, `best_f1_thresh` as
    the official script finds them.

    Raises `DataError` listing ids without a prediction and predictions without an example.
    """
    ids = examples["id"].to_pylist()
    _check_ids(predictions, ids, what="predictions")
    texts = [predictions[example_id] for example_id in ids]
    golds = gold_texts(examples)
    pairs = [score_text(text, gold) for text, gold in zip(texts, golds, strict=True)]
    exact = np.array([pair[0] for pair in pairs], np.float64)
    f1 = np.array([pair[1] for pair in pairs], np.float64)
    summary = _summary(exact, f1, _has_answer(examples))
    if null_odds is None:
        return summary
    _check_ids(null_odds, ids, what="null_odds")
    odds = np.array([null_odds[example_id] for example_id in ids], np.float64)
    is_text = np.array([bool(text) for text in texts], bool)
    return summary | _best_thresholds(exact, f1, is_text, _has_answer(examples), odds)


def gold_texts(examples: pa.Table) -> list[list[str]]:
    """Accepted answers of each example that do not normalise to nothing; [""] without any."""
    lists = examples["answers"].combine_chunks().field("text").to_pylist()
    return [[text for text in texts if normalize_answer(text)] or [""] for texts in lists]


def score_text(text: str, gold: Sequence[str]) -> tuple[float, float]:
    """Exact match (0 or 1) and F1 (0 to 1) of a prediction: the best over the gold answers."""
    normalized = normalize_answer(text)
    golds = [normalize_answer(answer) for answer in gold]
    exact = float(normalized in golds)
    return exact, max(_f1(normalized.split(), answer.split()) for answer in golds)


_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize_answer(text: str) -> str:
    """Lower case without ASCII punctuation, English articles and repeated white space.

    >>> normalize_answer("The  Harbour-Bridge, 1912.")
    'harbourbridge 1912'
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def _f1(predicted: list[str], gold: list[str]) -> float:
    if not predicted or not gold:
        return float(predicted == gold)
    num_same = sum((Counter(predicted) & Counter(gold)).values())
    if num_same == 0:
        return 0.0
    precision, recall = num_same / len(predicted), num_same / len(gold)
    return 2 * precision * recall / (precision + recall)


def _has_answer(examples: pa.Table) -> NDArray[np.bool_]:
    texts = examples["answers"].combine_chunks().field("text")
    return np.asarray(texts.value_lengths()) > 0


def _summary(
    exact: NDArray[np.float64], f1: NDArray[np.float64], has_answer: NDArray[np.bool_]
) -> dict[str, float]:
    if not len(exact):
        raise DataError("there are no examples to score", "scoring", "at least one example")
    everything = np.ones(len(exact), bool)
    summary = {}
    for prefix, rows in (("", everything), ("HasAns_", has_answer), ("NoAns_", ~has_answer)):
        if rows.any():
            summary[f"{prefix}exact"] = 100.0 * float(exact[rows].sum()) / int(rows.sum())
            summary[f"{prefix}f1"] = 100.0 * float(f1[rows].sum()) / int(rows.sum())
            summary[f"{prefix}total"] = int(rows.sum())
    if has_answer.all():
        summary["exact_match"] = summary["exact"]
    return summary


def _best_thresholds(
    exact: NDArray[np.float64],
    f1: NDArray[np.float64],
    is_text: NDArray[np.bool_],
    has_answer: NDArray[np.bool_],
    odds: NDArray[np.float64],
) -> dict[str, float]:
    """The official search: start with no answer anywhere, add examples by rising odds."""
    order = np.argsort(odds, kind="stable")
    summary = {}
    for name, scores in (("exact", exact), ("f1", f1)):
        change = np.where(has_answer, scores, np.where(is_text, -1.0, 0.0))[order]
        totals = float((~has_answer).sum()) + np.concatenate([[0.0], np.cumsum(change)])
        best = int(np.argmax(totals))
        summary[f"best_{name}"] = 100.0 * float(totals[best]) / len(scores)
        summary[f"best_{name}_thresh"] = float(odds[order][best - 1]) if best else 0.0
    return summary


def _check_ids(given: Mapping[str, object], ids: Sequence[str], *, what: str) -> None:
    missing = [example_id for example_id in ids if example_id not in given]
    unknown = sorted(set(given) - set(ids))
    if missing or unknown:
        parts = (("missing", missing), ("unknown", unknown))
        listed = [f"{len(n)} {k} ids ({', '.join(n[:IDS_SHOWN])})" for k, n in parts if n]
        raise DataError(" and ".join(listed), what, f"one for each of the {len(ids)} examples")
