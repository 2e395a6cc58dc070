"""A hub on this machine: one model, its files by ranges, and a record of what was asked for."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class StubHub(ThreadingHTTPServer):
    """Serves `folder` as the model `name`."""

    daemon_threads = True

    def __init__(self, folder: Path, name: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder, self.name, self.knows_ranges, self.status = folder, name, True, 200
        self.sent: list[tuple[str, int]] = []
        """(file, bytes) of each answer."""

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def bytes_of(self, end: str) -> int:
        """How much was sent of the files whose names end so."""
        return sum(size for file, size in self.sent if file.endswith(end))


class _Handler(BaseHTTPRequestHandler):
    server: StubHub

    def do_GET(self) -> None:
        hub = self.server
        if hub.status != 200:
            self._answer(hub.status, b"")
        elif self.path.startswith(f"/api/models/{hub.name}/revision/"):
            files = [{"rfilename": path.name} for path in sorted(hub.folder.iterdir())]
            self._answer(200, json.dumps({"sha": COMMIT, "siblings": files}).encode())
        elif self.path.startswith(f"/{hub.name}/resolve/{COMMIT}/"):
            file = self.path.rpartition("/")[2]
            content, given = (hub.folder / file).read_bytes(), self.headers.get("Range")
            if given and hub.knows_ranges:
                begin, end = given.removeprefix("bytes=").split("-")
                content = content[int(begin) : int(end) + 1]
            hub.sent.append((file, len(content)))
            self._answer(206 if given and hub.knows_ranges else 200, content)
        else:
            self._answer(404, b"")

    def _answer(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def stub_hub(folder: Path, name: str = "someone/tiny") -> Iterator[StubHub]:
    """A running hub."""
    hub = StubHub(folder, name)
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()
