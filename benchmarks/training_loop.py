"""Our training loop as the benchmarks run it: the trainer of `jobs.train`, without Ray."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from benchmarks.sides import serve
from jobs.configuration import FeatureSettings, TrainSettings
from qa_core.batch_plan import BatchSize, plan_epoch
from qa_core.batching import padding_rules
from qa_core.fast_cpu import keep_freed_memory
from qa_core.features import EncodedExamples, LabelledWindows, encode_examples, label_examples
from qa_core.feeding import WindowBlock, WindowFeed
from qa_core.reading import read_examples
from qa_core.tokenizing import PairEncoder, load_tokenizer
from qa_core.training import Process, StepDone, Trainer, TrainingSettings, load_model

DEFAULTS = TrainSettings()  # of jobs.train: the course of every side's training
WINDOW = FeatureSettings()
BATCH = DEFAULTS.per_worker_batch_size
SECONDS_OF_A_PRODUCT = 0.4


@dataclass(frozen=True)
class LoopTask:
    """What a side trains on, and how often."""

    data: str
    model: str
    threads: int
    num_windows: int  # of a turn, which is one epoch over them
    warm_up_turns: int
    num_turns: int  # after those
    device: str = "cpu"

    @property
    def num_epochs(self) -> int:
        """One a turn."""
        return self.warm_up_turns + self.num_turns


@dataclass(frozen=True)
class Seat:
    """Which of several processes; without a `group` file they do not talk to each other."""

    rank: int = 0
    world_size: int = 1
    group: str | None = None


@dataclass(frozen=True)
class Turn:
    """An epoch over the windows of a turn."""

    seconds: float
    cpu_seconds: float
    num_windows: int
    num_tokens: int  # real ones
    num_padding_tokens: int
    loss: float  # mean over steps

    @property
    def rate(self) -> float:
        """Windows a second."""
        return self.num_windows / self.seconds


@dataclass(frozen=True)
class FileWindows:
    """All windows of a file."""

    examples: pa.Table
    encoded: EncodedExamples
    planned: LabelledWindows

    def feed(self, rows: NDArray[np.int64] | slice = slice(None)) -> WindowFeed:
        """Some of them, as `jobs.train` feeds them."""
        every = np.arange(len(self.planned.layout.length))
        block = WindowBlock(self.examples["id"], self.encoded, self.planned.take(every[rows]))
        return WindowFeed([block])


def file_windows(data: str, model: str) -> FileWindows:
    """The windows of a SQuAD file, at the default sizes of `jobs.train`."""
    examples, _ = read_examples(data)
    encoded = encode_examples(examples, encoder=PairEncoder.of(load_tokenizer(model)))
    sizes = {"max_length": WINDOW.max_length, "doc_stride": WINDOW.doc_stride}
    return FileWindows(examples, encoded, label_examples(encoded, **sizes))


def sample_rows(lengths: NDArray[Any], count: int) -> NDArray[np.int64]:
    """`count` rows whose lengths are spread as all are: one of each of so many equal parts.

    >>> lengths = np.array([7, 300, 8, 200, 9, 250])
    >>> [bool(lengths[row] > 100) for row in sorted(sample_rows(lengths, 2), key=lengths.item)]
    [False, True]
    """
    if count > len(lengths):
        raise SystemExit(f"error: {len(lengths)} windows, {count} needed; lower --steps")
    random = np.random.default_rng(0)
    order = np.lexsort((random.permutation(len(lengths)), lengths))
    edges = np.linspace(0, len(lengths), count + 1).astype(np.int64)
    picked = edges[:-1] + np.floor(random.random(count) * np.diff(edges)).astype(np.int64)
    return np.sort(order[picked])


def settings_of(num_epochs: int, num_micro_batches: int) -> TrainingSettings:
    """The defaults of `jobs.train`."""
    return TrainingSettings(
        num_epochs=num_epochs,
        batch_size=BatchSize(num_micro_batches, num_features=BATCH),
        learning_rate=DEFAULTS.learning_rate,
        warmup_ratio=DEFAULTS.warmup_ratio,
        weight_decay=DEFAULTS.weight_decay,
        max_grad_norm=DEFAULTS.max_grad_norm,
        seed=DEFAULTS.seed,
    )


def make_trainer(model: str, feed: WindowFeed, num_epochs: int, process: Process) -> Trainer:
    """A trainer as `jobs.training_worker` makes it, a micro-batch a rank and step."""
    return Trainer(
        load_model(model, seed=DEFAULTS.seed),
        feed,
        settings=settings_of(num_epochs, process.world_size),
        rules=padding_rules(load_tokenizer(model)),
        process=process,
    )


def our_side(connection: Connection, task: LoopTask, seat: Seat) -> None:
    """A side that trains a turn, multiplies matrices or feeds alone, as it is asked."""
    torch.set_num_threads(task.threads)
    keep_freed_memory()  # as jobs.training_worker does
    file = file_windows(task.data, task.model)
    rows = sample_rows(file.planned.layout.length, task.num_windows)
    process = Process(device=torch.device(task.device))
    if seat.group is not None:
        torch.distributed.init_process_group(
            "gloo",
            init_method=f"file://{seat.group}",
            rank=seat.rank,
            world_size=seat.world_size,
        )
        process = Process(seat.rank, seat.world_size)
    elif seat.world_size > 1:
        rows = rows[rows_of_rank(file.planned.layout.length[rows], seat)]
    trainer = make_trainer(task.model, file.feed(rows), task.num_epochs, process)
    steps = trainer.run()
    serve(
        connection,
        {
            "turn": lambda: train_turn(steps, int(trainer.epoch_ends[0])),
            "lengths": lambda: trainer.lengths,
            "sgemm": lambda: sgemm_rate(trainer.model.config, BATCH * trainer.lengths.mean()),
            "feed": feed_rate(task.model, file.feed()),
            "all_reduce": lambda: all_reduce_seconds(trainer.model),
        },
    )


def rows_of_rank(lengths: NDArray[Any], seat: Seat) -> NDArray[np.int64]:
    """What a rank would be given of windows that ranks train on together."""
    size = BatchSize(seat.world_size, num_features=BATCH)
    plan = plan_epoch(lengths, seed=DEFAULTS.seed, epoch=0, batch_size=size)
    shares = (
        plan.share(step, rank=seat.rank, world_size=seat.world_size) for step in range(len(plan))
    )
    return np.concatenate([rows for share in shares for rows in share.values()])


def train_turn(steps: Iterator[StepDone], count: int) -> Turn:
    """Train on for so many steps."""
    started, cpu_started = time.perf_counter(), time.process_time()
    done = list(islice(steps, count))
    finish_kernels()
    return Turn(
        seconds=time.perf_counter() - started,
        cpu_seconds=time.process_time() - cpu_started,
        num_windows=sum(step.num_features for step in done),
        num_tokens=sum(step.num_tokens for step in done),
        num_padding_tokens=sum(step.num_padding_tokens for step in done),
        loss=float(np.mean([step.loss for step in done])),
    )


def finish_kernels() -> None:
    """Wait for what a GPU, where one is in use, still computes: a time without it is too short."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def training_flops(lengths: NDArray[Any], config: Any) -> float:
    """Operations of the matrix products, forward and backward, for windows of such lengths.

    Of real tokens only. A layer's forward pass multiplies a token with 4 h² + 2 h i weights and
    with the keys and values of its window, 2 h a token of it; each product is a multiplication
    and an addition, and the backward pass has two products for one of the forward pass.
    """
    h, i = config.hidden_size, config.intermediate_size
    tokens, pairs = float(lengths.sum()), float((lengths.astype(np.float64) ** 2).sum())
    products = config.num_hidden_layers * (tokens * (4 * h * h + 2 * h * i) + pairs * 2 * h)
    return 3 * 2 * products


def sgemm_rate(config: Any, num_tokens: float) -> float:
    """Operations a second of float32 matrix products: the best shape of these, its median.

    A large square, and the products of a layer over the tokens of a step.
    """
    t, h, i = round(num_tokens), config.hidden_size, config.intermediate_size
    shapes = [(2048, 2048, 2048), (t, h, h), (t, h, i), (t, i, h), (h, t, i), (i, t, h)]
    return max(map(_product_rate, shapes))


def _product_rate(shape: tuple[int, int, int]) -> float:
    rows, inner, columns = shape
    one, two = torch.rand(rows, inner), torch.rand(inner, columns)
    result = torch.empty(rows, columns)
    seconds: list[float] = []
    while sum(seconds) < SECONDS_OF_A_PRODUCT or len(seconds) < 3:
        started = time.perf_counter()
        torch.mm(one, two, out=result)
        seconds.append(time.perf_counter() - started)
    return 2 * rows * inner * columns / float(np.median(seconds))


def feed_rate(model: str, feed: WindowFeed) -> Callable[[], float]:
    """Steps a second of feeding alone, over an epoch of the whole file."""

    def measure() -> float:
        trainer = make_trainer(model, feed, 1, Process())
        size = trainer.settings.batch_size
        plan = plan_epoch(trainer.lengths, seed=DEFAULTS.seed, epoch=0, batch_size=size)
        started = time.perf_counter()
        count = sum(1 for _ in trainer.feed(plan, 0))
        return count / (time.perf_counter() - started)

    return measure


def all_reduce_seconds(model: Any) -> float:
    """Seconds that the sum of all gradients over ranks takes with nothing beside it."""
    gradients = [torch.zeros_like(parameter) for parameter in model.parameters()]
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    started = time.perf_counter()
    for bucket in flat.split(25 * 2**20 // 4):  # DistributedDataParallel's size
        torch.distributed.all_reduce(bucket)
    return time.perf_counter() - started
