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


def test_vllms_names_measure_the_same(client, http) -> None:
    """One answer of six tokens adds one request and five gaps; the sums agree with the engine's own records."""

    def value(name: str) -> float:
        lines = [line for line in http.get("/metrics").text.splitlines() if line.startswith(f"vllm:{name}{{")]
        assert lines and all('model_name="tiny"' in line for line in lines)
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    counts = {
        "time_to_first_token_seconds_count": 1,
        "inter_token_latency_seconds_count": 5,
        "e2e_request_latency_seconds_count": 1,
        "request_time_per_output_token_seconds_count": 1,
        "request_queue_time_seconds_count": 1,
        "prompt_tokens_total": 3,
        "generation_tokens_total": 6,
    }
    sums = [f"{n}_seconds_sum" for n in ("time_to_first_token", "inter_token_latency", "e2e_request_latency")]
    client.completions.create(model="tiny", prompt="w5 w6 w7", max_tokens=2, extra_body={"ignore_eos": True})
    before = {name: value(name) for name in (*counts, *sums)}
    client.completions.create(model="tiny", prompt="w5 w6 w7", max_tokens=6, extra_body={"ignore_eos": True})
    added = {name: value(name) - before[name] for name in before}
    assert {name: added[name] for name in counts} == counts
    first_s, gaps_s, whole_s = (added[name] for name in sums)
    assert first_s + gaps_s == pytest.approx(whole_s, abs=2e-3)
    assert value("num_requests_running") == 0 and value("num_requests_waiting") == 0
    assert 0 <= value("kv_cache_usage_perc") <= 1


def test_prefix_hits_are_counted_under_vllms_names(client, http) -> None:
    """The second of two equal prompts of 40 tokens finds the two full blocks before its last token."""

    def value(name: str) -> float:
        return float(next(t for t in http.get("/metrics").text.splitlines() if t.startswith(name)).rsplit(" ", 1)[1])

    names = ("vllm:prefix_cache_queries_total{", "vllm:prefix_cache_hits_total{")
    before = [value(name) for name in names]
    for _ in range(2):
        client.completions.create(model="tiny", prompt=[9, *range(30, 69)], max_tokens=2)
    assert [value(name) - start for name, start in zip(names, before, strict=True)] == [80, 32]
