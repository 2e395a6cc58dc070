"""The API key and the size of bodies."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
httpx = pytest.importorskip("httpx")
openai = pytest.importorskip("openai")

from helix_kit.runtime import Engine  # noqa: E402
from helix_kit.runtime.api import start_server  # noqa: E402


def test_api_key(engine: Engine) -> None:
    with start_server(engine, api_key="s3cret") as server:
        assert httpx.get(f"{server.url}/models").status_code == 401
        wrong = {"Authorization": "Bearer s3cre"}
        assert httpx.get(f"{server.url}/models", headers=wrong).json()["error"]["code"] == "invalid_api_key"
        right = openai.OpenAI(base_url=server.url, api_key="s3cret")
        assert right.models.list().data
        assert httpx.get(server.url.replace("/v1", "/health")).status_code == 200
        assert httpx.get(server.url.replace("/v1", "/metrics")).status_code == 401
