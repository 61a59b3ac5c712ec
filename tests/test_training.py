"""The loop: the same course at any world size, resumed as if never stopped, clear failures."""

import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import multiprocessing as mp

from qa_core.batch_plan import BatchSize
from qa_core.batching import collate, padding_rules
from qa_core.errors import DataError, ModelError, QAError
from qa_core.features import build_features
from qa_core.losses import span_losses
from qa_core.tokenizing import load_tokenizer
from qa_core.training import (
    STATE_FILE,
    Process,
    Trainer,
    TrainingSettings,
    load_model,
    model_logits,
)
from tests.tiny import TEXTS, make_examples, save_model

SETTINGS = TrainingSettings(
    num_epochs=2,
    batch_size=BatchSize(num_micro_batches=6, num_features=1),
    learning_rate=1e-3,
    warmup_ratio=0.1,
    weight_decay=0.01,
    max_grad_norm=1.0,
    seed=3,
)


def make_features(folder: Path) -> Any:
    """23 features of different lengths, 2 without an answer: batches of 6 leave an uneven last."""
    words = " ".join(TEXTS).split()
    rows = []
    for number in range(23):
        context = " ".join(words[number : number + 4 + 2 * number])
        answer = words[number]
        answers = [(answer, 0)] if number % 10 != 3 else []
        rows.append({"context": context, "question": "Who?", "answers": answers})
    return build_features(
        make_examples(rows), tokenizer=load_tokenizer(str(folder)), max_length=128, doc_stride=16
    )


def make_trainer(
    folder: Path,
    *,
    process: Process | None = None,
    settings: TrainingSettings = SETTINGS,
    dtype: torch.dtype = torch.float32,
) -> Trainer:
    """A trainer of the model in `folder` on `make_features`."""
    return Trainer(
        load_model(str(folder), seed=0).to(dtype),
        make_features(folder),
        settings=settings,
        rules=padding_rules(load_tokenizer(str(folder))),
        process=process or Process(),
    )


def keep(trainer: Trainer, folder: Path) -> Path:
    """A checkpoint's folder, without the cluster's bookkeeping."""
    trainer.model.save_pretrained(folder)
    torch.save(trainer.state(), folder / STATE_FILE)
    return folder


def run_rank(rank: int, world_size: int, folder: str, out: str, settings: TrainingSettings) -> None:
    """One process of a gloo group: train in float32 and float64, rank 0 keeps what came out."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{out}/group", rank=rank, world_size=world_size
    )
    for dtype in (torch.float32, torch.float64):
        process = Process(rank=rank, world_size=world_size)
        trainer = make_trainer(Path(folder), process=process, settings=settings, dtype=dtype)
        steps = list(trainer.run())
        if rank == 0:
            state = {"steps": [asdict(step) for step in steps]}
            torch.save(state | {"weights": trainer.model.state_dict()}, f"{out}/{dtype}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("world_size", [2, 3])
def test_world_size_does_not_change_the_course(
    world_size: int, tiny_model: Path, tmp_path: Path
) -> None:
    """Dropout off, uneven steps, accumulation: float32 losses to 1e-4, float64 weights to 1e-9."""
    arguments = (world_size, str(tiny_model), str(tmp_path), SETTINGS)
    mp.spawn(run_rank, args=arguments, nprocs=world_size)  # type: ignore[no-untyped-call]
    for dtype in (torch.float32, torch.float64):
        alone = make_trainer(tiny_model, dtype=dtype)
        expected = list(alone.run())
        assert len(expected) == 8
        state = torch.load(tmp_path / f"{dtype}.pt", weights_only=True)
        losses = [step["loss"] for step in state["steps"]]
        assert losses == pytest.approx([step.loss for step in expected], abs=1e-4)
        assert [s["num_tokens"] for s in state["steps"]] == [s.num_tokens for s in expected]
        if dtype == torch.float64:
            for name, weight in alone.model.state_dict().items():
                torch.testing.assert_close(
                    state["weights"][name], weight, atol=1e-11, rtol=1e-9, msg=name
                )


@pytest.mark.slow
def test_dropout_is_the_same_at_any_world_size(tmp_path: Path) -> None:
    """A micro-batch draws its own: two ranks take the steps of one that accumulates."""
    folder = save_model(tmp_path / "model", dropout=0.2)
    mp.spawn(run_rank, args=(2, str(folder), str(tmp_path), SETTINGS), nprocs=2)  # type: ignore[no-untyped-call]
    state = torch.load(tmp_path / "torch.float64.pt", weights_only=True)
    losses = [step.loss for step in make_trainer(folder, dtype=torch.float64).run()]
    assert [step["loss"] for step in state["steps"]] == pytest.approx(losses, rel=1e-9)


def test_loss_falls_and_steps_are_counted(tiny_model: Path) -> None:
    """Training learns its few examples; the events say how far it is."""
    steps = list(make_trainer(tiny_model).run())
    assert [step.step for step in steps] == list(range(1, 9))
    assert steps[-1].loss < steps[0].loss
    assert sum(step.num_features for step in steps) == 2 * 23
    assert [step.epoch for step in steps] == [0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75, 2]
    tokens = sum(len(ids) for ids in make_features(tiny_model)["input_ids"].to_pylist())
    assert sum(step.num_tokens for step in steps) == 2 * tokens
    assert sum(step.num_padding_tokens for step in steps) == 0  # packed


RESUMED = {
    "counted": SETTINGS,
    "by tokens": replace(SETTINGS, batch_size=BatchSize(2, num_tokens=150)),
    "cosine, accumulated, layer by layer": replace(
        SETTINGS, schedule="cosine", layer_decay=0.8, gradient_checkpointing=True
    ),
}


@pytest.mark.parametrize("kind", RESUMED)
@pytest.mark.parametrize("stop", [1, 4, 6])
def test_a_resumed_run_equals_an_uninterrupted_one_to_the_bit(
    kind: str, stop: int, tmp_path: Path
) -> None:
    """Mid-epoch and at its edge, with dropout on: same losses, same weights."""
    folder, settings = save_model(tmp_path / "model", dropout=0.2), RESUMED[kind]
    whole = make_trainer(folder, settings=settings)
    expected = list(whole.run())
    assert len(expected) > 6
    first = make_trainer(folder, settings=settings)
    next(done for done in first.run() if done.step == stop)
    checkpoint = keep(first, tmp_path / "checkpoint")
    resumed = make_trainer(folder, settings=settings)
    resumed.model.load_state_dict(load_model(str(checkpoint), seed=9).state_dict())
    resumed.load_state(checkpoint)
    assert list(resumed.run()) == expected[stop:]
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], weight), name


def test_accumulation_is_the_larger_batch(tiny_model: Path) -> None:
    """Two micro-batches of three features make the step of one of six, dropout off."""
    losses = [
        [step.loss for step in make_trainer(tiny_model, settings=one).run()]
        for one in (
            replace(SETTINGS, batch_size=BatchSize(1, num_features=6)),
            replace(SETTINGS, batch_size=BatchSize(2, num_features=3)),
        )
    ]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_checkpointed_activations_change_nothing(tmp_path: Path) -> None:
    """Dropout is drawn the same way when activations are computed again."""
    folder = save_model(tmp_path / "model", dropout=0.2)
    losses = [
        [step.loss for step in make_trainer(folder, settings=one).run()]
        for one in (SETTINGS, replace(SETTINGS, gradient_checkpointing=True))
    ]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)


def test_rates_follow_the_schedule(tiny_model: Path) -> None:
    """Up over the warm-up, then down: linear in a line, cosine in its curve."""
    rates = {
        name: [
            step.learning_rate
            for step in make_trainer(
                tiny_model, settings=replace(SETTINGS, schedule=name, warmup_ratio=0.25)
            ).run()
        ]
        for name in ("linear", "cosine")
    }
    assert rates["linear"] == pytest.approx([0, 5e-4, *(1e-3 * n / 6 for n in range(6, 0, -1))])
    expected = [1e-3 * (1 + math.cos(math.pi * n / 6)) / 2 for n in range(6)]
    assert rates["cosine"] == pytest.approx([0, 5e-4, *expected])


def test_null_windows_weigh_what_they_are_said_to(tiny_model: Path) -> None:
    """Weight 0 leaves their loss out; the mean is still over all windows of the step."""
    one = replace(SETTINGS, batch_size=BatchSize(1, num_features=30), num_epochs=1)
    trainers = [
        make_trainer(tiny_model, settings=replace(one, null_weight=weight))
        for weight in (0.0, 0.5, 1.0)
    ]
    losses = [next(trainer.run()).loss for trainer in trainers]
    assert losses[1] == pytest.approx((losses[0] + losses[2]) / 2, rel=1e-5)
    features = make_features(tiny_model)
    is_null = features["start_positions"].to_numpy() == features["cls_index"].to_numpy()
    assert is_null.sum() == 2
    trainer = make_trainer(tiny_model, settings=one)
    trainer.model.eval()
    batch = collate(features, np.flatnonzero(~is_null), trainer.rules)
    kept = float(trainer.losses(batch).detach().sum())
    assert losses[0] == pytest.approx(kept / 23, rel=1e-5)


def test_signals_of_all_ranks_come_back_with_a_step(tiny_model: Path) -> None:
    """What is signalled between two steps is told with the next, once."""
    trainer = make_trainer(tiny_model)
    found = []
    for done in trainer.run():
        found.append(done.signal)
        if done.step in (2, 5):
            trainer.signal = done.step
    assert found == [0, 0, 2, 0, 0, 5, 0, 0]


def test_padding_does_not_change_a_loss(tiny_model: Path) -> None:
    """A feature's loss is the same alone, beside a longer one, and packed."""
    trainer = make_trainer(tiny_model)
    trainer.model.eval()
    features, rules = make_features(tiny_model), trainer.rules
    padded = replace(rules, packed_position=None)
    model = load_model(str(tiny_model), seed=0).eval()
    losses = [
        float(span_losses(*model_logits(one, batch, None), batch)[0].detach())
        for one, batch in (
            (model, collate(features, [0, 22], padded)),
            (model, collate(features, [0], padded)),
            (trainer.model, collate(features, [0, 22], rules)),
        )
    ]
    assert losses[1:] == pytest.approx([losses[0]] * 2, abs=1e-5)


def test_a_loss_that_is_no_number_names_step_and_features(tiny_model: Path) -> None:
    """A diverged run stops at once, its weights unspoilt by the step, instead of going on."""
    trainer = make_trainer(tiny_model)
    with torch.no_grad():
        trainer.model.qa_outputs.weight.fill_(math.nan)
    with pytest.raises(QAError, match=r"batch of features q\d+#0, .*the loss is nan.* at step 1"):
        next(trainer.run())
    assert trainer.step == 0
    assert not torch.isnan(trainer.model.bert.embeddings.word_embeddings.weight).any()


def test_a_rate_that_diverges_ends_the_run(tiny_model: Path) -> None:
    """A learning rate far too high is said to be the cause."""
    settings = replace(SETTINGS, learning_rate=1e30, num_epochs=30, warmup_ratio=0.0)
    with pytest.raises(QAError, match=r"lower train\.learning_rate"):
        list(make_trainer(tiny_model, settings=settings).run())


def test_foreign_checkpoints_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    """Another batch plan, another model, no checkpoint: each is named."""
    checkpoint = keep(make_trainer(tiny_model), tmp_path / "checkpoint")
    make_trainer(tiny_model).load_state(checkpoint)
    others = {
        "another plan": replace(SETTINGS, seed=4),
        "another plan and another num_steps": replace(SETTINGS, batch_size=BatchSize(6, 2)),
        "another num_steps": replace(SETTINGS, num_epochs=3),
    }
    for message, settings in others.items():
        with pytest.raises(ModelError, match=f"the checkpoint was made with {message}\\."):
            make_trainer(tiny_model, settings=settings).load_state(checkpoint)
    trainer = make_trainer(tiny_model)
    trainer.model.qa_outputs = torch.nn.Linear(32, 3)
    with pytest.raises(ModelError, match="made with another model"):
        trainer.load_state(checkpoint)
    with pytest.raises(ModelError, match="the checkpoint cannot be read"):
        trainer.load_state(tmp_path)
    (checkpoint / STATE_FILE).write_bytes((checkpoint / STATE_FILE).read_bytes()[:1000])
    with pytest.raises(ModelError, match="the checkpoint cannot be read"):
        make_trainer(tiny_model).load_state(checkpoint)


def test_no_features_are_refused(tiny_model: Path) -> None:
    """Set-up errors come before the first step."""
    features = make_features(tiny_model).slice(0, 0)
    rules = padding_rules(load_tokenizer(str(tiny_model)))
    model = load_model(str(tiny_model), seed=0)
    with pytest.raises(DataError, match="no training features"):
        Trainer(model, features, settings=SETTINGS, rules=rules, process=Process())


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
