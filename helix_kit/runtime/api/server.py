"""Running the application: in the foreground for a command line, in a thread for notebooks and tests."""

from __future__ import annotations

import ipaddress
import logging
import socket
import threading
import time
from typing import Any

import uvicorn

from helix_kit.errors import HelixKitError, InputError
from helix_kit.runtime.api.app import create_app
from helix_kit.runtime.engine import Engine

log = logging.getLogger(__name__)
START_S = 30.0


class Server:
    """An HTTP server in a thread; close it, or use it as a context manager."""

    def __init__(self, engine: Engine, host: str, port: int, **options: Any) -> None:
        self._socket = _listen(host, port)
        self.host, self.port = self._socket.getsockname()[:2]
        if not is_loopback(host) and options.get("api_key") is None:
            log.warning("listening on %s without an API key: whoever reaches the port can use the engine", host)
        config = uvicorn.Config(create_app(engine, **options), log_level="warning", lifespan="off", access_log=False)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), daemon=True)

    @property
    def url(self) -> str:
        """Base URL for OpenAI's clients."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/v1"

    def start(self) -> Server:
        """Start the thread and wait until it answers."""
        self._thread.start()
        end = time.monotonic() + START_S
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > end:
                raise HelixKitError("the HTTP server could not be started")
            time.sleep(0.01)
        return self

    def wait(self) -> None:
        """Until the server ends."""
        # Not join(): a Ctrl-C inside it can leave the thread marked as ended while it runs on.
        while self._thread.is_alive():
            time.sleep(0.2)

    def close(self) -> None:
        """Stop taking requests, and end the thread."""
        self._server.should_exit = True
        self._thread.join(5)
        self._server.force_exit = True
        self._thread.join(5)
        self._socket.close()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        made = socket.socket(family, socket.SOCK_STREAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
    except (OSError, OverflowError) as error:
        raise InputError(f"cannot listen there: {error}", field="host:port", value=f"{host}:{port}") from None
    return made


def start_server(engine: Engine, *, host: str = "127.0.0.1", port: int = 0, **options: Any) -> Server:
    """Serve `engine` over HTTP from a thread; `port` 0 takes a free one. `options` as `create_app`.

    Raises InputError when the address cannot be listened on.
    """
    return Server(engine, host, port, **options).start()


def run_server(engine: Engine, *, host: str = "127.0.0.1", port: int = 8000, **options: Any) -> None:
    """Serve `engine` over HTTP until interrupted, then close it; `options` as `create_app`.

    The engine goes first, so that requests under way are answered (503) instead of being cut off.
    """
    with start_server(engine, host=host, port=port, **options) as server:
        try:
            server.wait()
        except KeyboardInterrupt:
            log.info("interrupted")
            engine.close()
