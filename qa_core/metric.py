"""The official figures as a metric of the `evaluate` library: no download, no script, no files.

>>> metric = ExtractiveQA()
>>> found = metric.compute(
...     predictions=[{"id": "1", "prediction_text": "in 1912"}],
...     references=[{"id": "1", "answers": {"text": ["1912"], "answer_start": [7]}}],
... )
>>> round(found["f1"], 2)
66.67
"""

from collections.abc import Mapping, Sequence
from tempfile import TemporaryDirectory
from typing import Any

import evaluate
import pyarrow as pa
from datasets import Features, List, Value

from qa_core.errors import DataError
from qa_core.normalizing import Language
from qa_core.schemas import EXAMPLES
from qa_core.scoring import score_predictions

PROBABILITY = "no_answer_probability"

FEATURES = Features(
    {
        "predictions": {
            "id": Value("string"),
            "prediction_text": Value("string"),  # "" for no answer
            PROBABILITY: Value("float64"),  # may be left out; any number that rises with it does
        },
        "references": {
            "id": Value("string"),
            "answers": {"text": List(Value("string")), "answer_start": List(Value("int32"))},
        },
    }
)

INPUTS = """
predictions: a list of {"id", "prediction_text"} ("" for no answer), and where there are questions
    without an answer "no_answer_probability", of all or of none.
references: a list of {"id", "answers": {"text", "answer_start"}}; empty lists: no answer.
Gives the keys of qa_core.scoring.score_predictions, 0 to 100; the best thresholds where there are
probabilities.
"""


class ExtractiveQA(evaluate.Metric):  # type: ignore[misc]  # evaluate ships no types
    """Exact match and F1 of SQuAD v1.1 and v2.0; with a `language` by MLQA's rules.

    What is added is kept in memory; nothing is written.
    """

    def __init__(self, language: Language | None = None) -> None:
        self.language = language
        with TemporaryDirectory() as unused:  # evaluate makes a cache folder, needed or not
            super().__init__(keep_in_memory=True, cache_dir=unused)

    def add(self, *, prediction: Mapping[str, Any], reference: Mapping[str, Any]) -> None:
        """Add one prediction and its reference."""
        super().add(prediction=_complete(prediction), reference=reference)

    def add_batch(
        self, *, predictions: Sequence[Mapping[str, Any]], references: Sequence[Mapping[str, Any]]
    ) -> None:
        """Add predictions and their references."""
        complete = [_complete(prediction) for prediction in predictions]
        super().add_batch(predictions=complete, references=references)

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Exact match and F1 of extractive question answering, SQuAD's rules.",
            citation="Rajpurkar et al. 2016, 2018; Lewis et al. 2020 for the languages.",
            features=FEATURES,
            inputs_description=INPUTS,
        )

    def _compute(
        self, *, predictions: Sequence[Mapping[str, Any]], references: Sequence[Mapping[str, Any]]
    ) -> dict[str, float]:
        fields = [EXAMPLES.field("id"), EXAMPLES.field("answers")]
        return score_predictions(
            _by_id(predictions, "prediction_text"),
            pa.Table.from_pylist(list(references), schema=pa.schema(fields)),
            null_odds=_null_odds(predictions),
            language=self.language,
        )


def _complete(prediction: Mapping[str, Any]) -> dict[str, Any]:
    return {PROBABILITY: None, **prediction}


def _null_odds(predictions: Sequence[Mapping[str, Any]]) -> dict[str, float] | None:
    without = [row["id"] for row in predictions if row[PROBABILITY] is None]
    if len(without) == len(predictions):
        return None
    if without:
        raise DataError(
            f"{len(without)} of {len(predictions)} predictions have none (first: {without[0]})",
            where=PROBABILITY,
            expected="one for every prediction, or for none",
        )
    return _by_id(predictions, PROBABILITY)


def _by_id(predictions: Sequence[Mapping[str, Any]], name: str) -> dict[str, Any]:
    found = {row["id"]: row[name] for row in predictions}
    if len(found) < len(predictions):
        raise DataError(
            f"{len(predictions) - len(found)} repeated ids",
            where="predictions",
            expected="one prediction an id",
        )
    return found
