"""Engines whose nodes divide each layer over several processes: answers, failures, what is refused."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from greedy_tokens import greedy
from idling import wait_until_idle
from thread_ranks import with_ranks

torch = pytest.importorskip("torch")

from helix_kit.errors import InputError  # noqa: E402
from helix_kit.flow import Stage  # noqa: E402
from helix_kit.runtime import Engine, serve  # noqa: E402
from helix_kit.runtime.weights.tiny import UNUSUAL, tiny_checkpoint, tiny_plan  # noqa: E402

PLACEMENT = {"a": (0, 4), "b": (2, 6), "c": (0, 6)}
PROMPTS = [[5 + n, 6, 7, *range(20, 20 + 3 * n)] for n in range(8)]
OPTIONS = {"max_new_tokens": 24, "ignore_eos": True}


@pytest.fixture(scope="module")
def expected(tiny_llama: Path) -> list[list[int]]:
    return [greedy(tiny_llama, prompt, 24) for prompt in PROMPTS]


@pytest.fixture(scope="module")
def engine(tiny_llama: Path) -> Iterator[Engine]:
    """Node a is two processes; b, after it, and c, which holds all layers, are one each."""
    plan = with_ranks(tiny_plan(tiny_llama, PLACEMENT, step_ms=2.0), {"a": 2})
    with serve(plan, tiny_llama, policy="random", pace=True, chunk_tokens=8) as running:
        yield running


def test_two_nodes_in_a_pipeline_of_which_one_is_two_processes(engine: Engine, expected: list[list[int]]) -> None:
    answers = engine.generate(PROMPTS, **OPTIONS)
    assert [a.token_ids for a in answers] == expected
    pipelines = {a.pipeline for a in answers}
    assert (Stage("a", 0, 4), Stage("b", 4, 6)) in pipelines  # enters b in the middle of its range
    status = wait_until_idle(engine)
    pids = status.workers["a"].rank_pids
    assert len(set(pids)) == 2 and pids[0] == status.workers["a"].pid
    assert status.workers["b"].rank_pids == () and status.workers["a"].pages_peak > 0


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_lost_rank_is_the_loss_of_its_node(engine: Engine, expected: list[list[int]], how: signal.Signals) -> None:
    before = engine.status()
    handles = [engine.submit(prompt, **OPTIONS) for prompt in PROMPTS]
    while engine.status().tokens_out < before.tokens_out + 16:
        time.sleep(0.01)
    pids = before.workers["a"].rank_pids
    os.kill(pids[1], how)
    answers = [handle.result(60) for handle in handles]
    assert [a.token_ids for a in answers] == expected
    assert any(a.record.restarts for a in answers)  # some were on it
    status = wait_until_idle(engine)
    assert [name for name, worker in status.workers.items() if worker.state == "lost"] == ["a"]
    engine.restart("a")
    end = time.monotonic() + 60
    while engine.status().workers["a"].state != "up":
        assert time.monotonic() < end
        time.sleep(0.05)
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    again = engine.generate(PROMPTS, **OPTIONS)
    assert [a.token_ids for a in again] == expected
    assert "a" in {s.node for a in again for s in a.pipeline}


def test_one_node_of_two_ranks_equals_generate(tmp_path: Path) -> None:
    """Four ranks on one node and two groups of two on another: layers in turn, each divided."""
    folder = tiny_checkpoint(tmp_path, "qwen3", seed=5, **UNUSUAL["qwen3"])
    plan = with_ranks(tiny_plan(folder, {"a": (0, 6)}), {"a": 2})
    with serve(plan, folder, launcher="inproc", pace=False, chunk_tokens=8, devices={"a": ["cpu"] * 4}) as engine:
        layers = {name: (w.layers, len(w.rank_pids)) for name, w in engine.status().workers.items()}
        assert layers == {"a/0": ((0, 3), 2), "a/1": ((3, 6), 2)}
        answers = engine.generate(PROMPTS[:4], **OPTIONS)
    assert [a.token_ids for a in answers] == [greedy(folder, prompt, 24) for prompt in PROMPTS[:4]]


def test_what_cannot_be_served_is_refused_by_name(tiny_llama: Path, tmp_path: Path) -> None:
    whole = {"a": (0, 6)}
    plan = with_ranks(tiny_plan(tiny_llama, whole), {"a": 2})
    with pytest.raises(InputError, match="node a: tensor_parallel = 2: expected 1 with launcher ray"):
        serve(plan, tiny_llama, launcher="ray")
    with pytest.raises(InputError, match="node a: tensor_parallel = 2: expected 1 with quantize = 'int4'"):
        serve(plan, tiny_llama, quantize="int4")
    with pytest.raises(InputError, match=r"devices\[a\] = 3: expected a multiple of its tensor_parallel = 2 devices"):
        serve(plan, tiny_llama, launcher="inproc", devices={"a": ["cpu"] * 3})
    with pytest.raises(InputError, match="node a: num_heads = 4: expected a multiple of 3"):
        serve(with_ranks(tiny_plan(tiny_llama, whole), {"a": 3}), tiny_llama)
    olmo = tiny_checkpoint(tmp_path, "olmo2")
    with pytest.raises(InputError, match="node a: model_type = 'olmo2': tensor_parallel = 2 is served for cohere2, "):
        serve(with_ranks(tiny_plan(olmo, whole), {"a": 2}), olmo)
