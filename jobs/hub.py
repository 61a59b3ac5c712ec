"""The model on the Hub: whether it can be pushed, said before any work, and the push at the end.

The token is that of the machine the job's driver runs on; it is never a setting, and in no file or
message. `hub.json` in the run's folder says what was pushed, so that the same command pushes what
was not, and nothing twice.
"""

import contextlib
import json
import re
import tempfile
from collections.abc import Iterator
from typing import Any

from huggingface_hub import HfApi, get_token
from huggingface_hub.constants import is_offline_mode
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import (  # type: ignore[attr-defined]  # public, loaded when needed
    get_session,
    validate_repo_id,
)
from pyarrow import fs
from rich.markup import escape

from jobs.artefacts import HUB, write_json
from jobs.cluster import console
from jobs.configuration import HubSettings
from qa_core.errors import ConfigError, StorageError
from qa_core.storage import is_file, join, locate, read_bytes

WHERE = "hub.repo_id"
LOG_IN = "`hf auth login`, or export HF_TOKEN, on the machine of the job's driver"
SECONDS_TO_ANSWER = 60.0  # the Hub's gateway gives up after as many
ERROR_CHARACTERS = 400  # of what the Hub says


def check_hub(settings: HubSettings, run: str, *, is_finished: bool) -> None:
    """Raise where the model could not be pushed; of a finished run that was, nothing is asked.

    `ConfigError` for a name of no valid form, offline mode, no token, or one that may not write
    there; `StorageError` where the Hub does not answer.
    """
    if settings.repo_id is None:
        return
    check_name(settings.repo_id)
    if is_finished and was_pushed(settings, run) is not None:
        return
    if is_offline_mode():
        raise ConfigError(
            "offline mode is on (HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set)",
            WHERE,
            "a network, to push the model",
            "unset it, or push later: the same command with --hub.repo_id pushes a finished run",
        )
    check_user(settings.repo_id, ask_user())


def check_name(repo_id: str) -> None:
    """Raise `ConfigError` unless this can be a repository's name."""
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ConfigError(plain(error), WHERE, "ORG/NAME, as the Hub takes it") from None


def ask_user() -> dict[str, Any]:
    """What the Hub says of the token's owner."""
    try:
        token = get_token()
        if token is None:
            raise ConfigError("there is no token", WHERE, "a token that may write", LOG_IN)
        return dict(connect().whoami(token))
    except ConfigError:
        raise
    except Exception as error:  # the Hub's client raises errors of many libraries
        status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
        if status in (401, 403):
            raise ConfigError(
                f"the Hub does not take the token ({plain(error)})",
                WHERE,
                "a valid token that may write",
                LOG_IN,
            ) from None
        raise StorageError(
            f"{hub_address()} does not answer as the Hub does ({plain(error)})",
            WHERE,
            "the Hub, or what HF_ENDPOINT names",
            "check network and HF_ENDPOINT, or push later: the same command with --hub.repo_id "
            "pushes a finished run",
        ) from None


def check_user(repo_id: str, user: dict[str, Any]) -> None:
    """Raise `ConfigError` where the token can read alone, or the name is in another's space.

    Of a token with rights of its own for each repository only the push can tell.
    """
    role = ((user.get("auth") or {}).get("accessToken") or {}).get("role")
    if role == "read":
        raise ConfigError("the token may only read", WHERE, "a token that may write", LOG_IN)
    space = repo_id.rpartition("/")[0]
    own = [user.get("name"), *(org.get("name") for org in user.get("orgs") or ())]
    if role == "write" and space and space.lower() not in {str(name).lower() for name in own}:
        raise ConfigError(
            f"{repo_id} is not in a space of the token's owner",
            WHERE,
            f"one of {', '.join(map(str, own))} before the slash",
            "check the name, or take the token of a member",
        )


def push_model(settings: HubSettings, run: str) -> None:
    """Push model/ to the Hub, unless that was done; the end of a job, when all else is on storage.

    Raises `StorageError` where it cannot be pushed now.
    """
    if settings.repo_id is None:
        return
    url = was_pushed(settings, run)
    if url is not None:
        console.print(f"On the Hub already: {escape(url)}")
        return
    name = run.rpartition("/")[2]
    try:
        with local_folder(join(run, "model")) as folder:
            api = connect()
            repository = api.create_repo(settings.repo_id, private=settings.private, exist_ok=True)
            commit = api.upload_folder(
                repo_id=repository.repo_id,
                folder_path=folder,
                commit_message=f"Model of the run {name}",
            )
    except Exception as error:  # the Hub's client raises errors of many libraries
        raise StorageError(
            f"the model was not pushed ({plain(error)})",
            f"{WHERE} {settings.repo_id} at {hub_address()}",
            "a Hub that answers, and a token that may write there",
            f"all results are in {run}; the same command again pushes the model",
        ) from None
    pushed = {
        "repo_id": settings.repo_id,
        "url": str(repository),
        "commit_url": str(commit.commit_url),
    }
    write_json(join(run, HUB), pushed)
    console.print(f"Pushed to the Hub: [bold]{escape(pushed['url'])}[/bold]")


def was_pushed(settings: HubSettings, run: str) -> str | None:
    """Where the run's model is in the repository on the Hub; None where it is not there yet."""
    file = join(run, HUB)
    if not is_file(file):
        return None
    pushed = json.loads(read_bytes(file))
    return str(pushed["commit_url"]) if pushed["repo_id"] == settings.repo_id else None


def connect() -> HfApi:
    """The Hub's client, which tries again itself where that helps."""
    get_session().timeout = SECONDS_TO_ANSWER  # left to itself it waits without end
    return HfApi()


def hub_address() -> str:
    """The address of the Hub, without what lets one in."""
    return re.sub(r"//[^/]*@", "//", HfApi().endpoint)


def plain(error: Exception) -> str:
    """What an error of the Hub's client says: on one line, and never the token."""
    text = " ".join(str(error).split()) or type(error).__name__
    token = None
    with contextlib.suppress(Exception):  # of asking for a token, which the error may be about
        token = get_token()
    for secret in (token, repr(token)[1:-1]) if token else ():
        text = text.replace(secret, "…")
    return re.sub(r"//[^/\s]*@", "//", text)[:ERROR_CHARACTERS].rstrip(".")


@contextlib.contextmanager
def local_folder(uri: str) -> Iterator[str]:
    """A folder on this machine with what `uri` holds: itself, or a copy for as long."""
    filesystem, path = locate(uri)
    if isinstance(filesystem, fs.LocalFileSystem):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        fs.copy_files(path, folder, source_filesystem=filesystem)
        yield folder
