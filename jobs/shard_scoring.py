"""Scoring a checkpoint on prepared data: logits on actors, decoding and scoring in remote tasks.

One pipeline for the scores during training, the final evaluation and `jobs.evaluate`. Logits of
one shard at a time travel from an actor to the task that decodes them; what comes back is a few
numbers an example. Answers and scores are written below an output folder.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
import torch

from jobs.cluster import count_scorers
from jobs.configuration import DecodingSettings
from jobs.models import local_model
from jobs.prepared import Prepared, shard_windows
from jobs.token_store import cached_tokenizer, shard_file
from qa_core.batching import PaddingRules, padding_rules
from qa_core.checkpoints import CHECKPOINTS, CheckpointFacts
from qa_core.decoding import decode_answers
from qa_core.inference import predict_logits, window_losses
from qa_core.scoring import (
    ExampleScores,
    find_null_threshold,
    score_answers,
    summarize_scores,
)
from qa_core.storage import (
    is_file,
    join,
    list_files,
    read_bytes,
    read_table,
    write_bytes,
    write_table,
)
from qa_core.training import load_model

# One CPU scores: decoding takes a small part of what inference takes beside it.
INFERENCE_CPUS = 0.75
DECODING_CPUS = 0.25
SCORES = "scores.arrow"
METRICS = "metrics.json"
SCORING = "scoring"


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


@dataclass(frozen=True)
class Scored:
    """What a model makes of all examples of a split."""

    scores: ExampleScores
    loss: float  # mean over windows, labelled with the first accepted answer


def shard_logits(
    model: str, prepared: Prepared, shards: Sequence[str], *, use_gpu: bool, num_actors: int
) -> ray.data.Dataset:
    """Logits of shards (`ShardInference`), a row each, computed when they are read."""
    rows = [{"shard": shard} for shard in shards]
    return ray.data.from_items(rows, override_num_blocks=len(rows)).map(
        ShardInference,
        fn_constructor_args=(model,),
        fn_constructor_kwargs={
            "prepared": prepared,
            "rules": padding_rules(cached_tokenizer(prepared.store.tokenizer)),
            "use_gpu": use_gpu,
        },
        compute=ray.data.ActorPoolStrategy(
            min_size=1,
            max_size=min(num_actors, len(rows)),
            max_tasks_in_flight_per_actor=2,
        ),
        num_cpus=INFERENCE_CPUS,
        num_gpus=1 if use_gpu else 0,
    )


def decode_shard(
    row: dict[str, Any],
    *,
    prepared: Prepared,
    out_folder: str,
    decoding: DecodingSettings,
    has_null: bool,
) -> list[dict[str, Any]]:
    """Write a shard's answers; the scores of its examples and their windows' loss, a row each."""
    shard = row["shard"]
    windows = shard_windows(prepared, shard)
    examples, features = windows.examples, windows.features
    start, end = (np.asarray(row[name]) for name in ("start_logits", "end_logits"))
    answers = decode_answers(
        features,
        start,
        end,
        examples=examples,
        **asdict(decoding),
        # Best spans now, the null answer among the candidates; the threshold comes when known.
        null_threshold=float("inf") if has_null else None,
    )
    write_table(shard_file(out_folder, "answers", shard), answers)
    scores = scores_table(score_answers(answers, examples))  # by id
    losses = pa.table({"ids": features["example_id"], "loss": window_losses(features, start, end)})
    by_id = losses.group_by("ids").aggregate([("loss", "sum"), ("loss", "count")]).sort_by("ids")
    rows: list[dict[str, Any]] = scores.join(by_id, "ids").sort_by("ids").to_pylist()
    return rows


def score_prepared(
    model: str,
    prepared: Prepared,
    *,
    out_folder: str,
    decoding: DecodingSettings,
    has_null: bool,
    use_gpu: bool,
) -> Scored:
    """Scores and loss of `model` on all examples; found on storage where they were made before.

    Runs on as many actors as there are CPUs (or GPUs) free for them. `has_null`: the null answer
    is one of the candidates.
    """
    done = join(out_folder, SCORES)
    if is_file(done):
        return scored_from_table(read_table(done))
    logits = shard_logits(
        model,
        prepared,
        prepared.shards,
        use_gpu=use_gpu,
        num_actors=count_scorers(use_gpu=use_gpu),
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
    table = pa.concat_tables(tables).sort_by("ids")
    write_table(done, table)
    return scored_from_table(table)


def summarize(scored: Scored, prepared: Prepared, threshold: float | None) -> dict[str, Any]:
    """The figures of metrics.json; `threshold` None finds the best where one is needed."""
    if not prepared.has_unanswerable and threshold is None:
        summary: dict[str, Any] = dict(summarize_scores(scored.scores, null_threshold=None))
        return summary | {"eval_loss": scored.loss}
    null_threshold = find_null_threshold(scored.scores) if threshold is None else threshold
    summary = dict(summarize_scores(scored.scores, null_threshold=null_threshold))
    return summary | {"null_threshold": null_threshold, "eval_loss": scored.loss}


def score_checkpoint(
    run: str,
    prepared: Prepared,
    facts: CheckpointFacts,
    *,
    decoding: DecodingSettings,
    use_gpu: bool,
) -> dict[str, Any]:
    """The figures of one of a training's checkpoints.

    Also written to `run/scoring/step-NNNNNNNN/metrics.json`, where the learning curve reads them.
    """
    out_folder = join(run, SCORING, facts.name)
    scored = score_prepared(
        join(run, CHECKPOINTS, facts.name),
        prepared,
        out_folder=out_folder,
        decoding=decoding,
        has_null=prepared.has_unanswerable,
        use_gpu=use_gpu,
    )
    place = {"step": facts.step, "epoch": facts.epoch}
    summary = {**place, **summarize(scored, prepared, None)}
    write_bytes(join(out_folder, METRICS), json.dumps(summary).encode())
    return summary


def read_curve(run: str) -> list[dict[str, Any]]:
    """The figures of every checkpoint scored so far, by step."""
    files = [file for file in list_files(join(run, SCORING)) if file.endswith(f"/{METRICS}")]
    return sorted((json.loads(read_bytes(file)) for file in files), key=lambda row: row["step"])


def load_checkpoint(model: str) -> Any:
    """A model from a folder, a Hub name or a URI."""
    return load_model(local_model(model), seed=0)


def scores_table(scores: ExampleScores) -> pa.Table:
    """`ExampleScores` as a table, a column a field."""
    return pa.table({field.name: getattr(scores, field.name) for field in fields(scores)})


def scored_from_table(table: pa.Table) -> Scored:
    """The rows of all shards, sorted by id, as what they say together."""
    scores = ExampleScores(**{f.name: table[f.name].to_numpy() for f in fields(ExampleScores)})
    num_windows = int(pc.sum(table["loss_count"]).as_py())
    return Scored(scores, math.fsum(table["loss_sum"].to_pylist()) / num_windows)
