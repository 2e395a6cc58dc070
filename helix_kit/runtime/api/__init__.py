"""An engine behind HTTP: OpenAI's API for completions, chat and models, besides health and metrics.

>>> from helix_kit.runtime.api import start_server                           # doctest: +SKIP
>>> with hk.serve(plan) as engine, start_server(engine) as server:           # doctest: +SKIP
...     print(server.url)                     # http://127.0.0.1:PORT/v1 for openai.OpenAI(base_url=...)
"""

from __future__ import annotations

from helix_kit.runtime.api.app import create_app
from helix_kit.runtime.api.limits import Limits
from helix_kit.runtime.api.server import Server, run_server, start_server

__all__ = ["Limits", "Server", "create_app", "run_server", "start_server"]
