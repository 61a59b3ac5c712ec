"""replicate: one model on several ranks, its gradients averaged over them.

torch's DistributedDataParallel averages all but the gradient of the word embeddings, which is half
of a small encoder's parameters and 0 in all rows but those of the step's tokens: of it, the rows
that any rank has are averaged.
"""

import warnings
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def replicate(model: Any) -> DistributedDataParallel:
    """The model with its gradients averaged over ranks, but for `word_embeddings`'.

    Ranks must have the same weights. Buffers are constants and are not sent: ranks may differ in
    the number of their forward passes.
    """
    words = word_embeddings(model)
    names = [name for name, parameter in model.named_parameters() if parameter is words]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, names)  # type: ignore[no-untyped-call]
    with warnings.catch_warnings():
        # Newer versions of torch call the option by another name, which older ones do not know.
        warnings.simplefilter("ignore", FutureWarning)
        return DistributedDataParallel(model, gradient_as_bucket_view=True, broadcast_buffers=False)


def word_embeddings(model: Any) -> nn.Parameter:
    """The weights of the model's input embeddings, (vocabulary, size)."""
    weight: nn.Parameter = model.get_input_embeddings().weight
    return weight


def average_rows(gradient: torch.Tensor, *, world_size: int) -> None:
    """Average a gradient (rows, size) over ranks in place, sending only rows that are not 0.

    Every rank must call it with its own gradient, of the same shape.
    """
    is_used = (gradient != 0).any(dim=1).to(torch.uint8)  # also where a gradient is no number
    torch.distributed.all_reduce(is_used, op=torch.distributed.ReduceOp.MAX)
    rows = is_used.nonzero().squeeze(1)
    sums = gradient[rows]
    torch.distributed.all_reduce(sums)
    gradient[rows] = sums / world_size
