"""Scoring a checkpoint on prepared data: logits on actors, decoding and scoring in remote tasks.

One pipeline for the scores during training, the final evaluation and `jobs.evaluate`. Logits of
one shard at a time travel from an actor to the task that decodes them; what comes back is a few
numbers an example. Answers and scores are written below an output folder.
"""

import json
from dataclasses import asdict, fields
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import torch

from jobs.cluster import count_scorers, quiet_data
from jobs.configuration import DecodingSettings, FeatureSettings
from jobs.models import local_model
from jobs.prepared import Prepared, load_prepared, shard_windows
from jobs.token_store import cached_tokenizer, shard_file
from qa_core.batching import PaddingRules, padding_rules
from qa_core.decoding import decode_answers
from qa_core.errors import StorageError
from qa_core.inference import predict_logits
from qa_core.scoring import (
    ExampleScores,
    find_null_threshold,
    merge_scores,
    score_answers,
    summarize_scores,
)
from qa_core.storage import is_file, join, read_bytes, read_table, write_bytes, write_table
from qa_core.training import load_model

# One CPU scores: decoding takes a small part of what inference takes beside it.
INFERENCE_CPUS = 0.75
DECODING_CPUS = 0.25
SCORES = "scores.arrow"
METRICS = "metrics.json"


class ShardInference:
    """An actor that holds a model and gives the logits of shards."""

    def __init__(
        self, model: str, *, prepared: Prepared, rules: PaddingRules, use_gpu: bool
    ) -> None:
        torch.set_num_threads(1)  # Ray runs one of these for every CPU
        self.device = torch.device("cuda" if use_gpu else "cpu")
        self.prepared = prepared
        self.model = load_checkpoint(model).to(self.device)
        self.rules = rules

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Start and end logits of a shard, one number a token, windows one after another."""
        features = shard_windows(self.prepared, row["shard"]).features
        start, end = predict_logits(self.model, features, rules=self.rules, device=self.device)
        return {"shard": row["shard"], "start_logits": start, "end_logits": end}


def decode_shard(
    row: dict[str, Any],
    *,
    prepared: Prepared,
    out_folder: str,
    decoding: DecodingSettings,
    has_null: bool,
) -> list[dict[str, Any]]:
    """Write a shard's answers; the scores of its examples, a row each."""
    shard = row["shard"]
    windows = shard_windows(prepared, shard)
    examples = windows.examples
    answers = decode_answers(
        windows.features,
        np.asarray(row["start_logits"]),
        np.asarray(row["end_logits"]),
        examples=examples,
        **asdict(decoding),
        # Best spans now, the null answer among the candidates; the threshold comes when known.
        null_threshold=float("inf") if has_null else None,
    )
    write_table(shard_file(out_folder, "answers", shard), answers)
    rows: list[dict[str, Any]] = scores_table(score_answers(answers, examples)).to_pylist()
    return rows


def score_prepared(
    model: str,
    prepared: Prepared,
    *,
    out_folder: str,
    decoding: DecodingSettings,
    has_null: bool,
    use_gpu: bool,
) -> ExampleScores:
    """Scores of `model` on all examples; found on storage where they were made before.

    Runs on as many actors as there are CPUs (or GPUs) free for them. `has_null`: the null answer
    is one of the candidates.
    """
    done = join(out_folder, SCORES)
    if is_file(done):
        return scores_from_table(read_table(done))
    shards = [{"shard": shard} for shard in prepared.shards]
    logits = ray.data.from_items(shards, override_num_blocks=len(shards)).map(
        ShardInference,
        fn_constructor_args=(model,),
        fn_constructor_kwargs={
            "prepared": prepared,
            "rules": padding_rules(cached_tokenizer(prepared.store.tokenizer)),
            "use_gpu": use_gpu,
        },
        compute=ray.data.ActorPoolStrategy(
            min_size=1,
            max_size=min(count_scorers(use_gpu=use_gpu), len(shards)),
            max_tasks_in_flight_per_actor=2,
        ),
        num_cpus=INFERENCE_CPUS,
        num_gpus=1 if use_gpu else 0,
    )
    scored = logits.flat_map(
        partial(
            decode_shard,
            prepared=prepared,
            out_folder=out_folder,
            decoding=decoding,
            has_null=has_null,
        ),
        num_cpus=DECODING_CPUS,
    )
    tables = list(scored.iter_batches(batch_size=None, batch_format="pyarrow"))
    scores = merge_scores([scores_from_table(table) for table in tables])
    write_table(done, scores_table(scores))
    return scores


def summarize(scores: ExampleScores, prepared: Prepared, threshold: float | None) -> dict[str, Any]:
    """The figures of metrics.json; `threshold` None finds the best where one is needed."""
    if not prepared.has_unanswerable and threshold is None:
        return summarize_scores(scores, null_threshold=None)
    null_threshold = find_null_threshold(scores) if threshold is None else threshold
    summary: dict[str, Any] = dict(summarize_scores(scores, null_threshold=null_threshold))
    return summary | {"null_threshold": null_threshold}


def validate_checkpoint(
    checkpoint: Any,
    *,
    run: str,
    prepared_folder: str,
    tokenizer: str,
    features: dict[str, Any],
    epoch: int,
    decoding: dict[str, Any],
    use_gpu: bool,
) -> dict[str, Any]:
    """Score one of a training's checkpoints: Ray Train runs this beside the next steps.

    Writes the figures to `run/scoring/epoch-NNN/metrics.json`, where the learning curve reads
    them, and returns them for Ray Train to choose the best checkpoint by.
    """
    prepared = load_prepared(prepared_folder, tokenizer, FeatureSettings(**features))
    if prepared is None:
        raise StorageError("prepared data is gone", prepared_folder, "its manifest.json")
    quiet_data(has_bars=False)
    # With every CPU in training, scoring waits for its end, however long that is.
    ray.data.DataContext.get_current().execution_no_progress_timeout_s = -1
    summary = score_epoch(
        run,
        prepared,
        epoch=epoch,
        decoding=DecodingSettings(**decoding),
        use_gpu=use_gpu,
    )
    print(f"epoch {epoch}: exact {summary['exact']:.2f}, F1 {summary['f1']:.2f}", flush=True)
    return {"exact": summary["exact"], "f1": summary["f1"]}


def score_epoch(
    run: str, prepared: Prepared, *, epoch: int, decoding: DecodingSettings, use_gpu: bool
) -> dict[str, Any]:
    """The figures of one epoch's checkpoint, also written to its scoring folder."""
    name = epoch_name(epoch)
    out_folder = join(run, "scoring", name)
    scores = score_prepared(
        join(run, "checkpoints", name),
        prepared,
        out_folder=out_folder,
        decoding=decoding,
        has_null=prepared.has_unanswerable,
        use_gpu=use_gpu,
    )
    summary = {"epoch": epoch, **summarize(scores, prepared, None)}
    write_bytes(join(out_folder, METRICS), json.dumps(summary).encode())
    return summary


def read_curve(run: str, num_epochs: int) -> list[dict[str, Any]]:
    """The figures of every epoch scored so far, in order."""
    files = [join(run, "scoring", epoch_name(e), METRICS) for e in range(num_epochs + 1)]
    return [json.loads(read_bytes(file)) for file in files if is_file(file)]


def epoch_name(epoch: int) -> str:
    """Name of an epoch's checkpoint and scoring folders."""
    return f"epoch-{epoch:03d}"


def load_checkpoint(model: str) -> Any:
    """A model from a folder, a Hub name or a URI."""
    return load_model(local_model(model), seed=0)


def scores_table(scores: ExampleScores) -> pa.Table:
    """`ExampleScores` as a table, a column a field."""
    return pa.table({field.name: getattr(scores, field.name) for field in fields(scores)})


def scores_from_table(table: pa.Table) -> ExampleScores:
    """The inverse of `scores_table`."""
    return ExampleScores(**{f.name: table[f.name].to_numpy() for f in fields(ExampleScores)})
