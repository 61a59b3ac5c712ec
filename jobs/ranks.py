"""Which process of a training this one is, and how it speaks with the others."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray.train
import ray.train.collective
import ray.train.torch
import torch

from qa_core.training import Process


@dataclass(frozen=True)
class Ranks:
    """This process among those of its training."""

    process: Process
    is_first_on_node: bool
    wait: Callable[[], object]  # until all ranks are here
    from_first: Callable[[Any], Any]  # what rank 0 gives, on every rank


def ranks_of_ray_train(*, use_gpu: bool) -> Ranks:
    """The ranks of the Ray Train run that this process is a worker of."""
    context = ray.train.get_context()
    return Ranks(
        Process(
            rank=context.get_world_rank(),
            world_size=context.get_world_size(),
            device=ray.train.torch.get_device() if use_gpu else torch.device("cpu"),
        ),
        is_first_on_node=context.get_local_rank() == 0,
        wait=ray.train.collective.barrier,
        from_first=ray.train.collective.broadcast_from_rank_zero,
    )


def one_rank(*, use_gpu: bool) -> Ranks:
    """A training in this process alone."""
    device = torch.device("cuda" if use_gpu else "cpu")
    return Ranks(
        Process(device=device),
        is_first_on_node=True,
        wait=lambda: None,
        from_first=lambda value: value,
    )
