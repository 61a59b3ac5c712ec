"""pack: windows one after another without padding, each attending to itself alone; on a CPU.

A packed batch is one row of tokens. Linear layers see no padding at all, and attention is computed
window by window. Models take part whose attention goes through transformers' attention interface
and whose positions can be given; `find_position_base` finds out by computing with them.
"""

import itertools
from typing import Any

import torch
from torch import nn

from qa_core.fast_cpu import draw_mask

PACKED = "extractive_qa_packed"  # our name in transformers' attention interface
SPLITS = "window_splits"  # the argument that carries where windows begin, list of ints


class PackedAttention(torch.autograd.Function):
    """Attention of each window to itself, and the gradient of it."""

    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        splits: list[int],
        scaling: float,
        dropout: float,
    ) -> torch.Tensor:
        """Output (1, tokens, heads, size) for query, key and value (1, heads, tokens, size)."""
        out = torch.empty_like(query.transpose(1, 2))
        kept = 1 / (1 - dropout)
        probabilities, masks = [], []
        for first, end in itertools.pairwise(splits):
            q, k, v = (tensor[0, :, first:end] for tensor in (query, key, value))
            scores = torch.bmm(q, k.transpose(1, 2)).mul_(scaling)  # (heads, length, length)
            probability = torch.softmax(scores, -1)
            mask = draw_mask(scores.shape, dropout).to(scores.dtype) if dropout else None
            used = probability if mask is None else probability * mask
            out[0, first:end] = torch.bmm(used, v * kept if dropout else v).transpose(0, 1)
            probabilities.append(probability)
            masks.append(mask)
        # Saved this way, and not as attributes, they are freed as the backward pass goes.
        ctx.save_for_backward(query, key, value, *probabilities, *masks)
        ctx.splits, ctx.scaling, ctx.kept = splits, scaling, kept
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        """Gradients of query, key and value."""
        saved = ctx.saved_tensors
        inputs, per_window = saved[:3], saved[3:]
        num_windows = len(per_window) // 2
        results = [torch.empty_like(tensor.transpose(1, 2)) for tensor in inputs]
        windows = itertools.pairwise(ctx.splits)
        for (first, end), probability, mask in zip(
            windows, per_window[:num_windows], per_window[num_windows:], strict=True
        ):
            q, k, v = (tensor[0, :, first:end] for tensor in inputs)
            outer = gradients[0][0, first:end].transpose(0, 1)  # (heads, length, size)
            outer = outer if mask is None else outer * ctx.kept
            used = probability if mask is None else probability * mask
            inner = torch.bmm(outer, v.transpose(1, 2))  # (heads, length, length)
            inner = inner if mask is None else inner.mul_(mask)
            of_scores = torch.ops.aten._softmax_backward_data(
                inner, probability, -1, probability.dtype
            ).mul_(ctx.scaling)
            of_inputs = (
                torch.bmm(of_scores, k),
                torch.bmm(of_scores.transpose(1, 2), q),
                torch.bmm(used.transpose(1, 2), outer),
            )
            for result, part in zip(results, of_inputs, strict=True):
                result[0, first:end] = part.transpose(0, 1)
        return (*(result.transpose(1, 2) for result in results), None, None, None)


def attend(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **arguments: Any,
) -> tuple[torch.Tensor, None]:
    """`PackedAttention` as transformers calls an attention function."""
    if arguments.get("sliding_window") is not None:
        raise ValueError("windows inside windows are not packed")
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    splits = arguments[SPLITS]
    return PackedAttention.apply(query, key, value, splits, scaling, dropout), None  # type: ignore[no-untyped-call]


def pack_model(model: Any) -> int | None:
    """Switch a model on a CPU to packed batches, where it computes the same with them.

    The position of a window's first token, as the model counts them; None where the model cannot
    be packed, and is left as it was.
    """
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    AttentionInterface.register(PACKED, attend)
    AttentionMaskInterface.register(PACKED, _no_mask)
    before = model.config._attn_implementation
    base = _find_position_base(model)
    if base is None:
        model.set_attn_implementation(before)
    return base


def _no_mask(*arguments: Any, **named: Any) -> None:
    """No mask: where windows begin is known."""


def _find_position_base(model: Any) -> int | None:
    """Where the model's positions begin, if two packed windows give the logits of single ones.

    Left with the packed attention switched on where they do.
    """
    lengths = [5, 3]
    ids = torch.arange(1, 1 + sum(lengths)) % (model.config.vocab_size - 1) + 1
    padding = getattr(model.config, "pad_token_id", None)
    ids = torch.where(ids == padding, 0 if padding else 1, ids)  # not a token that means nothing
    is_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            single = [model(input_ids=part[None]) for part in torch.split(ids, lengths)]
            expected = torch.cat([outputs.start_logits[0] for outputs in single])
            model.set_attn_implementation(PACKED)
            for base in dict.fromkeys([0, (padding or 0) + 1]):
                packed = model(
                    input_ids=ids[None],
                    position_ids=position_ids(lengths, base),
                    **{SPLITS: [0, *itertools.accumulate(lengths)]},
                )
                if torch.allclose(packed.start_logits[0], expected, rtol=1e-3, atol=1e-5):
                    return base
    except (TypeError, ValueError, KeyError, RuntimeError, AttributeError, IndexError):
        return None  # the model does not take positions, or not our attention
    finally:
        model.train(is_training)
    return None


def position_ids(lengths: list[int], base: int) -> torch.Tensor:
    """Positions of the tokens of packed windows, (1, tokens)."""
    return torch.cat([torch.arange(base, base + length) for length in lengths])[None]
