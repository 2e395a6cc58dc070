"""An engine behind an HTTP server, and clients for it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

TEMPLATE = "{% for m in messages %}{{ 'w9 ' if m['role'] == 'user' else 'w8 ' }}{{ m['content'] }} {% endfor %}w7"


@pytest.fixture(scope="module")
def weights(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with a chat template."""
    folder = tmp_path_factory.mktemp("chat") / "tiny-chat"
    folder.mkdir()
    for path in tiny_llama.iterdir():
        (folder / path.name).symlink_to(path)
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": TEMPLATE, "eos_token": "</s>"}))
    return folder


@pytest.fixture(scope="module")
def engine(weights: Path) -> Iterator:
    from helix_kit.runtime import serve
    from helix_kit.runtime.weights.tiny import tiny_plan

    plan = tiny_plan(weights, {"a": (0, 4), "b": (2, 6)}, step_ms=0.5)
    with serve(plan, weights, launcher="inproc", pace=True, max_queue=4, kv_pages=120) as running:
        yield running


@pytest.fixture(scope="module")
def server(engine) -> Iterator:
    from helix_kit.runtime.api import Limits, start_server

    with start_server(engine, model_name="tiny", limits=Limits(body_bytes=20_000, new_tokens=400)) as running:
        yield running


@pytest.fixture(scope="module")
def client(server):
    import openai

    return openai.OpenAI(base_url=server.url, api_key="none", max_retries=0)


@pytest.fixture
def http(server):
    import httpx

    with httpx.Client(base_url=server.url.removesuffix("/v1"), timeout=60) as client:
        yield client
