"""Parameter groups: what decays, and how the rate falls from layer to layer."""

from pathlib import Path

import pytest
import torch

from qa_core.errors import ConfigError
from qa_core.optimizing import parameter_groups
from qa_core.training import load_model


def test_biases_and_norms_do_not_decay(tiny_model: Path) -> None:
    """Two groups without layer decay, every parameter in one of them."""
    model = load_model(str(tiny_model), seed=0)
    groups = parameter_groups(model, learning_rate=1e-3, weight_decay=0.1, layer_decay=1.0)
    assert [group["weight_decay"] for group in groups] == [0.0, 0.1]
    names = {parameter: name for name, parameter in model.named_parameters()}
    without, decaying = ([names[p] for p in group["params"]] for group in groups)
    assert all("bias" in name or "LayerNorm" in name for name in without)
    assert not any("bias" in name or "LayerNorm" in name for name in decaying)
    assert len(without) + len(decaying) == len(names)


def test_lower_layers_learn_more_slowly(tiny_model: Path) -> None:
    """Head 1, second layer 0.5, first 0.25, embeddings 0.125 of the rate."""
    model = load_model(str(tiny_model), seed=0)
    groups = parameter_groups(model, learning_rate=8.0, weight_decay=0.1, layer_decay=0.5)
    rate = {parameter: group["lr"] for group in groups for parameter in group["params"]}
    found = {name: rate[parameter] for name, parameter in model.named_parameters()}
    assert found["qa_outputs.weight"] == 8
    assert found["bert.encoder.layer.1.attention.self.query.weight"] == 4
    assert found["bert.encoder.layer.0.output.LayerNorm.bias"] == 2
    assert found["bert.embeddings.word_embeddings.weight"] == 1
    assert len(groups) == 8


def test_layer_decay_needs_numbered_layers() -> None:
    """A model whose layers cannot be told is refused, not trained at one rate."""
    with pytest.raises(ConfigError, match=r"train\.layer_decay: the layers of this model"):
        parameter_groups(
            torch.nn.Linear(2, 2), learning_rate=1.0, weight_decay=0.0, layer_decay=0.9
        )
