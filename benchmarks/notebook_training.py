"""The usual recipe's training, restated: what our loop is measured against on one machine.

transformers' `Trainer` over windows that the notebook's feature function padded to max_length,
the default collator, the model's own dropout, float32 (on a GPU bfloat16), the fused AdamW and
linear schedule that are its defaults. Learning rate, warm-up, weight decay, clipping and batch are
those of our side.
"""

import tempfile
import time
from multiprocessing.connection import Connection
from typing import Any

import datasets
import numpy as np
import torch
from transformers import (
    Trainer,
    TrainerCallback,
    TrainingArguments,
    default_data_collator,
)
from transformers.trainer_callback import PrinterCallback

from benchmarks.notebook_features import map_features, notebook_dataset
from benchmarks.training_loop import (
    BATCH,
    DEFAULTS,
    WINDOW,
    LoopTask,
    Turn,
    finish_kernels,
    sample_rows,
)
from qa_core.reading import read_examples
from qa_core.tokenizing import load_tokenizer
from qa_core.training import load_model


def notebook_side(connection: Connection, task: LoopTask) -> None:
    """A side that trains an epoch over the windows of a turn when it is asked."""
    torch.set_num_threads(task.threads)
    windows = padded_windows(task)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=load_model(task.model, seed=DEFAULTS.seed),
            args=arguments(folder, task),
            train_dataset=windows,
            data_collator=default_data_collator,
            callbacks=[EpochWhenAsked(connection, windows)],
        )
        trainer.remove_callback(PrinterCallback)
        connection.send(None)
        trainer.train()


def padded_windows(task: LoopTask) -> datasets.Dataset:
    """The windows of a turn, each padded to max_length, made by the notebook's function."""
    datasets.disable_progress_bars()
    examples, _ = read_examples(task.data)
    tokenizer = load_tokenizer(task.model)
    sizes = (WINDOW.max_length, WINDOW.doc_stride)
    windows = map_features(notebook_dataset(examples), "train", tokenizer, sizes)
    lengths = np.array([sum(mask) for mask in windows["attention_mask"]])
    return windows.select(sample_rows(lengths, task.num_windows))


def arguments(folder: str, task: LoopTask) -> TrainingArguments:
    """What a person would give the Trainer; it neither saves nor evaluates here."""
    return TrainingArguments(
        output_dir=folder,
        num_train_epochs=task.num_epochs,
        per_device_train_batch_size=BATCH,
        learning_rate=DEFAULTS.learning_rate,
        warmup_steps=DEFAULTS.warmup_ratio,  # below 1: a part of all steps
        weight_decay=DEFAULTS.weight_decay,
        max_grad_norm=DEFAULTS.max_grad_norm,
        lr_scheduler_type="linear",
        optim="adamw_torch_fused",
        seed=DEFAULTS.seed,
        use_cpu=task.device == "cpu",
        bf16=task.device != "cpu",
        dataloader_num_workers=0,
        save_strategy="no",
        eval_strategy="no",
        logging_strategy="epoch",  # once a turn, for its mean loss; nothing is printed
        report_to="none",
        disable_tqdm=True,
    )


class EpochWhenAsked(TrainerCallback):  # type: ignore[misc]
    """Holds each epoch back until it is asked for; answers with its `Turn`."""

    def __init__(self, connection: Connection, windows: datasets.Dataset) -> None:
        self.connection = connection
        self.num_places = int(np.sum([len(row) for row in windows["input_ids"]]))
        self.num_tokens = int(np.sum([sum(row) for row in windows["attention_mask"]]))
        self.num_windows = len(windows)
        self.started = self.cpu_started = self.seconds = self.cpu_seconds = 0.0

    def on_epoch_begin(self, *arguments: Any, **named: Any) -> None:
        """Wait for the message."""
        self.connection.recv()
        self.started, self.cpu_started = time.perf_counter(), time.process_time()

    def on_epoch_end(self, *arguments: Any, **named: Any) -> None:
        """Note the time."""
        finish_kernels()
        self.seconds = time.perf_counter() - self.started
        self.cpu_seconds = time.process_time() - self.cpu_started

    def on_log(self, *arguments: Any, logs: dict[str, float], **named: Any) -> None:
        """Answer; the last log, of the whole training, has no loss of its own."""
        if "loss" not in logs:
            return
        self.connection.send(
            Turn(
                seconds=self.seconds,
                cpu_seconds=self.cpu_seconds,
                num_windows=self.num_windows,
                num_tokens=self.num_tokens,
                num_padding_tokens=self.num_places - self.num_tokens,
                loss=logs["loss"],
            )
        )
