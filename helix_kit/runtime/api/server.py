"""The HTTP server: in the foreground for the command line, in a thread for notebooks and tests."""

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
from helix_kit.runtime.interrupts import sigterm_interrupts

log = logging.getLogger(__name__)
START_S = 30.0
"""Time for the server to start."""


class Server:
    """An HTTP server in a thread; close it, or use it as a context manager.

    Parameters
    ----------
    engine
        What is served; the server does not close it.
    host, port
        Address to listen on; port 0 takes a free one.
    options
        As `create_app`.

    Raises
    ------
    InputError
        When the address cannot be listened on.

    Examples
    --------
    >>> with start_server(engine) as server:                                 # doctest: +SKIP
    ...     print(server.url)
    http://127.0.0.1:41235/v1
    """

    def __init__(self, engine: Engine, host: str, port: int, **options: Any) -> None:
        self._socket = _listen(host, port)
        self.host, self.port = self._socket.getsockname()[:2]
        if not is_loopback(host) and options.get("api_key") is None:
            log.warning("listening on %s without an API key: anybody who reaches the port can use the engine", host)
        config = uvicorn.Config(create_app(engine, **options), log_level="warning", lifespan="off", access_log=False)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), daemon=True)

    @property
    def url(self) -> str:
        """Base URL for OpenAI's clients."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/v1"

    def start(self) -> Server:
        """Start the thread, wait until it answers, and return this server; HelixKitError when it does not start."""
        self._thread.start()
        end = time.monotonic() + START_S
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > end:
                raise HelixKitError("the HTTP server could not be started")
            time.sleep(0.01)
        return self

    def wait(self) -> None:
        """Wait until the server ends."""
        # Not join(): a Ctrl-C in it can mark the thread as ended although it still runs.
        while self._thread.is_alive():
            time.sleep(0.2)

    def close(self) -> None:
        """Take no more requests, and end the thread."""
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
    """Whether an address can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        raise InputError(f"cannot listen there: {error}", field="host:port", value=f"{host}:{port}") from None
    return listener


def start_server(engine: Engine, *, host: str = "127.0.0.1", port: int = 0, **options: Any) -> Server:
    """Serve an engine over HTTP from a thread.

    Parameters
    ----------
    engine
        What is served; the server does not close it.
    host, port
        Address to listen on; port 0 takes a free one.
    options
        As `create_app`.

    Returns
    -------
    Server
        Close it, or use it as a context manager.

    Raises
    ------
    InputError
        When the address cannot be listened on.

    Examples
    --------
    >>> with hk.serve(plan) as engine, start_server(engine) as server:       # doctest: +SKIP
    ...     client = openai.OpenAI(base_url=server.url, api_key="-")
    """
    return Server(engine, host, port, **options).start()


def run_server(engine: Engine, *, host: str = "127.0.0.1", port: int = 8000, **options: Any) -> None:
    """Serve an engine over HTTP until Ctrl-C or SIGTERM, then close both.

    The engine is closed before the server, so that unfinished requests are answered (with status 503) instead of being
    cut off.

    Parameters
    ----------
    engine
        What is served.
    host, port
        Address to listen on; port 0 takes a free one.
    options
        As `create_app`.

    Raises
    ------
    InputError
        When the address cannot be listened on.

    Examples
    --------
    >>> run_server(engine, port=8000, api_key="secret")                      # doctest: +SKIP
    """
    with sigterm_interrupts(), start_server(engine, host=host, port=port, **options) as server:
        try:
            server.wait()
        except KeyboardInterrupt:
            log.info("interrupted")
            engine.close()
