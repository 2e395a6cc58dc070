"""Prometheus metrics."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
httpx = pytest.importorskip("httpx")
openai = pytest.importorskip("openai")


def test_metrics_count(client, http) -> None:
    def value(name: str) -> float:
        lines = [line for line in http.get("/metrics").text.splitlines() if line.startswith(name)]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    before = {name: value(name) for name in ("helix_kit_prompt_tokens_total", "helix_kit_generated_tokens_total")}
    done = client.completions.create(model="tiny", prompt="w5 w6 w7", max_tokens=5, extra_body={"ignore_eos": True})
    assert value("helix_kit_prompt_tokens_total") == before["helix_kit_prompt_tokens_total"] + 3
    assert value("helix_kit_generated_tokens_total") == before["helix_kit_generated_tokens_total"] + 5
    assert done.usage.completion_tokens == 5
    assert value("helix_kit_worker_up{") == 2
    assert value('helix_kit_http_requests_total{path="/v1/completions",status="200"}') >= 1
