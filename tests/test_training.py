"""The loop: the same course at any world size, resumed as if never stopped, clear failures."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import multiprocessing as mp

from qa_core.batching import collate, padding_rules
from qa_core.errors import DataError, ModelError, QAError
from qa_core.features import build_features
from qa_core.tokenizing import load_tokenizer
from qa_core.training import (
    EpochDone,
    Process,
    StepDone,
    Trainer,
    TrainingSettings,
    batch_losses,
    load_model,
)
from tests.tiny import TEXTS, make_examples, save_model

SETTINGS = TrainingSettings(
    num_epochs=2,
    global_batch_size=6,
    learning_rate=1e-3,
    warmup_ratio=0.1,
    weight_decay=0.01,
    max_grad_norm=1.0,
    seed=3,
)

# A softmax does not feel what is added to all of its inputs: these have a gradient of 0 but for
# rounding, which Adam scales up to steps of its own.
WITHOUT_GRADIENT = ("qa_outputs.bias", "key.bias")


def make_features(folder: Path) -> Any:
    """23 features of different lengths: batches of 6 leave an uneven last one."""
    words = " ".join(TEXTS).split()
    rows = []
    for number in range(23):
        context = " ".join(words[number : number + 4 + 2 * number])
        answer = words[number]
        rows.append({"context": context, "question": "Who?", "answers": [(answer, 0)]})
    return build_features(
        make_examples(rows), tokenizer=load_tokenizer(str(folder)), max_length=128, doc_stride=16
    )


def make_trainer(
    folder: Path, *, process: Process | None = None, settings: TrainingSettings = SETTINGS
) -> Trainer:
    """A trainer of the model in `folder` on `make_features`."""
    return Trainer(
        load_model(str(folder), seed=0),
        make_features(folder),
        settings=settings,
        rules=padding_rules(load_tokenizer(str(folder))),
        process=process or Process(),
    )


def steps_of(trainer: Trainer) -> list[StepDone]:
    """Run to the end; the steps."""
    return [event for event in trainer.run() if isinstance(event, StepDone)]


def run_rank(rank: int, world_size: int, folder: str, out: str) -> None:
    """One process of a gloo group: train, rank 0 keeps losses and weights."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{out}/group", rank=rank, world_size=world_size
    )
    trainer = make_trainer(Path(folder), process=Process(rank=rank, world_size=world_size))
    steps = steps_of(trainer)
    if rank == 0:
        state = {"losses": [s.loss for s in steps], "weights": trainer.model.state_dict()}
        state["tokens"] = [s.num_tokens for s in steps]
        torch.save(state, f"{out}/state.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("world_size", [2, 3])
def test_world_size_does_not_change_the_course(
    world_size: int, tiny_model: Path, tmp_path: Path
) -> None:
    """Same global batch, dropout off: losses within 1e-4, weights alike, uneven steps included."""
    alone = make_trainer(tiny_model)
    expected = steps_of(alone)
    assert len(expected) == 8
    arguments = (world_size, str(tiny_model), str(tmp_path))
    mp.spawn(run_rank, args=arguments, nprocs=world_size)  # type: ignore[no-untyped-call]
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert state["losses"] == pytest.approx([step.loss for step in expected], abs=1e-4)
    assert state["tokens"] == [step.num_tokens for step in expected]
    compared = 0
    for name, weight in alone.model.state_dict().items():
        if not name.endswith(WITHOUT_GRADIENT):
            torch.testing.assert_close(state["weights"][name], weight, atol=1e-3, rtol=1e-3)
            compared += 1
    assert compared > 30


def test_loss_falls_and_steps_are_counted(tiny_model: Path) -> None:
    """Training learns its few examples; the events say how far it is."""
    steps = steps_of(make_trainer(tiny_model))
    assert [step.step for step in steps] == list(range(1, 9))
    assert steps[-1].loss < steps[0].loss
    assert sum(step.num_features for step in steps) == 2 * 23
    assert steps[-1].epoch == 2


@pytest.mark.parametrize("stop", [1, 4, 6])
def test_a_resumed_run_equals_an_uninterrupted_one_to_the_bit(stop: int, tmp_path: Path) -> None:
    """Mid-epoch and at its edge, with dropout on: same losses, same weights."""
    folder = save_model(tmp_path / "model", dropout=0.2)
    whole = make_trainer(folder)
    expected = steps_of(whole)
    first = make_trainer(folder)
    for event in first.run():
        if isinstance(event, StepDone) and event.step == stop:
            break
    checkpoint = tmp_path / "checkpoint"
    first.model.save_pretrained(checkpoint)
    first.save_state(checkpoint)
    resumed = make_trainer(folder)
    resumed.model.load_state_dict(load_model(str(checkpoint), seed=9).state_dict())
    resumed.load_state(checkpoint)
    rest = steps_of(resumed)
    assert [step.loss for step in rest] == [step.loss for step in expected[stop:]]
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], weight), name


def test_epochs_are_told_from_0(tiny_model: Path) -> None:
    """Epoch 0 comes before the first step, so that the untrained model can be scored."""
    epochs = [e.epoch for e in make_trainer(tiny_model).run() if isinstance(e, EpochDone)]
    assert epochs == [0, 1, 2]


def test_padding_does_not_change_a_loss(tiny_model: Path) -> None:
    """A feature's loss is the same alone and beside a longer one."""
    features = make_features(tiny_model)
    model = load_model(str(tiny_model), seed=0).eval()
    rules = padding_rules(load_tokenizer(str(tiny_model)))
    together = batch_losses(model, collate(features, [0, 22], rules), torch.device("cpu"))
    alone = batch_losses(model, collate(features, [0], rules), torch.device("cpu"))
    assert together[0].item() == pytest.approx(alone[0].item(), abs=1e-5)


def test_a_loss_that_is_no_number_names_step_and_examples(tiny_model: Path) -> None:
    """A diverged run stops at once instead of training on NaN."""
    trainer = make_trainer(tiny_model)
    with torch.no_grad():
        trainer.model.qa_outputs.weight.fill_(math.nan)
    with pytest.raises(QAError, match=r"batch of examples q\d+.*the loss is nan at step 1"):
        steps_of(trainer)


def test_no_features_and_foreign_checkpoints_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    """Set-up errors come before the first step."""
    features = make_features(tiny_model).slice(0, 0)
    rules = padding_rules(load_tokenizer(str(tiny_model)))
    model = load_model(str(tiny_model), seed=0)
    with pytest.raises(DataError, match="no training features"):
        Trainer(model, features, settings=SETTINGS, rules=rules, process=Process())
    with pytest.raises(ModelError, match="cannot be continued from"):
        make_trainer(tiny_model).load_state(tmp_path)


def test_new_head_and_dropout_follow_the_arguments(tmp_path: Path) -> None:
    """The head a checkpoint lacks is drawn from the seed; dropout 0 reaches every layer."""
    folder = save_model(tmp_path / "model", dropout=0.3)
    kept, off = (load_model(str(folder), seed=0, dropout=dropout) for dropout in (None, 0.0))
    assert kept.config.hidden_dropout_prob == 0.3
    assert {m.p for m in off.modules() if isinstance(m, torch.nn.Dropout)} == {0.0}
    encoder = tmp_path / "encoder"
    kept.bert.save_pretrained(encoder)
    load_tokenizer(str(folder)).save_pretrained(encoder)
    heads = [load_model(str(encoder), seed=seed).qa_outputs.weight for seed in (1, 1, 2)]
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    """The error says which folder and what was expected."""
    with pytest.raises(ModelError, match=f"{tmp_path}: cannot be loaded"):
        load_model(str(tmp_path), seed=0)
