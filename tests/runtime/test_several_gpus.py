"""Engines whose nodes have several devices: answers, pages and failures, with CPUs in the place of GPUs."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from idling import wait_until_idle

torch = pytest.importorskip("torch")

from helix_kit.errors import InputError  # noqa: E402
from helix_kit.flow import Stage  # noqa: E402
from helix_kit.runtime import RequestFailedError, serve  # noqa: E402
from helix_kit.runtime.coordinator.routing import solve_rest  # noqa: E402
from helix_kit.runtime.weights.tiny import tiny_plan  # noqa: E402
from helix_kit.workload.workload import Workload  # noqa: E402

PLACEMENT = {"a": (0, 4), "b": (1, 6), "c": (0, 6)}
SPLIT = {"a": ["cpu", "cpu"], "b": ["cpu", "cpu", "cpu"]}
PROMPTS = [[5 + n, 6, 7, *range(20, 20 + 3 * n)] for n in range(10)]
OPTIONS = {"max_new_tokens": 10, "ignore_eos": True}


@pytest.fixture(scope="module")
def expected(tiny_llama: Path) -> list[list[int]]:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
    config = {"max_new_tokens": 10, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    return [model.generate(torch.tensor([p]), **config)[0, len(p) :].tolist() for p in PROMPTS]


def test_same_answers_over_several_devices(tiny_llama: Path, expected: list[list[int]]) -> None:
    """Entry in the middle of a divided node (b holds [1, 6), after a's [0, 4)), and all pages back."""
    plan = tiny_plan(tiny_llama, PLACEMENT)
    with serve(
        plan, tiny_llama, launcher="inproc", policy="random", pace=False, chunk_tokens=8, devices=SPLIT
    ) as engine:
        answers = engine.generate(PROMPTS, **OPTIONS)
        assert [a.token_ids for a in answers] == expected
        pipelines = {a.pipeline for a in answers}
        assert (Stage("a", 0, 4), Stage("b", 4, 6)) in pipelines and (Stage("c", 0, 6),) in pipelines
        workers = engine.status().workers
        spans = {name: worker.layers for name, worker in workers.items()}
        assert spans == {"a/0": (0, 2), "a/1": (2, 4), "b/0": (1, 2), "b/1": (2, 4), "b/2": (4, 6), "c": (0, 6)}
        workers = wait_until_idle(engine).workers
        # What entered at layer 4 took no page of b/0 and b/1, which hold the layers before.
        assert workers["b/0"].pages_peak == workers["b/1"].pages_peak == 0 < workers["b/2"].pages_peak


def test_reports_are_by_node(tiny_llama: Path) -> None:
    plan = tiny_plan(tiny_llama, {"a": (0, 3), "b": (3, 6)}, kv_tokens_per_layer=160)
    with serve(plan, tiny_llama, launcher="inproc", pace=False, devices={"a": ["cpu", "cpu"]}) as engine:
        run = engine.replay(Workload.of([(0.0, 20, 5), (0.0, 20, 5)]))
    assert set(run.nodes) == {"a", "b"}
    for use in run.nodes.values():
        # Thirty pages a node; two pages a layer for each of two requests; the last token is not computed.
        assert (use.prefill_tokens, use.decode_tokens, use.kv_capacity, use.kv_peak) == (40, 8, 30, 12)
    assert run.nodes["a"].steps >= 10 and run.nodes["b"].steps >= 5  # five tokens, in each of its workers


def test_pages_are_counted_per_device(tiny_llama: Path, expected: list[list[int]]) -> None:
    """Two pages per layer: a node total would let in what one device cannot hold."""
    plan = tiny_plan(tiny_llama, {"a": (0, 3), "b": (1, 6)}, kv_tokens_per_layer=32)
    options = {"launcher": "inproc", "pace": False, "policy": "helix", "devices": {"b": ["cpu", "cpu"]}}
    with serve(plan, tiny_llama, **options) as engine:
        pages = {name: worker.pages for name, worker in engine.status().workers.items()}
        assert (pages["b/0"], pages["b/1"]) == (4, 6)
        # Layers 3 to 5 of a request lie on b/1 alone (it holds three of b's five): 33 tokens need three pages of each
        # layer there, which are more than it has, though b as a whole has ten.
        with pytest.raises(RequestFailedError, match="fit into the KV pages of no pipeline"):
            engine.generate([7] * 23, **OPTIONS)
        assert [a.token_ids for a in engine.generate(PROMPTS[:6], **OPTIONS)] == expected[:6]


def test_one_lost_gpu_is_the_loss_of_its_node(tiny_llama: Path, expected: list[list[int]]) -> None:
    plan = tiny_plan(tiny_llama, PLACEMENT, step_ms=10.0)
    with serve(plan, tiny_llama, policy="random", pace=True, devices=SPLIT) as engine:
        handles = [engine.submit(p, **OPTIONS) for p in PROMPTS]
        while engine.status().tokens_out < 8:
            time.sleep(0.01)
        os.kill(engine.status().workers["b/2"].pid, signal.SIGKILL)
        answers = [handle.result(60) for handle in handles]
        assert [a.token_ids for a in answers] == expected
        assert any(a.record.restarts for a in answers)  # some were on it
        status = wait_until_idle(engine)
        states = {name: worker.state for name, worker in status.workers.items()}
        assert [name for name, state in states.items() if state == "lost"] == ["b/2"]
        late = engine.generate(PROMPTS, **OPTIONS)
        assert "b" not in {s.node for a in late for s in a.pipeline}
        engine.restart("b")
        end = time.monotonic() + 60
        while engine.status().workers["b/2"].state != "up":
            assert time.monotonic() < end
            time.sleep(0.05)
        again = engine.generate(PROMPTS, **OPTIONS)
        assert [a.token_ids for a in again] == expected
        assert "b" in {s.node for a in again for s in a.pipeline}


def test_swap_to_other_layers(tiny_llama: Path, expected: list[list[int]]) -> None:
    plan = tiny_plan(tiny_llama, PLACEMENT)
    other = tiny_plan(tiny_llama, {"a": (0, 4), "b": (3, 6), "c": (0, 6)})
    with serve(plan, tiny_llama, launcher="inproc", policy="random", pace=False, devices=SPLIT) as engine:
        engine.swap(other)
        spans = {name: worker.layers for name, worker in engine.status().workers.items()}
        assert spans == {"a/0": (0, 2), "a/1": (2, 4), "b/0": (3, 4), "b/1": (4, 5), "b/2": (5, 6), "c": (0, 6)}
        assert [a.token_ids for a in engine.generate(PROMPTS, **OPTIONS)] == expected


def test_swap_to_other_nodes(tiny_llama: Path, expected: list[list[int]]) -> None:
    """The new plan does without a node that devices were given for, and has one that none were given for."""
    whole = tiny_plan(tiny_llama, {"a": (0, 4), "b": (1, 6), "c": (0, 6)})
    plans = [solve_rest(whole, {node: whole.placement[node] for node in nodes}) for nodes in ("ab", "c")]
    with serve(plans[0], tiny_llama, launcher="inproc", pace=False, devices=SPLIT) as engine:
        engine.swap(plans[1])
        assert set(engine.status().workers) == {"c"}
        assert [a.token_ids for a in engine.generate(PROMPTS, **OPTIONS)] == expected


def test_bad_devices_are_named(tiny_llama: Path) -> None:
    plan = tiny_plan(tiny_llama, PLACEMENT)
    with pytest.raises(InputError, match=r"devices\[a\] = 'tpu:0': expected cpu, cuda:0"):
        serve(plan, tiny_llama, devices={"a": ["cpu", "tpu:0"]})
    with pytest.raises(InputError, match="unknown node 'z'"):
        serve(plan, tiny_llama, devices={"z": "cpu"})
    with pytest.raises(InputError, match="devices = 'gpu': expected plan, any, cpu"):
        serve(plan, tiny_llama, devices="gpu")
