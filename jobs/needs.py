"""What a configuration needs of a node, in bytes, with the arithmetic in words."""

from collections.abc import Sequence
from dataclasses import dataclass

from jobs.configuration import TrainConfig
from jobs.models import load_model_config
from jobs.nodes import place_bytes

# Weights, their gradients and AdamW's two moments, all in float32.
COPIES_IN_TRAINING = 4
PROCESS_BYTES = 10**9  # Python with torch, transformers and Ray
# Kept for the backward pass, per token, layer and number of the hidden size: 34 bytes in 16 bits
# (Korthikanti et al. 2022, "Reducing Activation Recomputation", without the attention matrix,
# which fused attention does not keep). In float32: what autograd was seen to keep of a BERT.
ACTIVATION_BYTES = {True: 34, False: 74}
# With dropout no fused attention on a CPU: kept are these, per token, layer, head and window token.
ATTENTION_BYTES = 12
# Tokens, offsets and texts on storage over the bytes of JSON sources: 2.5 to 2.7 on three of them.
TOKENS_OVER_SOURCE = 3
# Last, best and the next; each has the weights and AdamW's two moments.
KEPT_CHECKPOINTS = 3
COPIES_IN_CHECKPOINT = 3


@dataclass(frozen=True)
class Needs:
    """Bytes that a training takes, and how they come about."""

    worker_bytes: int  # of a node's memory, each worker
    worker_words: str
    gpu_bytes: int  # of a GPU, each worker; 0 without
    gpu_words: str
    disk_bytes: int  # of the node's disk for temporary files, or of a local storage path's
    disk_words: str


def needs_of(config: TrainConfig, sources: Sequence[str], model: str, *, use_gpu: bool) -> Needs:
    """What the training of `config` needs where it runs."""
    weights = count_parameters(model) * 4
    activations = activation_bytes(config, model, use_gpu=use_gpu)
    training = COPIES_IN_TRAINING * weights + activations
    words = (
        f"{COPIES_IN_TRAINING} x {megabytes(weights)} weights, gradients and AdamW "
        f"+ {megabytes(activations)} activations"
    )
    tokens = TOKENS_OVER_SOURCE * sum(place_bytes(source) or 0 for source in sources)
    checkpoint = COPIES_IN_CHECKPOINT * weights
    is_remote = "://" in config.storage_path
    models = weights if is_remote else weights + KEPT_CHECKPOINTS * checkpoint
    model_words = f"{megabytes(weights)} model" + (
        " copied to the node"
        if is_remote
        else f" + {KEPT_CHECKPOINTS} x {megabytes(checkpoint)} checkpoints"
    )
    return Needs(
        worker_bytes=PROCESS_BYTES + (0 if use_gpu else training),
        worker_words=f"({megabytes(PROCESS_BYTES)} process{'' if use_gpu else f' + {words}'})",
        gpu_bytes=training if use_gpu else 0,
        gpu_words=words,
        disk_bytes=tokens + models,
        disk_words=f"{megabytes(tokens)} tokens + {model_words}",
    )


def count_parameters(model: str) -> int:
    """Parameters of the model with a span head; its weights are not loaded."""
    import torch
    from transformers import AutoModelForQuestionAnswering

    with torch.device("meta"):
        built = AutoModelForQuestionAnswering.from_config(load_model_config(model))
    return sum(parameter.numel() for parameter in built.parameters())


def activation_bytes(config: TrainConfig, model: str, *, use_gpu: bool) -> int:
    """What the backward pass needs of the forward pass, for the windows computed at once."""
    train, shape = config.train, load_model_config(model)
    windows = train.per_worker_batch_size * config.features.max_length
    tokens = train.tokens_per_batch or windows
    layers = 1 if train.gradient_checkpointing else int(shape.num_hidden_layers)
    numbers = int(shape.hidden_size) * ACTIVATION_BYTES[use_gpu]
    if not use_gpu and config.model.dropout != 0.0:
        heads = int(shape.num_attention_heads)
        numbers += heads * config.features.max_length * ATTENTION_BYTES
    return int(tokens * layers * numbers)


def megabytes(count: int) -> str:
    """A size for people.

    >>> megabytes(1_250_000), megabytes(2_500_000_000)
    ('1 MB', '2.5 GB')
    """
    return f"{count / 1e9:.1f} GB" if count >= 10**9 else f"{count / 1e6:.0f} MB"
