"""A model is pushed whole and once; what would stop a push is said before any work."""

import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest
from huggingface_hub import ModelCard, constants

from jobs import hub as hub_module
from jobs.artefacts import HUB, begin_run, check_run, save_model
from jobs.check import check_push
from jobs.configuration import CheckConfig, DecodingSettings, HubSettings, TrainConfig
from jobs.hub import check_hub, check_name, plain, push_model, was_pushed
from jobs.models import model_digest
from qa_core.errors import ConfigError, StorageError
from qa_core.storage import write_bytes
from tests.hub import ORG, TOKEN, USER, FakeHub, hub_at, hub_server
from tests.s3 import s3_server, storage_at
from tests.test_model_card import render

NAME = f"{ORG}/orla"
SETTINGS = HubSettings(repo_id=NAME)
FILES = {
    "config.json": b'{"model_type": "bert"}',
    "model.safetensors": bytes(range(256)) * 4_000,
    "README.md": render().encode(),
}


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[FakeHub]:
    """A Hub that knows the token of this process."""
    with hub_server() as server, hub_at(server.address, tmp_path / "home"):
        yield server


@pytest.fixture
def run(tmp_path: Path) -> str:
    """A run with a model."""
    return write_run(str(tmp_path / "orla"))


def write_run(folder: str) -> str:
    """Leave a model in a run's folder; the folder."""
    for name, content in FILES.items():
        write_bytes(f"{folder}/model/{name}", content)
    return folder


def test_a_model_is_pushed_with_its_card_once(hub: FakeHub, run: str) -> None:
    """All files in one commit, private; hub.json says where; again, nothing is asked."""
    check_hub(SETTINGS, run, is_finished=False)
    push_model(SETTINGS, run)
    assert hub.files == {NAME: FILES}
    assert hub.visibility == {NAME: "private"}
    assert hub.commits == ["Model of the run orla"]
    assert (
        ModelCard(hub.files[NAME]["README.md"].decode()).data.pipeline_tag == "question-answering"
    )
    pushed = json.loads(Path(run, HUB).read_text())
    assert (pushed["repo_id"], pushed["url"]) == (NAME, f"{hub.address}/{NAME}")
    assert pushed["commit_url"].startswith(f"{hub.address}/{NAME}/commit/")
    hub.asked.clear()
    check_hub(SETTINGS, run, is_finished=True)
    push_model(SETTINGS, run)
    assert not hub.asked


def test_nothing_is_asked_of_the_hub_without_a_name(hub: FakeHub, run: str) -> None:
    """The default: the model stays here."""
    check_hub(HubSettings(), run, is_finished=False)
    push_model(HubSettings(), run)
    assert not hub.asked
    assert not Path(run, HUB).exists()


def test_a_name_alone_is_in_the_users_space_and_may_be_public(hub: FakeHub, run: str) -> None:
    """The Hub puts it there; hub.private false is passed on."""
    settings = HubSettings(repo_id="orla", private=False)
    check_hub(settings, run, is_finished=False)
    push_model(settings, run)
    assert hub.files == {f"{USER}/orla": FILES}
    assert hub.visibility == {f"{USER}/orla": "public"}
    assert was_pushed(settings, run) is not None
    assert was_pushed(SETTINGS, run) is None, "another repository has it not"


def test_a_repository_that_is_there_gets_what_changed(hub: FakeHub, run: str) -> None:
    """Pushing what the Hub has is no error, and makes no commit."""
    push_model(SETTINGS, run)
    Path(run, HUB).unlink()
    push_model(SETTINGS, run)
    assert len(hub.commits) == 1
    Path(run, HUB).unlink()
    Path(run, "model", "config.json").write_text("{}")
    push_model(SETTINGS, run)
    assert len(hub.commits) == 2
    assert hub.files[NAME] == {**FILES, "config.json": b"{}"}


@pytest.mark.parametrize("what", ["create", "preupload", "commit"])
def test_a_push_that_fails_is_made_up_for(what: str, hub: FakeHub, run: str) -> None:
    """The error says where the results are and what to do; the same call again pushes."""
    hub.refused[what] = 403
    with pytest.raises(
        StorageError, match=r"not pushed \(403.*all results are in .*orla"
    ) as caught:
        push_model(SETTINGS, run)
    assert f"hub.repo_id {NAME} at {hub.address}" in str(caught.value)
    assert TOKEN not in str(caught.value)
    assert not Path(run, HUB).exists()
    hub.refused.clear()
    push_model(SETTINGS, run)
    assert hub.files == {NAME: FILES}


def test_a_model_written_again_is_not_yet_pushed(hub: FakeHub, run: str) -> None:
    """A sweep that went on has another winner: its new model is pushed, too."""
    push_model(SETTINGS, run)
    save_model(
        run,
        checkpoint=f"{run}/model",
        max_length=96,
        doc_stride=32,
        decoding=DecodingSettings(),
        null_threshold=None,
    )
    assert was_pushed(SETTINGS, run) is None
    push_model(SETTINGS, run)
    assert b"doc_stride" in hub.files[NAME]["config.json"]


def test_a_model_on_object_storage_is_pushed(hub: FakeHub) -> None:
    """It is copied here for as long as the push takes."""
    with s3_server() as server, storage_at(server.address):
        run = write_run("s3://bucket/orla")
        push_model(SETTINGS, run)
        assert was_pushed(SETTINGS, run) is not None
    assert hub.files == {NAME: FILES}


@pytest.mark.parametrize(
    "name", ["a/b/c", "", "-x/y", "org/na me", "org/x..y", "org/x.git", "org/" + "x" * 97, "é/x"]
)
def test_names_of_no_valid_form_are_refused(name: str) -> None:
    """Before anything is asked of the Hub."""
    with pytest.raises(ConfigError, match=r"hub\.repo_id: .*ORG/NAME"):
        check_name(name)


def test_a_missing_token_is_told(hub: FakeHub, run: str, tmp_path: Path) -> None:
    """With the two ways to give one."""
    with (
        hub_at(hub.address, tmp_path / "home", token=None),
        pytest.raises(ConfigError, match=r"there is no token.*hf auth login.*HF_TOKEN"),
    ):
        check_hub(SETTINGS, run, is_finished=False)
    assert not hub.asked


def test_a_wrong_token_is_told_and_not_shown(hub: FakeHub, run: str, tmp_path: Path) -> None:
    """The Hub's own words, without the token."""
    with (
        hub_at(hub.address, tmp_path / "home", token="hf_wrong"),
        pytest.raises(ConfigError, match=r"does not take the token.*HF_TOKEN") as caught,
    ):
        check_hub(SETTINGS, run, is_finished=False)
    assert "hf_wrong" not in str(caught.value)


def test_a_token_that_no_header_can_hold_is_not_shown(
    hub: FakeHub, run: str, tmp_path: Path
) -> None:
    """Libraries put the whole header into their errors."""
    with (
        hub_at(hub.address, tmp_path / "home", token="hf_wr\x01ong"),
        pytest.raises((ConfigError, StorageError)) as caught,
    ):
        check_hub(SETTINGS, run, is_finished=False)
    assert "ong" not in str(caught.value).split("Expected")[0]


def test_a_token_in_an_error_is_left_out(hub: FakeHub) -> None:
    """Nor are credentials of an address told."""
    error = ValueError(f"Illegal header b'Bearer {TOKEN}'\n at https://marta:pw@host/x")
    assert plain(error) == "Illegal header b'Bearer …' at https://host/x"


def test_a_token_that_may_only_read_is_refused(hub: FakeHub, run: str) -> None:
    """At the beginning, not after the training."""
    hub.role = "read"
    with pytest.raises(ConfigError, match="may only read"):
        check_hub(SETTINGS, run, is_finished=False)


def test_another_ones_space_is_refused(hub: FakeHub, run: str) -> None:
    """With the spaces that would do; a token with rights for single repositories may know more."""
    settings = replace(SETTINGS, repo_id="theirs/orla")
    with pytest.raises(ConfigError, match=f"theirs/orla is not in.*one of {USER}, {ORG}"):
        check_hub(settings, run, is_finished=False)
    hub.role = "fineGrained"
    check_hub(settings, run, is_finished=False)


def test_offline_mode_is_told(hub: FakeHub, run: str) -> None:
    """The client would refuse every request, after the training."""
    with (
        patch.object(constants, "HF_HUB_OFFLINE", True),
        pytest.raises(ConfigError, match=r"HF_HUB_OFFLINE.*unset it, or push later"),
    ):
        check_hub(SETTINGS, run, is_finished=False)
    assert not hub.asked


def test_nobody_at_the_hubs_address_is_told(run: str, tmp_path: Path) -> None:
    """Refused connections, at an address whose credentials are not shown."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://marta:secret@127.0.0.1:{free.getsockname()[1]}"
        with (
            hub_at(address, tmp_path / "home"),
            pytest.raises(StorageError, match=r"does not answer.*HF_ENDPOINT") as caught,
        ):
            check_hub(SETTINGS, run, is_finished=False)
    assert "secret" not in str(caught.value)


def test_a_hub_that_never_answers_is_given_up(
    run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client's own patience has no end."""
    monkeypatch.setattr(hub_module, "SECONDS_TO_ANSWER", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with (
            hub_at(address, tmp_path / "home"),
            pytest.raises(StorageError, match=f"{address} does not answer"),
        ):
            check_hub(SETTINGS, run, is_finished=False)


def test_something_else_at_the_hubs_address_is_told(run: str, tmp_path: Path) -> None:
    """A proxy's page of 200 characters is no answer of the Hub."""
    with socket.create_server(("127.0.0.1", 0)) as other:

        def answer() -> None:
            connection, _ = other.accept()
            with connection:
                connection.recv(10_000)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>")

        threading.Thread(target=answer, daemon=True).start()
        address = f"http://127.0.0.1:{other.getsockname()[1]}"
        with (
            hub_at(address, tmp_path / "home"),
            pytest.raises(StorageError, match="does not answer as the Hub does"),
        ):
            check_hub(SETTINGS, run, is_finished=False)


def test_a_check_of_the_cluster_looks_at_the_hub(hub: FakeHub, tmp_path: Path) -> None:
    """`jobs.check` tells what would stop the push."""
    config = CheckConfig(storage_path=str(tmp_path), hub=SETTINGS)
    assert check_push(config).is_good
    hub.role = "read"
    finding = check_push(config)
    assert not finding.is_good
    assert "may only read" in finding.found


def test_where_a_model_is_pushed_is_not_what_a_run_is(tmp_path: Path) -> None:
    """A run is continued, and a finished one pushed, with other keys of the Hub."""
    run, config = str(tmp_path), TrainConfig()
    begin_run(run, config, {})
    check_run(run, replace(config, hub=HubSettings(repo_id=NAME, private=False)), {})


def test_a_card_that_people_write_in_does_not_make_another_model(run: str) -> None:
    """Evaluations of the model go on."""
    before = model_digest(f"{run}/model")
    Path(run, "model", "README.md").write_text("# Mine")
    assert model_digest(f"{run}/model") == before
    Path(run, "model", "config.json").write_text("{}")
    assert model_digest(f"{run}/model") != before
