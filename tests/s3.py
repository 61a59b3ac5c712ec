"""An S3 server on this machine that fails when told to."""

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import requests
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

from qa_core import storage

KEYS = {"AWS_ACCESS_KEY_ID": "key-of-the-test", "AWS_SECRET_ACCESS_KEY": "secret-of-the-test"}
ERRORS = {
    403: ("AccessDenied", "Forbidden"),
    500: ("InternalError", "Internal Server Error"),
    503: ("SlowDown", "Slow Down"),
}


class FaultyS3:
    """An S3 server's application; it answers with errors while it is told to."""

    def __init__(self) -> None:
        self.app: Any = DomainDispatcherApplication(create_backend_app)
        self.address = ""
        self.errors: dict[str, list[int]] = {}  # statuses of the next answers, by method
        self.refused: list[tuple[str, int]] = []  # what was answered so

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        """Answer one request."""
        method = environ["REQUEST_METHOD"]
        if not self.errors.get(method):
            answer: Iterable[bytes] = self.app(environ, start_response)
            return answer
        list(self.app(environ, lambda *_: None))  # which reads what was sent, in pieces perhaps
        status = self.errors[method].pop(0)
        self.refused.append((method, status))
        code, words = ERRORS[status]
        body = b"" if method == "HEAD" else f"<Error><Code>{code}</Code></Error>".encode()
        start_response(f"{status} {words}", [("Content-Length", str(len(body)))])
        return [body]


@contextmanager
def s3_server() -> Iterator[FaultyS3]:
    """A server with an empty bucket called "bucket"."""
    faulty = FaultyS3()
    server = make_server("127.0.0.1", 0, faulty, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    faulty.address = f"http://127.0.0.1:{server.server_port}"
    try:
        requests.put(f"{faulty.address}/bucket", timeout=10).raise_for_status()
        yield faulty
    finally:
        server.shutdown()
        thread.join()


@contextmanager
def storage_at(endpoint: str) -> Iterator[None]:
    """s3:// means the server at `endpoint`, in this process."""
    storage._s3.cache_clear()
    try:
        with patch.dict(os.environ, {**KEYS, "AWS_ENDPOINT_URL": endpoint}):
            yield
    finally:
        storage._s3.cache_clear()
