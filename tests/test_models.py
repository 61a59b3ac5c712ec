"""Models at URIs: what of them is copied to this machine, and for how long."""

import shutil
from pathlib import Path

import pytest
import torch

from jobs.configuration import FeatureSettings
from jobs.models import check_model, load_model_config, model_here, model_texts
from jobs.shard_scoring import load_checkpoint
from jobs.token_store import cached_tokenizer
from qa_core.errors import ModelError
from qa_core.training import STATE_FILE, load_model


@pytest.fixture
def checkpoint(tiny_model: Path, tmp_path: Path) -> Path:
    """A model's folder with the state of its training."""
    folder = tmp_path / "checkpoint"
    shutil.copytree(tiny_model, folder)
    (folder / STATE_FILE).write_bytes(b"state")
    return folder


@pytest.fixture
def copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where copies are made."""
    folder = tmp_path / "copies"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def test_a_copy_with_weights_is_gone_once_it_is_loaded(checkpoint: Path, copies: Path) -> None:
    """A process that is killed later leaves none; what is not needed is not copied."""
    with model_here(checkpoint.as_uri()) as folder:
        assert Path(folder).parent == copies
        assert {p.name for p in Path(folder).iterdir()} == {p.name for p in checkpoint.iterdir()}
    with model_here(checkpoint.as_uri(), leave_out=(STATE_FILE,)) as folder:
        assert not (Path(folder) / STATE_FILE).exists()
    loaded = load_checkpoint(checkpoint.as_uri())
    assert not list(copies.iterdir())
    expected = load_model(str(checkpoint), seed=0).state_dict()
    assert all(torch.equal(values, expected[name]) for name, values in loaded.state_dict().items())


def test_tokenizer_and_configuration_need_no_weights(
    checkpoint: Path, copies: Path, tmp_path: Path
) -> None:
    """Their copy stays, since saving a tokenizer may read it again; and it is made once."""
    uri = checkpoint.as_uri()
    assert check_model(uri, FeatureSettings(max_length=64, doc_stride=16)) == uri
    assert load_model_config(uri).num_hidden_layers == 2
    cached_tokenizer(uri).save_pretrained(tmp_path / "saved")
    [folder] = copies.iterdir()
    assert str(folder) == model_texts(uri)
    names = {path.name for path in folder.iterdir()}
    assert "tokenizer.json" in names
    assert not names & {"model.safetensors", STATE_FILE}


def test_a_folder_here_is_not_copied(checkpoint: Path, copies: Path) -> None:
    """It is the model."""
    assert model_texts(str(checkpoint)) == str(checkpoint)
    with model_here(str(checkpoint)) as folder:
        assert folder == str(checkpoint)
    assert not list(copies.iterdir())


def test_a_uri_without_a_folder_is_named(tmp_path: Path) -> None:
    """Before anything is loaded."""
    uri = (tmp_path / "nowhere").as_uri()
    with (
        pytest.raises(ModelError, match=r"nowhere: no such folder. Expected: the URI"),
        model_here(uri),
    ):
        pass
    with pytest.raises(ModelError, match=r"nowhere: no such folder. Expected: the URI"):
        check_model(uri, FeatureSettings())
