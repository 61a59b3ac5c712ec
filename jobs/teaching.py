"""A teacher's logits of the training windows: computed once, kept beside the tokens, read by all.

`teacher-DIGEST/` in the folder of the tokens holds a table a piece of a shard: `start_logits` and
`end_logits`, one number a token, windows one after another. The digest is of the teacher's
content and of the windows' sizes.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from jobs.cluster import console
from jobs.configuration import TrainConfig
from jobs.models import check_model, model_digest, model_texts
from jobs.prepared import Prepared
from jobs.shard_scoring import piece_logits, piece_of
from jobs.token_shards import digest_text
from jobs.token_store import shard_file
from qa_core.errors import ModelError
from qa_core.feeding import WindowBlock
from qa_core.storage import is_file, join, read_table, write_table
from qa_core.tokenizing import load_tokenizer, tokenizer_digest

LOGITS = ("start_logits", "end_logits")


def find_teacher(config: TrainConfig, train: Prepared, *, use_gpu: bool) -> str | None:
    """Folder or URI of the teacher's logits, computed now where they are missing; None without."""
    named = config.distillation.teacher
    if named is None:
        return None
    teacher = check_model(named, config.features)
    check_tokenizer(teacher, train.store.tokenizer)
    digest = digest_text(json.dumps([model_digest(teacher), asdict(train.settings)]))
    folder = join(train.folder, f"teacher-{int(digest[0]) % 2**64:016x}")
    missing = [p for p in train.pieces if not is_file(shard_file(folder, "logits", p.name))]
    if missing:
        console.print(f"Computing the teacher's logits of {len(missing)} piece(s) of the data")
        write = partial(write_logits, folder=folder)
        logits = piece_logits(
            teacher,
            train,
            missing,
            use_gpu=use_gpu,
        )
        logits.map(write, num_cpus=0.25).take_all()
    return folder


def check_tokenizer(teacher: str, tokenizer: str) -> None:
    """Raise `ModelError` where a teacher does not have the student's tokens."""
    digests = [tokenizer_digest(load_tokenizer(model_texts(m))) for m in (teacher, tokenizer)]
    if digests[0] != digests[1]:
        raise ModelError(
            "the teacher's tokenizer is not the student's",
            where=teacher,
            expected=f"the tokenizer of {tokenizer}: logits are learnt token by token",
            remedy="take a teacher with the same vocabulary and tokenizer settings",
        )


def write_logits(row: dict[str, Any], *, folder: str) -> dict[str, Any]:
    """Keep the logits of one piece; its name."""
    columns = {name: pa.array(np.asarray(row[name], np.float32)) for name in LOGITS}
    piece = piece_of(row)
    write_table(shard_file(folder, "logits", piece.name), pa.table(columns))
    return {"piece": piece.name}


def teacher_blocks(
    blocks: Iterator[WindowBlock], train: Prepared, folder: str
) -> Iterator[WindowBlock]:
    """The blocks with the teacher's logits of their windows."""
    names: dict[str, list[str]] = {shard: [] for shard in train.shards}
    for piece in train.pieces:
        names[piece.shard].append(piece.name)
    nothing = pa.table({name: pa.array([], pa.float32()) for name in LOGITS})
    for shard, block in zip(train.shards, blocks, strict=True):
        tables = [read_table(shard_file(folder, "logits", name)) for name in names[shard]]
        table = pa.concat_tables([nothing, *tables])
        yield replace(block, teacher=tuple(table[name].to_numpy() for name in LOGITS))
