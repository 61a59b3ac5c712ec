"""calibration: whether answers given with probability p are right p of the time.

The probability of an answer is the softmax of the candidates' scores, divided by a temperature,
at the candidate that is given. The temperature is fitted on one half of the examples and
measured on the other; which half an example is in follows from its id alone.
"""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from qa_core.scoring import ExampleScores, given_scores
from qa_core.slices import check_same_ids

NUM_BINS = 10
LEAST_EXAMPLES = 2  # in each half
LARGEST_LOG_TEMPERATURE = 3.0  # temperatures from 1/20 to 20
EXAMPLES_PER_BLOCK = 2**15  # whose probabilities are computed at once: some 20 MiB
SMALLEST_DOUBT = 1e-12  # of an answer that is as good as certain


@dataclass(frozen=True)
class GivenAnswers:
    """Which candidate was given to each example, and whether it was right."""

    scores: NDArray[np.float32]  # (candidates,) of one example after another
    splits: NDArray[np.int64]  # (examples + 1,) into scores; no example without a candidate
    chosen: NDArray[np.int64]  # (examples,) row of scores
    is_right: NDArray[np.bool_]  # (examples,) exact match

    def take(self, is_taken: NDArray[np.bool_]) -> "GivenAnswers":
        """The examples where `is_taken`, (examples,)."""
        sizes = np.diff(self.splits)
        kept = sizes[is_taken]
        splits = np.concatenate([[0], np.cumsum(kept)])
        return GivenAnswers(
            scores=self.scores[np.repeat(is_taken, sizes)],
            splits=splits,
            chosen=splits[:-1] + (self.chosen - self.splits[:-1])[is_taken],
            is_right=self.is_right[is_taken],
        )


def calibrate(
    scores: ExampleScores, facts: pa.Table, *, null_threshold: float | None
) -> dict[str, Any]:
    """How far the probabilities of the answers given can be believed, JSON-ready.

    `temperature`; `num_fitted`, `num_measured` and `num_left_out` examples (left out: those whose
    answer is none of the candidates); and of the half that is measured, `before` (temperature 1)
    and `after`: `error` (expected calibration error, 0 to 1) and `bins`, those that hold an
    answer: `low`, `high`, `total`, `confidence` (mean probability), `accuracy`.

    With fewer than 2 examples in either half the temperature is 1, and before and after are
    absent. Raises `DataError` where the rows of `scores` and `facts` have other ids.
    """
    check_same_ids(scores, facts)
    answers, is_candidate = given_answers(scores, facts, null_threshold=null_threshold)
    is_fitted = is_even(scores.ids[is_candidate])
    fitted, measured = answers.take(is_fitted), answers.take(~is_fitted)
    num_fitted, num_measured = len(fitted.chosen), len(measured.chosen)
    found: dict[str, Any] = {
        "temperature": 1.0,
        "num_fitted": num_fitted,
        "num_measured": num_measured,
        "num_left_out": len(scores.ids) - num_fitted - num_measured,
    }
    if min(num_fitted, num_measured) < LEAST_EXAMPLES:
        return found
    temperature = fit_temperature(fitted)
    return found | {
        "temperature": temperature,
        "before": reliability(answer_probability(measured), measured.is_right),
        "after": reliability(
            answer_probability(measured, temperature=temperature), measured.is_right
        ),
    }


def is_even(ids: NDArray[np.object_]) -> NDArray[np.bool_]:
    """Which ids have an even digest, (examples,): half of them, the same ones in every run."""
    digests = b"".join(hashlib.blake2b(name.encode(), digest_size=1).digest() for name in ids)
    return np.asarray(np.frombuffer(digests, np.uint8) % 2 == 0, np.bool_)


def given_answers(
    scores: ExampleScores, facts: pa.Table, *, null_threshold: float | None
) -> tuple[GivenAnswers, NDArray[np.bool_]]:
    """The answers that are among their candidates, and which examples they are of, (examples,).

    The null answer is given where null_odds > null_threshold, else the best span.
    """
    lists = facts["candidate_scores"].combine_chunks()
    sizes = np.asarray(lists.value_lengths()).astype(np.int64)
    null_rank = facts["null_rank"].to_numpy().astype(np.int64)
    is_null = np.zeros(len(sizes), bool)
    if null_threshold is not None:
        is_null = scores.null_odds > null_threshold
    rank = np.where(is_null, null_rank, null_rank == 0)  # the best span is first, or after null
    is_candidate = (rank >= 0) & (rank < sizes)
    splits = np.concatenate([[0], np.cumsum(sizes)])
    everything = GivenAnswers(
        scores=pc.list_flatten(lists).to_numpy(),
        splits=splits,
        chosen=splits[:-1] + rank,
        is_right=given_scores(scores, null_threshold=null_threshold).exact > 0,
    )
    return everything.take(is_candidate), is_candidate


def answer_probability(answers: GivenAnswers, *, temperature: float = 1.0) -> NDArray[np.float64]:
    """Softmax of each example's scores / temperature at its answer, (examples,)."""
    return np.exp(_log_probability(answers, temperature))


def fit_temperature(answers: GivenAnswers) -> float:
    """The temperature with the smallest cross entropy of right and wrong, 1/20 to 20.

    A search on a grid of log temperatures that is refined four times around the best, to 0.1 %;
    of equals the one that changes least, so that it is 1 where nothing can be learnt.
    """
    center, reach, num_points = 0.0, LARGEST_LOG_TEMPERATURE, 17
    for _ in range(5):
        grid = np.clip(
            center + np.linspace(-reach, reach, num_points),
            -LARGEST_LOG_TEMPERATURE,
            LARGEST_LOG_TEMPERATURE,
        )
        grid = grid[np.argsort(np.abs(grid), kind="stable")]
        losses = [_cross_entropy(answers, float(np.exp(point))) for point in grid]
        center = float(grid[int(np.argmin(losses))])
        reach, num_points = 2 * reach / (num_points - 1), 9
    return float(np.exp(center))


def reliability(probability: NDArray[np.float64], is_right: NDArray[np.bool_]) -> dict[str, Any]:
    """Ten bins of equal width and the expected calibration error; at least one answer."""
    number = np.minimum((probability * NUM_BINS).astype(np.int64), NUM_BINS - 1)  # (examples,)
    bins = []
    for place in np.unique(number).tolist():
        rows = number == place
        bins.append(
            {
                "low": place / NUM_BINS,
                "high": (place + 1) / NUM_BINS,
                "total": int(rows.sum()),
                "confidence": float(probability[rows].mean()),
                "accuracy": float(is_right[rows].mean()),
            }
        )
    apart = sum(row["total"] * abs(row["confidence"] - row["accuracy"]) for row in bins)
    return {"error": apart / len(probability), "bins": bins}


def _log_probability(answers: GivenAnswers, temperature: float) -> NDArray[np.float64]:
    found = np.empty(len(answers.chosen))
    for first in range(0, len(found), EXAMPLES_PER_BLOCK):
        rows = slice(first, min(first + EXAMPLES_PER_BLOCK, len(found)))
        splits = answers.splits[rows.start : rows.stop + 1]
        scores = answers.scores[splits[0] : splits[-1]].astype(np.float64)
        begin, sizes = splits[:-1] - splits[0], np.diff(splits)
        largest = np.maximum.reduceat(scores, begin)  # (rows,)
        scaled = (scores - np.repeat(largest, sizes)) / temperature  # (candidates,)
        sums = np.add.reduceat(np.exp(scaled), begin)  # (rows,)
        found[rows] = scaled[answers.chosen[rows] - splits[0]] - np.log(sums)
    return found


def _cross_entropy(answers: GivenAnswers, temperature: float) -> float:
    log_probability = _log_probability(answers, temperature)
    doubt = np.maximum(-np.expm1(log_probability), SMALLEST_DOUBT)
    return float(-np.where(answers.is_right, log_probability, np.log(doubt)).mean())
