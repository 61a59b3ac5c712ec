"""One setting of a sweep as the question-answering notebook and run_qa have it, from data to score.

    python -m benchmarks.notebook_sweep --train reddit.json --dev new_wiki.json --model embedded

Who tries another max_length there starts the script again: both files are read and tokenized anew,
windows are padded to max_length, transformers' `Trainer` trains and predicts, and a Python loop
finds the answers. Here the same is one function, and a process of its own around it; nothing is
kept from one setting to the next. The peer needs the extra `benchmarks`.
"""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import Connection
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.compute as pc
import torch
from jsonargparse import ArgumentParser
from transformers import Trainer, TrainingArguments, default_data_collator
from transformers import logging as transformers_logging
from transformers.trainer_callback import PrinterCallback

from benchmarks.figures import show_figures, write_figures
from benchmarks.notebook_decoding import postprocess
from benchmarks.notebook_features import map_features, notebook_dataset
from benchmarks.notebook_training import arguments
from benchmarks.sides import Side
from benchmarks.training_loop import BATCH, DEFAULTS, WINDOW
from jobs.models import resolve_model
from qa_core.reading import read_examples
from qa_core.scoring import score_predictions
from qa_core.tokenizing import load_tokenizer
from qa_core.training import load_model

NULL_THRESHOLD = 0.0  # run_qa's, where the data has questions without an answer
PATHS = ("model", "train", "dev")  # of a machine: they stay out of files of figures


@dataclass(frozen=True)
class NotebookTask:
    """One setting; what is not said is as in jobs.train."""

    model: str
    """Folder of the encoder; on the command line also "embedded"."""
    train: str | list[str]
    """SQuAD JSON to learn from, a file or a list of files."""
    dev: str | list[str]
    """SQuAD JSON to score on, likewise."""
    max_length: int = WINDOW.max_length
    """Tokens that every window is padded to."""
    doc_stride: int = WINDOW.doc_stride
    """Tokens that neighbouring windows share."""
    num_epochs: int = DEFAULTS.num_epochs
    """Times every window is trained on."""
    batch_size: int = BATCH
    """Windows in a step, and in a batch of predicting."""
    learning_rate: float = DEFAULTS.learning_rate
    """Peak of the linear schedule."""
    warmup_ratio: float = DEFAULTS.warmup_ratio
    """Part of all steps; below 1."""
    weight_decay: float = DEFAULTS.weight_decay
    """AdamW's."""
    max_grad_norm: float = DEFAULTS.max_grad_norm
    """Gradients are scaled down to this norm."""
    seed: int = DEFAULTS.seed
    """Of the span head, the order and the dropout."""
    threads: int = 2
    """Of torch; the tokenizer takes every core."""


def main() -> None:
    """Run one setting; see the module."""
    parser = ArgumentParser(description="One setting of a sweep, the notebook's way.")
    parser.add_class_arguments(NotebookTask)
    parser.add_argument("--json", type=str | None, help="where to write the figures, too")
    given = parser.parse_args().as_dict()
    file = given.pop("json")
    task = NotebookTask(**given)
    figures = run_setting_apart(replace(task, model=resolve_model(task.model)))
    show_figures("The notebook's way, one setting", figures)
    settings = {key: value for key, value in asdict(task).items() if key not in PATHS}
    write_figures(file, settings | figures)


def run_setting_apart(task: NotebookTask) -> dict[str, Any]:
    """`run_setting` in a process of its own; `seconds` are from its start to its end."""
    started = time.perf_counter()
    with Side(_setting_side, task) as side:
        figures: dict[str, Any] = side.answer()
    return figures | {"seconds": time.perf_counter() - started}


def _setting_side(connection: Connection, task: NotebookTask) -> None:
    connection.send(run_setting(task))


def run_setting(task: NotebookTask) -> dict[str, Any]:
    """Train and score; f1, exact, counts and seconds.

    Windows and tokens are those trained on, each epoch counted; those predicted are not among
    them. `num_tokenizations` are passes over the texts of a file or list of files, whose UTF-8
    bytes are `tokenized_bytes`. `seconds` also cover reading, loading the model and counting.
    Sets torch's threads and silences two libraries in this process.
    """
    started = time.perf_counter()
    _set_up_process(task.threads)
    figures: dict[str, Any] = {"f1": 0.0, "exact": 0.0}  # shown first
    (train, train_rejected), (dev, dev_rejected) = map(read_examples, (task.train, task.dev))
    figures["num_rejected"] = len(train_rejected) + len(dev_rejected)
    with _timed(figures, "tokenizing_seconds"):
        tokenizer, sizes = load_tokenizer(task.model), (task.max_length, task.doc_stride)
        train_windows = map_features(notebook_dataset(train), "train", tokenizer, sizes)
        dev_windows = map_features(notebook_dataset(dev), "validation", tokenizer, sizes)
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(task, train_windows, folder)
        with _timed(figures, "training_seconds"):
            trainer.train()
        with _timed(figures, "evaluating_seconds"):
            scores = evaluate(trainer, dev, dev_windows)
    figures |= {"f1": scores["f1"], "exact": scores["exact"]}
    figures |= count_work(train_windows, task.num_epochs) | count_texts([train, dev])
    return figures | {"seconds": time.perf_counter() - started}


def make_trainer(task: NotebookTask, windows: datasets.Dataset, folder: str) -> Trainer:
    """transformers' `Trainer` over padded windows, without a word printed."""
    trainer = Trainer(
        model=load_model(task.model, seed=task.seed),
        args=training_arguments(task, folder),
        train_dataset=windows,
        data_collator=default_data_collator,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def training_arguments(task: NotebookTask, folder: str) -> TrainingArguments:
    """The arguments of the training benchmark's peer, with the task's course of training."""
    return replace(
        arguments(folder, task.num_epochs),
        per_device_train_batch_size=task.batch_size,
        per_device_eval_batch_size=task.batch_size,
        learning_rate=task.learning_rate,
        warmup_steps=task.warmup_ratio,  # below 1: a part of all steps
        weight_decay=task.weight_decay,
        max_grad_norm=task.max_grad_norm,
        seed=task.seed,
    )


def evaluate(trainer: Trainer, examples: pa.Table, windows: datasets.Dataset) -> dict[str, float]:
    """The official figures of the answers that run_qa would find; v2.0's style where needed."""
    start_logits, end_logits = trainer.predict(windows).predictions  # (windows, max_length) each
    num_accepted = pc.list_value_length(examples["answers"].combine_chunks().field("text"))
    answers = postprocess(
        notebook_dataset(examples),
        windows,
        (start_logits, end_logits),
        null_threshold=NULL_THRESHOLD if pc.min(num_accepted).as_py() == 0 else None,
    )
    return score_predictions(answers.predictions, examples)


def count_work(windows: datasets.Dataset, num_epochs: int) -> dict[str, int]:
    """Windows trained on in all epochs, their real tokens and their padding."""
    masks = pc.list_flatten(windows.data.column("attention_mask"))  # (windows * max_length,)
    num_tokens = pc.sum(masks).as_py()
    return {
        "num_windows": num_epochs * len(windows),
        "num_tokens": num_epochs * num_tokens,
        "num_padding_tokens": num_epochs * (len(masks) - num_tokens),
    }


def count_texts(tokenized: list[pa.Table]) -> dict[str, int]:
    """Passes of the tokenizer, one a table, and the bytes of question and context of every row."""
    texts = [text for table in tokenized for text in table["context"].to_pylist()]
    texts += [text.lstrip() for table in tokenized for text in table["question"].to_pylist()]
    return {
        "num_tokenizations": len(tokenized),
        "tokenized_bytes": sum(len(text.encode()) for text in texts),
    }


def _set_up_process(threads: int) -> None:
    torch.set_num_threads(threads)
    datasets.disable_caching()  # every setting tokenizes anew
    datasets.disable_progress_bars()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


@contextmanager
def _timed(figures: dict[str, Any], name: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    figures[name] = time.perf_counter() - started


if __name__ == "__main__":
    main()
