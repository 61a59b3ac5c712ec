"""Checkpoints on storage: whole or not there, patient with storage, tidy, and their history."""

import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pyarrow import fs

from qa_core import checkpoints, storage
from qa_core.checkpoints import (
    ABOUT,
    CHECKPOINTS,
    HISTORY,
    CheckpointFacts,
    CheckpointWriter,
    checkpoints_to_remove,
    copy_tensors,
    find_checkpoints,
    read_history,
    remove_checkpoint,
    write_checkpoint,
)
from qa_core.errors import StorageError
from qa_core.storage import write_json_lines
from qa_core.tokenizing import load_tokenizer
from qa_core.training import Trainer, load_model
from tests.test_training import make_trainer


def facts_of(step: int, *, is_scored: bool = True) -> CheckpointFacts:
    """A checkpoint of 10 steps an epoch."""
    return CheckpointFacts(step, step / 10, is_scored=is_scored)


def write_some(root: Path, facts: CheckpointFacts) -> Path:
    """A checkpoint with two small files."""

    def write(folder: Path) -> None:
        (folder / "a.txt").write_text("first")
        (folder / "b.txt").write_text("second")

    write_checkpoint(str(root), facts, write)
    return root / facts.name


def test_checkpoints_are_found_by_step(tmp_path: Path) -> None:
    """What was written is found with its facts; nothing is found where there is no folder."""
    assert find_checkpoints(str(tmp_path / "none")) == ([], [])
    for step in (20, 5, 100):
        write_some(tmp_path, facts_of(step, is_scored=step == 20))
    whole, broken = find_checkpoints(str(tmp_path))
    assert whole == [facts_of(5, is_scored=False), facts_of(20), facts_of(100, is_scored=False)]
    assert broken == []
    assert {path.name for path in tmp_path.iterdir()} == {facts.name for facts in whole}


@pytest.mark.parametrize("damage", ["cut", "gone", "no list", "half a list", "renamed"])
def test_a_checkpoint_that_is_not_whole_is_none(damage: str, tmp_path: Path) -> None:
    """It is named as broken, and the one before it counts."""
    write_some(tmp_path, facts_of(5))
    folder = write_some(tmp_path, facts_of(9))
    if damage == "cut":
        (folder / "b.txt").write_text("sec")
    elif damage == "gone":
        (folder / "a.txt").unlink()
    elif damage == "no list":
        (folder / ABOUT).unlink()
    elif damage == "half a list":
        (folder / ABOUT).write_text((folder / ABOUT).read_text()[:20])
    else:
        folder = folder.rename(tmp_path / "step-00000010")
    assert find_checkpoints(str(tmp_path)) == ([facts_of(5)], [folder.name])


def test_a_write_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    """No half checkpoint, no scratch folder, and the one of that name before it is untouched."""

    def fail(folder: Path) -> None:
        (folder / "a.txt").write_text("half")
        raise OSError(28, "No space left on device")

    write_some(tmp_path, facts_of(5))
    for step in (5, 6):
        with pytest.raises(StorageError, match=r"cannot be written.*No space left.*make room"):
            write_checkpoint(str(tmp_path), facts_of(step), fail)
    assert find_checkpoints(str(tmp_path)) == ([facts_of(5)], [])
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000005"]


def test_a_checkpoint_on_object_storage_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through a filesystem that is not local: files are copied, the list comes last."""
    far = fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem())
    for module in (checkpoints, storage):
        monkeypatch.setattr(module, "locate", lambda uri: (far, uri.removeprefix("far://")))
    uri = "far://remote"
    write_checkpoint(uri, facts_of(5), _fill)
    assert find_checkpoints(uri)[0] == [facts_of(5)]
    names = {path.name for path in (tmp_path / "remote" / "step-00000005").iterdir()}
    assert names == {"a.txt", "b.txt", ABOUT}
    remove_checkpoint(uri, "step-00000005")
    remove_checkpoint(uri, "step-00000005")
    assert find_checkpoints(uri) == ([], [])


def _fill(folder: Path) -> None:
    (folder / "a.txt").write_text("first")
    (folder / "b.txt").write_text("second")


def make_writer(run: Path, told: list[str], *, patience: float = 20.0) -> CheckpointWriter:
    """A writer that tells into a list."""
    return CheckpointWriter(str(run), patience_seconds=patience, tell=told.append)


def save(writer: CheckpointWriter, trainer: Trainer, folder: Path, steps: list[Any]) -> None:
    """Save a trainer's state as it is."""
    writer.save(
        CheckpointFacts(trainer.step, trainer.step / 4, is_scored=True),
        model=trainer.model,
        state=trainer.state(),
        tokenizer=load_tokenizer(str(folder)),
        steps=steps,
    )


def test_what_is_saved_is_the_state_of_that_moment(tiny_model: Path, tmp_path: Path) -> None:
    """Training goes on at once and does not change what is being written."""
    told: list[str] = []
    trainer = make_trainer(tiny_model)
    writer = make_writer(tmp_path, told)
    weights: dict[int, Any] = {}
    for done in trainer.run():
        if done.step in (2, 3):
            weights[done.step] = copy_tensors(trainer.model.state_dict())
            save(writer, trainer, tiny_model, [asdict(done)])
    writer.close()
    assert told == []
    whole, _ = find_checkpoints(str(tmp_path / CHECKPOINTS))
    assert [facts.step for facts in whole] == [2, 3]
    for facts in whole:
        folder = tmp_path / CHECKPOINTS / facts.name
        model = load_model(str(folder), seed=5)
        for name, weight in model.state_dict().items():
            assert torch.equal(weight, weights[facts.step][name])
        assert load_tokenizer(str(folder)).vocab_size == load_tokenizer(str(tiny_model)).vocab_size
        resumed = make_trainer(tiny_model)
        resumed.load_state(folder)
        assert resumed.step == facts.step
        assert "packed" not in (folder / "config.json").read_text()


def test_storage_that_comes_back_is_waited_for(tiny_model: Path, tmp_path: Path) -> None:
    """The run's folder cannot be written at first: told, tried again, then all is there."""
    told: list[str] = []
    run = tmp_path / "run"
    run.write_text("a file where the folder should be")
    trainer = make_trainer(tiny_model)

    def tell(text: str) -> None:
        told.append(text)
        run.unlink(missing_ok=True)

    writer = CheckpointWriter(str(run), patience_seconds=20.0, tell=tell)
    save(writer, trainer, tiny_model, [{"step": 1}])
    writer.close()
    assert len(told) == 1
    assert "cannot be" in told[0]
    assert "trying again in" in told[0]
    assert [facts.step for facts in find_checkpoints(str(run / CHECKPOINTS))[0]] == [0]


def test_storage_that_stays_away_is_an_error_and_keeps_the_last_checkpoint(
    tiny_model: Path, tmp_path: Path
) -> None:
    """After the patience the next save raises; the checkpoint before is whole."""
    told: list[str] = []
    trainer = make_trainer(tiny_model)
    save(writer := make_writer(tmp_path, told), trainer, tiny_model, [])
    writer.close()
    (tmp_path / HISTORY).write_text("a file where the folder should be")
    next(trainer.run())
    writer = make_writer(tmp_path, told, patience=0.5)
    save(writer, trainer, tiny_model, [{"step": 1}])
    with pytest.raises(StorageError, match="cannot be written"):
        writer.wait()
    save(writer, trainer, tiny_model, [{"step": 1}])
    with pytest.raises(StorageError, match="cannot be written"):
        writer.close()
    assert find_checkpoints(str(tmp_path / CHECKPOINTS)) == ([facts_of(0)], [])
    assert told
    assert os.listdir(tmp_path / CHECKPOINTS) == ["step-00000000"]


def test_history_follows_the_run_that_counts(tmp_path: Path) -> None:
    """A run that went back to step 2 trained 3 to 6 again: each step is told once, the later."""
    files = {
        2: [(1, "a"), (2, "a")],
        4: [(3, "lost"), (4, "lost")],
        6: [(3, "b"), (4, "b"), (5, "b"), (6, "b")],
        7: [(7, "b")],
    }
    for last, rows in files.items():
        lines = [{"step": step, "of": of} for step, of in rows]
        write_json_lines(f"{tmp_path}/{HISTORY}/step-{last:08d}.jsonl", lines)
    found = [(row["step"], row["of"]) for row in read_history(str(tmp_path), 7)]
    assert found == [(1, "a"), (2, "a"), *((n, "b") for n in range(3, 8))]
    assert list(read_history(str(tmp_path), 0)) == []


def test_best_last_and_waiting_checkpoints_are_kept() -> None:
    """All others go: worse scores, and those only to continue from."""
    whole = [replace(facts_of(step), is_scored=step % 10 == 0) for step in (0, 5, 10, 15, 20, 25)]

    def removed(scores: dict[int, float]) -> list[int]:
        return [facts.step for facts in checkpoints_to_remove(whole, scores=scores)]

    assert removed({}) == [5, 15]
    assert removed({0: 1.0, 10: 8.0}) == [0, 5, 15]
    assert removed({0: 1.0, 10: 8.0, 20: 8.0}) == [0, 5, 15, 20]
    assert removed({0: 1.0, 10: 8.0, 20: 9.0}) == [0, 5, 10, 15]
    assert checkpoints_to_remove([], scores={}) == []


def test_the_list_of_files_is_json_with_sizes(tmp_path: Path) -> None:
    """A person can read what a checkpoint is."""
    folder = write_some(tmp_path, facts_of(5))
    about = json.loads((folder / ABOUT).read_text())
    assert about == {"step": 5, "epoch": 0.5, "is_scored": True, "files": {"a.txt": 5, "b.txt": 6}}
