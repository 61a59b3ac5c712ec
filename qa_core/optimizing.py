"""optimize: parameter groups and the learning rate's course."""

import re
from typing import Any

from torch import nn

from qa_core.errors import ConfigError

LAYER = re.compile(r"\.(?:layers?|h|blocks?)\.(\d+)\.")  # the number of a transformer's layer
HEAD = "qa_outputs."  # the span head, as transformers calls it


def parameter_groups(
    model: nn.Module, *, learning_rate: float, weight_decay: float, layer_decay: float
) -> list[dict[str, Any]]:
    """Groups of AdamW: no weight decay on biases and norms, a smaller rate for lower layers.

    The head has `learning_rate`, each layer below `layer_decay` times that of the one above, the
    embeddings that of a layer below the first. With layer_decay 1 there are two groups.

    Raises `ConfigError` where a layer_decay is asked of a model whose layers are not numbered.
    """
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    numbers = [int(found[1]) for name, _ in named if (found := LAYER.search(name))]
    if layer_decay != 1 and not numbers:
        raise ConfigError(
            "the layers of this model are not known by their names",
            where="train.layer_decay",
            expected="a model with numbered layers, as BERT's encoder.layer.0",
            remedy="leave train.layer_decay at 1",
        )
    num_layers = max(numbers, default=-1) + 1
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, parameter in named:
        below = _layers_below_head(name, num_layers) if layer_decay != 1 else 0
        groups.setdefault((below, parameter.ndim > 1), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": learning_rate * layer_decay**below,
            "weight_decay": weight_decay if has_decay else 0.0,
        }
        for (below, has_decay), parameters in sorted(groups.items(), key=lambda group: group[0])
    ]


def _layers_below_head(name: str, num_layers: int) -> int:
    """0 for the head, 1 for the last layer, one more than the layers for the embeddings."""
    if name.startswith(HEAD):
        return 0
    found = LAYER.search(name)
    return num_layers - int(found[1]) if found else num_layers + 1
