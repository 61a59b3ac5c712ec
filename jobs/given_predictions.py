"""Predictions made elsewhere: scored without a model, alone or against a run's own."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from jobs.artefacts import begin_run, check_run, write_analysis, write_json, write_report
from jobs.configuration import EvaluateConfig
from jobs.console import show_analysis, show_difference, show_scores, warn
from jobs.explored import write_explorer
from jobs.prepare import find_split
from jobs.token_pipeline import Split
from jobs.token_shards import DUPLICATE, DUPLICATE_DETAIL
from qa_core.analysis import analyse_given, compare_scores
from qa_core.errors import DataError
from qa_core.exploring import Explorer, explored_rows
from qa_core.normalizing import Language
from qa_core.reading import ReadBlock, check_rejected_fraction, read_blocks, reject_rows
from qa_core.schemas import REJECTIONS
from qa_core.scoring import (
    IDS_SHOWN,
    GivenScores,
    check_ids,
    find_missing,
    score_given,
    summarize_given,
)
from qa_core.slices import text_facts
from qa_core.storage import check_writable, digest_file, join, read_bytes, write_json_lines

EXAMPLES_PER_BLOCK = 4096  # contexts of so many are in memory at once


@dataclass
class SourceScores:
    """Scores of predictions for the questions of a split, as its files are read."""

    seen: set[str] = field(default_factory=set)  # ids of questions
    rejected: set[str] = field(default_factory=set)  # ids of records that cannot be used
    missing: list[str] = field(default_factory=list)  # ids without a prediction
    scores: list[GivenScores] = field(default_factory=list)
    facts: list[pa.Table] = field(default_factory=list)
    rejections: list[pa.Table] = field(default_factory=list)
    explorer: Explorer = field(default_factory=Explorer)
    num_read: int = 0

    @property
    def rejection_table(self) -> pa.Table:
        """The records that cannot be used, as `REJECTIONS`."""
        return pa.concat_tables([REJECTIONS.empty_table(), *self.rejections])

    @property
    def unusable(self) -> set[str]:
        """Ids of records alone that cannot be used: predictions for them are no strangers."""
        return self.rejected - self.seen


def evaluate_predictions(config: EvaluateConfig, run: str) -> None:
    """Score the file `config.predictions`; what there is without a model is written to `run`."""
    assert config.predictions is not None
    split = find_split(config.data, "dev")
    predictions = read_predictions(config.predictions)
    odds = None if config.null_odds is None else read_odds(config.null_odds)
    inputs = {"dev": split.digest, "predictions": digest_file(config.predictions).hex()[:16]}
    check_writable(run)
    check_run(run, config, inputs)
    given = score_sources(split, predictions, language=config.scoring.language)
    check_rejected_fraction(
        given.rejection_table,
        num_read=given.num_read,
        max_fraction=split.max_rejected_fraction,
    )
    check_given(given, predictions, config.predictions, allow_missing=config.allow_missing)
    begin_run(run, config, inputs)
    write_scores(config, run, given, odds)
    if config.compare is not None:
        compare_runs(config, run, split, GivenScores.joined(given.scores))
    write_report(run)


def write_scores(
    config: EvaluateConfig, run: str, given: SourceScores, odds: Mapping[str, float] | None
) -> None:
    """The files of a run without a model, and its scores on the terminal."""
    scores = GivenScores.joined(given.scores)
    if odds is not None:
        without = dict.fromkeys(given.missing, 0.0)
        odds = {k: v for k, v in {**without, **odds}.items() if k not in given.unusable}
    metrics = summarize_given(scores, null_odds=odds)
    analysis = analyse_given(scores, pa.concat_tables(given.facts))
    rejections = given.rejection_table
    write_json_lines(join(run, "rejections.jsonl"), rejections.to_pylist())
    write_analysis(run, analysis)
    write_explorer(run, given.explorer)
    write_json(join(run, "metrics.json"), metrics)
    show_scores(metrics, f"Scores of {config.predictions}")
    show_analysis(analysis)


def read_predictions(uri: str) -> dict[str, str]:
    """A file of predictions: id to text."""
    return read_object(uri, str, 'a text, the answer; "" for none')


def read_odds(uri: str) -> dict[str, float]:
    """A file of null odds: id to number."""
    return read_object(uri, (int, float), "a number")


def read_object(uri: str, kind: Any, expected: str) -> dict[str, Any]:
    """A JSON file that maps ids to values of a kind; `DataError` naming the first that is none."""
    try:
        found = json.loads(read_bytes(uri))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"not JSON ({error})", uri, "an object: id to value") from error
    if not isinstance(found, dict):
        raise DataError(f"JSON, but a {type(found).__name__}", uri, "an object: id to value")
    for name, value in found.items():
        if not isinstance(value, kind) or isinstance(value, bool):
            raise DataError(f"id {name!r} has {value!r}", uri, expected)
    return found


def score_sources(
    split: Split,
    predictions: Mapping[str, str],
    *,
    language: Language | None,
) -> SourceScores:
    """Predictions scored on the questions of a split, a block of its files at a time."""
    given = SourceScores()
    for source in split.sources:
        blocks = read_blocks(source, rules=split.rules, examples_per_block=EXAMPLES_PER_BLOCK)
        for block in blocks:
            examples = _new_examples(given, block)
            if len(examples):
                _score(given, examples, predictions, language)
    return given


def _new_examples(given: SourceScores, block: ReadBlock) -> pa.Table:
    """The questions of a block that had not come before, under the same id."""
    ids = block.examples["id"].to_pylist()
    is_new = []
    for name in ids:
        is_new.append(name not in given.seen)
        given.seen.add(name)
    repeated = np.flatnonzero(~np.array(is_new, bool)).tolist()
    duplicates = reject_rows(
        block.examples,
        repeated,
        records=block.records.tolist(),
        reason=DUPLICATE,
        detail=DUPLICATE_DETAIL,
    )
    given.rejections += [block.rejections, duplicates]
    given.rejected.update(block.rejections["id"].to_pylist())
    given.num_read += len(ids) + len(block.rejections)
    return block.examples.filter(pa.array(is_new, pa.bool_()))


def _score(
    given: SourceScores,
    examples: pa.Table,
    predictions: Mapping[str, str],
    language: Language | None,
) -> None:
    ids = examples["id"].to_pylist()
    given.missing += find_missing(predictions, ids)
    own = {name: predictions[name] for name in ids if name in predictions}
    scores = score_given(own, examples, allow_missing=True, language=language)
    facts = text_facts(examples, language=language)
    given.scores.append(scores)
    given.facts.append(facts)
    kept = pa.array(np.flatnonzero(given.explorer.wanted(examples["context"])))
    if len(kept):
        examples = examples.take(kept)
        answers = pa.table({"answer": [predictions.get(n, "") for n in examples["id"].to_pylist()]})
        order = np.argsort(scores.ids, kind="stable")
        by_id = {"given": scores.take(order), "facts": facts.take(pa.array(order))}
        given.explorer.add(explored_rows(examples, answers, **by_id))


def check_given(
    given: SourceScores, predictions: Mapping[str, str], uri: str, *, allow_missing: bool
) -> None:
    """Raise `DataError` where questions or predictions are without the other; warn if allowed."""
    known = {name: predictions[name] for name in predictions.keys() - given.unusable}
    check_ids(known, sorted(given.seen), what=uri, allow_missing=allow_missing)
    if not given.seen:
        raise DataError("there are no examples to score", "data.dev", "at least one example")
    if given.missing:
        listed = ", ".join(given.missing[:IDS_SHOWN])
        warn(
            f"{len(given.missing)} questions have no prediction and are scored as answered by "
            f"nothing ({listed})"
        )


def compare_runs(
    config: EvaluateConfig,
    run: str,
    split: Split,
    scores: GivenScores,
) -> None:
    """compare.json: what scores differ by from those of `config.compare`, and how sure that is."""
    assert config.compare is not None
    predictions = read_predictions(config.compare)
    given = score_sources(split, predictions, language=config.scoring.language)
    check_given(given, predictions, config.compare, allow_missing=config.allow_missing)
    others = GivenScores.joined(given.scores)
    others = others.take(np.flatnonzero(np.isin(others.ids.astype(str), scores.ids.astype(str))))
    compared = compare_scores(scores, others)
    write_json(join(run, "compare.json"), {"other": config.compare, **compared})
    show_difference(compared, config.compare)
