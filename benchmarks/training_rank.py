"""A training process under torchrun: the loop of `jobs.train` without Ray, its steps timed.

    torchrun --standalone --nproc-per-node 2 -m benchmarks.training_rank \
        --data train.json --model MODEL --steps_file steps.jsonl
"""

import os
from pathlib import Path

import torch
from jsonargparse import auto_cli

from benchmarks.training_loop import file_windows, make_trainer
from benchmarks.watched_worker import note_step
from qa_core.fast_cpu import keep_freed_memory
from qa_core.training import Process


def main(data: str, model: str, steps_file: str, threads: int = 1) -> None:
    """Train an epoch; see the module.

    Args:
        data: SQuAD JSON.
        model: folder of a model.
        steps_file: where rank 0 writes a line for each step.
        threads: of this process.
    """
    torch.set_num_threads(threads)
    keep_freed_memory()
    torch.distributed.init_process_group("gloo")
    process = Process(rank=int(os.environ["RANK"]), world_size=int(os.environ["WORLD_SIZE"]))
    trainer = make_trainer(model, file_windows(data, model).feed(), 1, process)
    for done in trainer.run():
        if process.rank == 0:
            note_step(Path(steps_file), done)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
