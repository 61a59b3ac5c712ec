"""Scoring a checkpoint on prepared data: logits on actors, decoding and scoring in remote tasks.

One pipeline for the scores during training, the final evaluation and `jobs.evaluate`. Logits of
one piece at a time travel from an actor to the task that decodes them; what comes back is a few
numbers an example. Answers and scores are written below an output folder.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
import torch
from numpy.typing import NDArray

from jobs.cluster import count_scorers, this_node
from jobs.configuration import DecodingSettings, TrainConfig
from jobs.gold_store import read_golds
from jobs.models import model_here
from jobs.node_copies import on_this_node
from jobs.prepared import Piece, Prepared, piece_windows
from jobs.ranks import Ranks
from jobs.token_store import cached_tokenizer, shard_file
from qa_core.batching import PaddingRules, padding_rules
from qa_core.checkpoints import CHECKPOINTS, CheckpointFacts
from qa_core.decoding import decode_answers
from qa_core.fast_cpu import keep_freed_memory
from qa_core.inference import predict_logits, window_losses
from qa_core.normalizing import Language
from qa_core.schemas import EXAMPLES, FEATURES
from qa_core.scoring import (
    ExampleScores,
    find_null_threshold,
    score_answers,
    summarize_scores,
)
from qa_core.slices import FACTS, example_facts
from qa_core.storage import (
    is_file,
    join,
    list_files,
    read_bytes,
    read_table,
    write_bytes,
    write_table,
)
from qa_core.training import STATE_FILE, load_model

# One CPU scores: decoding takes a small part of what inference takes beside it.
INFERENCE_CPUS = 0.75
DECODING_CPUS = 0.25
# Decoding and scoring take a hundredth of inference's time on a CPU, a few tenths on a GPU.
ACTORS_PER_DECODING_TASK = 4
PIECES_AHEAD = 2  # whose logits wait for their decoding
SCORES = "scores.arrow"
METRICS = "metrics.json"
SCORING = "scoring"


class PieceInference:
    """An actor that holds a model and gives the logits of pieces of the data."""

    def __init__(
        self, model: str, *, prepared: Prepared, rules: PaddingRules, use_gpu: bool
    ) -> None:
        torch.set_num_threads(1)  # Ray runs one of these for every CPU
        keep_freed_memory()
        self.device = torch.device("cuda" if use_gpu else "cpu")
        self.prepared = prepared
        self.model = load_checkpoint(model).to(self.device)
        self.rules = rules

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Start and end logits of a piece, one number a token, windows one after another."""
        features = piece_windows(self.prepared, piece_of(row)).features
        start, end = predict_logits(self.model, features, rules=self.rules, device=self.device)
        return {**row, "start_logits": start, "end_logits": end}


@dataclass(frozen=True)
class Scored:
    """What a model makes of all examples of a split."""

    scores: ExampleScores
    facts: pa.Table  # `qa_core.slices.FACTS`, by id
    loss: float  # mean over windows, labelled with the first accepted answer


def piece_of(row: dict[str, Any]) -> Piece:
    """The piece that a row of `piece_logits` is of."""
    return Piece(str(row["shard"]), int(row["first"]), int(row["stop"]))


def piece_logits(
    model: str, prepared: Prepared, pieces: Sequence[Piece], *, use_gpu: bool
) -> ray.data.Dataset:
    """Logits of pieces, a row each: `start_logits`, `end_logits` and the fields of `Piece`.

    They are computed (`PieceInference`) when they are read; the order of the rows is open.
    """
    rows = [asdict(piece) for piece in pieces]
    return ray.data.from_items(rows, override_num_blocks=len(rows)).map(
        PieceInference,
        fn_constructor_args=(model,),
        fn_constructor_kwargs={
            "prepared": prepared,
            "rules": padding_rules(cached_tokenizer(prepared.store.tokenizer)),
            "use_gpu": use_gpu,
        },
        compute=ray.data.ActorPoolStrategy(
            min_size=1,
            max_size=len(rows),  # nodes that join later are used, too
            max_tasks_in_flight_per_actor=2,
        ),
        num_cpus=INFERENCE_CPUS,
        num_gpus=1 if use_gpu else 0,
    )


def decoding_tasks(num_actors: int) -> ray.data.TaskPoolStrategy:
    """Tasks at a time that decode what so many actors compute; more would only have to start."""
    return ray.data.TaskPoolStrategy(size=max(1, num_actors // ACTORS_PER_DECODING_TASK))


def decode_piece(
    rows: dict[str, NDArray[Any]],
    *,
    prepared: Prepared,
    out_folder: str,
    decoding: DecodingSettings,
    language: Language | None,
    has_null: bool,
) -> pa.Table:
    """Write a piece's answers; its examples by id, a row each.

    A row has the fields of `ExampleScores`, the loss of the example's windows (`loss_sum` and
    `loss_count`) and its `qa_core.slices.FACTS`.
    """
    row = {name: column[0] for name, column in rows.items()}
    piece = piece_of(row)
    windows = piece_windows(prepared, piece)
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
    write_table(shard_file(out_folder, "answers", piece.name), answers)
    golds = read_golds(prepared.store, piece.shard, windows.rows, language=language)
    scores = scores_table(score_answers(answers, examples, golds=golds, language=language))  # by id
    losses = pa.table({"ids": features["example_id"], "loss": window_losses(features, start, end)})
    by_id = losses.group_by("ids").aggregate([("loss", "sum"), ("loss", "count")]).sort_by("ids")
    example = windows.planned.windows.example
    facts = example_facts(
        answers,
        examples,
        golds=golds,
        num_windows=np.bincount(example, minlength=len(examples)),
        context_tokens=windows.encoded.context_lengths,
        language=language,
    ).sort_by("id")
    columns = {**_columns(scores), **_columns(by_id), **_columns(facts)}
    return pa.table(columns)


def _columns(table: pa.Table) -> dict[str, pa.ChunkedArray]:
    return dict(zip(table.column_names, table.columns, strict=True))


def score_prepared(
    model: str,
    prepared: Prepared,
    *,
    out_folder: str,
    decoding: DecodingSettings,
    language: Language | None,
    has_null: bool,
    use_gpu: bool,
) -> Scored:
    """Scores and loss of `model` on all examples; found on storage where they were made before.

    Runs on as many actors as there are CPUs (or GPUs) free for them. `has_null`: the null answer
    is one of the candidates. What comes back is a few hundred bytes an example.
    """
    done = join(out_folder, SCORES)
    if is_file(done):
        return load_scored(out_folder)
    logits = piece_logits(model, prepared, prepared.pieces, use_gpu=use_gpu)
    scored = logits.map_batches(
        partial(
            decode_piece,
            prepared=prepared,
            out_folder=out_folder,
            decoding=decoding,
            language=language,
            has_null=has_null,
        ),
        batch_size=1,
        batch_format="numpy",
        compute=decoding_tasks(count_scorers(use_gpu=use_gpu)),
        num_cpus=DECODING_CPUS,
    )
    tables = list(scored.iter_batches(batch_size=None, batch_format="pyarrow"))
    table = pa.concat_tables(tables).sort_by("ids")
    write_table(done, table)
    return scored_from_table(table)


def score_on_ranks(
    model: Any,
    prepared: Prepared,
    *,
    ranks: Ranks,
    decoder: Any,
    rules: PaddingRules,
    out_folder: str,
    decoding: DecodingSettings,
    language: Language | None,
) -> Scored:
    """`score_prepared` for a model that the ranks of a training have in memory.

    Each rank computes the logits of its share of the pieces; `decoder` (of `start_decoder`)
    decodes and scores them.
    What is there already is not scored again.
    """
    done = join(out_folder, SCORES)
    if ranks.from_first(is_file(done)):
        return load_scored(out_folder)
    rank, world_size = ranks.process.rank, ranks.process.world_size
    decode = partial(
        decode_piece,
        prepared=prepared,
        out_folder=out_folder,
        decoding=decoding,
        language=language,
        has_null=prepared.has_unanswerable,
    )
    near = on_this_node(prepared, is_first=ranks.is_first_on_node, wait=ranks.wait)
    tables: list[pa.Table] = []
    pending: list[Any] = []
    for piece in prepared.pieces[rank::world_size]:
        features = piece_windows(near, piece).features
        start, end = predict_logits(model, features, rules=rules, device=ranks.process.device)
        row = {**asdict(piece), "start_logits": start, "end_logits": end}
        pending.append(decoder.decode.remote(decode, row))
        if len(pending) > PIECES_AHEAD:
            tables.append(ray.get(pending.pop(0)))
    tables += ray.get(pending)
    if world_size > 1:
        if tables:
            write_table(shard_file(out_folder, "scores", f"{rank:04d}"), pa.concat_tables(tables))
        ranks.wait()
        files = [shard_file(out_folder, "scores", f"{other:04d}") for other in range(world_size)]
        tables = [read_table(file) for file in files if is_file(file)]
    table = pa.concat_tables(tables).sort_by("ids")
    if rank == 0:
        write_table(done, table)
    return scored_from_table(table)


# Decoding takes a hundredth of the time of the logits, whose process waits for the last of it.
@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
class Decoder:
    """A process that decodes and scores pieces; to start one takes longer than most of its work."""

    def __init__(self) -> None:
        none = np.zeros(0, np.float32)  # has the search compiled, or loaded, before it is needed
        decode_answers(FEATURES.empty_table(), none, none, examples=EXAMPLES.empty_table())

    def decode(self, decode: Callable[[dict[str, Any]], pa.Table], row: dict[str, Any]) -> pa.Table:
        """`decode_piece` of one piece."""
        return decode({name: [value] for name, value in row.items()})


def start_decoder() -> Any:
    """A `Decoder` on this node, which ends when nobody has it any more."""
    return Decoder.options(scheduling_strategy=this_node()).remote()  # type: ignore[attr-defined]


def summarize(scored: Scored, prepared: Prepared, threshold: float | None) -> dict[str, Any]:
    """The figures of metrics.json; `threshold` None finds the best where one is needed."""
    if not prepared.has_unanswerable and threshold is None:
        summary: dict[str, Any] = dict(summarize_scores(scored.scores, null_threshold=None))
        return summary | {"eval_loss": scored.loss}
    null_threshold = find_null_threshold(scored.scores) if threshold is None else threshold
    summary = dict(summarize_scores(scored.scores, null_threshold=null_threshold))
    return summary | {"null_threshold": null_threshold, "eval_loss": scored.loss}


def load_scored(folder: str) -> Scored:
    """What `score_prepared` left in a folder."""
    return scored_from_table(read_table(join(folder, SCORES)))


def score_checkpoint(
    run: str,
    prepared: Prepared,
    facts: CheckpointFacts,
    *,
    config: TrainConfig,
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
        decoding=config.decoding,
        language=config.scoring.language,
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
    with model_here(model, leave_out=(STATE_FILE,)) as folder:
        return load_model(folder, seed=0)


def scores_table(scores: ExampleScores) -> pa.Table:
    """`ExampleScores` as a table, a column a field."""
    return pa.table({field.name: getattr(scores, field.name) for field in fields(scores)})


def scored_from_table(table: pa.Table) -> Scored:
    """The rows of all shards, sorted by id, as what they say together."""
    scores = ExampleScores(**{f.name: table[f.name].to_numpy() for f in fields(ExampleScores)})
    num_windows = int(pc.sum(table["loss_count"]).as_py())
    return Scored(
        scores, table.select(FACTS.names), math.fsum(table["loss_sum"].to_pylist()) / num_windows
    )
