"""infer: features → start and end logits, one number a token, in feature order."""

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import nn

from qa_core.batching import PaddingRules, collate, feature_lengths
from qa_core.tokenizing import concatenated_ranges, splits_of

TOKENS_PER_BATCH = 8192  # padded; bounds the memory of a forward pass


def predict_logits(
    model: nn.Module, features: pa.Table, *, rules: PaddingRules, device: torch.device
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Start and end logits of every token of `features`, windows one after another, (tokens,).

    Features are batched by length; padding never reaches the result.
    """
    lengths = feature_lengths(features)
    splits = splits_of(lengths)
    start, end = np.empty((2, splits[-1]), np.float32)  # (tokens,)
    model.eval()
    with torch.inference_mode():
        for rows in batches_by_length(lengths, tokens_per_batch=TOKENS_PER_BATCH):
            batch = collate(features, rows, rules).to(device)
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                outputs = model(**batch.inputs)
            token = concatenated_ranges(splits[rows], lengths[rows])
            for result, logits in ((start, outputs.start_logits), (end, outputs.end_logits)):
                result[token] = logits.reshape(-1)[batch.place].float().cpu().numpy()
    return start, end


def batches_by_length(
    lengths: NDArray[np.int64], *, tokens_per_batch: int
) -> list[NDArray[np.int64]]:
    """Rows in batches of like lengths, longest first, each within a budget of padded tokens.

    A feature longer than the budget is a batch of its own.
    """
    order = np.argsort(-lengths, kind="stable")
    batches = []
    first = 0
    while first < len(order):
        size = max(1, tokens_per_batch // max(1, int(lengths[order[first]])))
        batches.append(order[first : first + size])
        first += size
    return batches


def window_losses(
    features: pa.Table, start_logits: NDArray[np.float32], end_logits: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Mean of the cross entropies of each window's labelled start and end, (features,).

    Logits as `predict_logits` gives them; labels as the features have them. The loss of a
    training on first accepted answers, without weights.
    """
    splits = splits_of(feature_lengths(features))
    losses = np.zeros(len(features))
    for logits, name in ((start_logits, "start_positions"), (end_logits, "end_positions")):
        exact = logits.astype(np.float64)
        largest = np.maximum.reduceat(exact, splits[:-1]) if len(features) else exact
        shifted = np.exp(exact - np.repeat(largest, np.diff(splits)))
        log_sum = np.log(np.add.reduceat(shifted, splits[:-1])) + largest
        losses += (log_sum - exact[splits[:-1] + features[name].to_numpy()]) / 2
    return losses
