"""A Hub on this machine: as much of its API as a push needs, and refusals when told to."""

import base64
import hashlib
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import yaml
from flask import Flask, Response, jsonify, request
from huggingface_hub import constants
from huggingface_hub.utils import close_session
from werkzeug.serving import make_server

USER, ORG, TOKEN = "marta", "bridges", "hf_token-of-the-test"


class FakeHub:
    """What was pushed, by repository; what was asked; and what is to be refused."""

    def __init__(self) -> None:
        self.address = ""
        self.role = "write"
        self.files: dict[str, dict[str, bytes]] = {}  # content by path, by repository
        self.visibility: dict[str, str | None] = {}
        self.commits: list[str] = []  # their messages
        self.asked: list[str] = []  # the last part of each path
        self.refused: dict[str, int] = {}  # statuses to answer with, by what is asked
        self.app = Flask("hub")
        self.app.before_request(self.admit)
        for method, rule, answer in (
            ("GET", "/api/whoami-v2", self.whoami),
            ("POST", "/api/repos/create", self.create),
            ("POST", "/api/validate-yaml", self.validate),
            ("POST", "/api/models/<path:name>/preupload/main", self.preupload),
            ("POST", "/api/models/<path:name>/commit/main", self.commit),
            ("GET", "/api/models/<path:name>/revision/main", self.info),
        ):
            self.app.add_url_rule(rule, view_func=answer, methods=[method])

    def admit(self) -> Response | None:
        """Refuse a wrong token, and what is told to be refused."""
        self.asked += [
            kind
            for kind in ("whoami", "create", "preupload", "commit")
            if f"/{kind}" in request.path
        ]
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return Response('{"error": "Invalid credentials"}', 401)
        for kind, status in self.refused.items():
            if f"/{kind}" in request.path:
                return Response('{"error": "refused by the test"}', status)
        return None

    def whoami(self) -> Response:
        """The token's owner."""
        access = {"displayName": "test", "role": self.role}
        return jsonify(name=USER, orgs=[{"name": ORG}], auth={"accessToken": access})

    def create(self) -> Response:
        """A repository that is made, or is there already."""
        asked = request.get_json()
        name = f"{asked['organization'] or USER}/{asked['name']}"
        answer = jsonify(url=f"{self.address}/{name}")
        if name in self.files:
            answer.status_code = 409
        else:
            self.files[name] = {}
            self.visibility[name] = asked.get("visibility")
        return answer

    def validate(self) -> Response:
        """Whether a card's metadata can be read."""
        yaml.safe_load(request.get_json()["content"].split("\n---\n")[0])
        return jsonify(errors=[], warnings=[])

    def preupload(self, name: str) -> Response:
        """All files travel within the commit; of those that are there, git's digests."""
        there = self.files[name]
        files = [
            {
                "path": file["path"],
                "uploadMode": "regular",
                "shouldIgnore": False,
                "oid": blob_digest(there[file["path"]]) if file["path"] in there else None,
            }
            for file in request.get_json()["files"]
        ]
        return jsonify(files=files)

    def commit(self, name: str) -> Response:
        """The commit's message, then its files, a line of JSON each."""
        for line in map(json.loads, request.get_data().splitlines()):
            value: dict[str, Any] = line["value"]
            if line["key"] == "header":
                self.commits.append(value["summary"])
            else:
                self.files[name][value["path"]] = base64.b64decode(value["content"])
        digest = self.head()
        return jsonify(commitUrl=f"{self.address}/{name}/commit/{digest}", commitOid=digest)

    def info(self, name: str) -> Response:
        """The repository's last commit."""
        return jsonify(id=name, sha=self.head())

    def head(self) -> str:
        """Names the last commit."""
        return hashlib.sha1(str(len(self.commits)).encode()).hexdigest()


def blob_digest(content: bytes) -> str:
    """What git calls a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@contextmanager
def hub_server() -> Iterator[FakeHub]:
    """A Hub with no repositories."""
    hub = FakeHub()
    server = make_server("127.0.0.1", 0, hub.app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    hub.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()


def hub_environment(address: str, home: Path, token: str = TOKEN) -> dict[str, str]:
    """What a process is told so that the Hub is at `address`, and knows no other token."""
    return {
        "HF_ENDPOINT": address,
        "HF_TOKEN": token,
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": "0",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }


@contextmanager
def hub_at(address: str, home: Path, *, token: str | None = TOKEN) -> Iterator[None]:
    """The Hub is at `address`, in this process; huggingface_hub read the environment long ago."""
    environment = hub_environment(address, home, token or "")
    close_session()
    with (
        patch.dict(os.environ, environment),
        patch.object(constants, "ENDPOINT", address),
        patch.object(constants, "HF_TOKEN_PATH", str(home / "token")),
        patch.object(constants, "HF_HUB_OFFLINE", False),
    ):
        for name in ("HUGGING_FACE_HUB_TOKEN", "HF_OIDC_RESOURCE"):
            os.environ.pop(name, None)
        yield
    close_session()
