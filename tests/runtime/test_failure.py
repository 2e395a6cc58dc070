"""Workers that die, freeze and come back: requests go on elsewhere with the tokens they would have had."""

from __future__ import annotations

import os
import random
import re
import signal
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from greedy_tokens import greedy
from idling import wait_until_idle
from low_bit_checkpoints import low_bit_checkpoint
from safetensors.torch import load_file, save_file

torch = pytest.importorskip("torch")

from helix_kit.errors import InputError  # noqa: E402
from helix_kit.runtime import Engine, RequestFailedError, SwapError, Timeouts, device_memory, serve  # noqa: E402
from helix_kit.runtime.coordinator.routing import solve_rest  # noqa: E402
from helix_kit.runtime.transport.messages import WorkerCounters  # noqa: E402
from helix_kit.runtime.weights.tiny import UNUSUAL, tiny_checkpoint, tiny_plan  # noqa: E402
from helix_kit.runtime.worker.model_layers import ModelLayers  # noqa: E402

# Every layer is held twice; b and d may be entered in the middle.
PLACEMENT = {"a": (0, 4), "b": (2, 6), "c": (0, 3), "d": (3, 6)}
STEP_MS = 3.0
SAMPLED = {"temperature": 0.8, "top_p": 0.9, "seed": 11, "repetition_penalty": 1.2, "frequency_penalty": 0.3}


@pytest.fixture(scope="module")
def plan(tiny_llama: Path):
    return tiny_plan(tiny_llama, PLACEMENT, step_ms=STEP_MS)


@pytest.fixture(scope="module")
def shared_engine(plan, tiny_llama: Path) -> Iterator[Engine]:
    with serve(plan, tiny_llama, policy="random", pace=True) as running:
        yield running


@pytest.fixture
def engine(shared_engine: Engine) -> Engine:
    """The shared engine with all workers up: whom an earlier test has killed is started again."""
    for node, worker in shared_engine.status().workers.items():
        if worker.state == "lost":
            shared_engine.restart(node)
    wait_for(lambda: all_up(shared_engine), 60, "the engine does not recover")
    wait_until_idle(shared_engine)
    return shared_engine


@pytest.fixture(scope="module")
def undisturbed(plan, tiny_llama: Path):
    """Tokens of a prompt without any trouble, from one worker that holds all layers."""
    alone = tiny_plan(tiny_llama, {"a": (0, 6)})
    with serve(alone, tiny_llama, launcher="inproc", pace=False) as engine:
        cache: dict[tuple, list[int]] = {}

        def tokens(prompt: list[int], n: int, **options: object) -> list[int]:
            key = (tuple(prompt), n, *sorted(options.items()))
            if key not in cache:
                cache[key] = engine.generate(prompt, max_new_tokens=n, ignore_eos=True, **options).token_ids
            return cache[key]

        yield tokens


def prompts(count: int) -> list[list[int]]:
    rng = random.Random(4)
    return [[rng.randrange(3, 250) for _ in range(rng.randrange(1, 40))] for _ in range(count)]


def wait_for(condition, timeout_s: float, what: str) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def all_up(engine: Engine) -> bool:
    return all(worker.state == "up" for worker in engine.status().workers.values())


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_requests_survive_a_lost_worker(engine: Engine, undisturbed, how: signal.Signals) -> None:
    # Some of them are promised KV pages for a few tokens at a time.
    texts = [(p, SAMPLED if index % 2 else {"promise_tokens": 8}) for index, p in enumerate(prompts(10))]
    before = engine.status()
    handles = [engine.submit(p, max_new_tokens=40, ignore_eos=True, **options) for p, options in texts]
    wait_for(lambda: engine.status().tokens_out > before.tokens_out + 60, 20, "no tokens")
    victim = "b"
    os.kill(engine.status().workers[victim].pid, how)
    wait_for(lambda: engine.status().workers[victim].state == "lost", 20, "the loss went unnoticed")
    assert engine._coordinator.workers.detection_s[-1] < 3.0
    answers = [handle.result(60) for handle in handles]
    assert [a.token_ids for a in answers] == [undisturbed(p, 40, **options) for p, options in texts]
    hit = [a for a in answers if a.record.restarts]
    assert hit and all(victim not in {s.node for s in a.pipeline} for a in hit)
    status = engine.status()
    assert [node for _, node, _ in status.losses[len(before.losses) :]] == [victim]
    assert status.flow_tokens_per_s < engine.plan.flow_tokens_per_s
    wait_until_idle(engine)


@pytest.mark.parametrize("kind", ["experts", "int4"])
def test_experts_and_weights_of_four_bits_survive_a_lost_worker(kind: str, tmp_path: Path) -> None:
    """Over four workers, two of which are entered in the middle; the one that was lost comes back."""
    if kind == "experts":
        folder = plain = tiny_checkpoint(tmp_path, "qwen3_moe", **UNUSUAL["qwen3_moe"])
    else:
        folder, plain = low_bit_checkpoint(tmp_path, "gptq")
    texts = prompts(6)
    with serve(tiny_plan(folder, PLACEMENT, step_ms=STEP_MS), folder, policy="random", pace=True) as engine:
        handles = [engine.submit(p, max_new_tokens=24, ignore_eos=True) for p in texts]
        wait_for(lambda: engine.status().tokens_out > 20, 60, "no tokens")
        os.kill(engine.status().workers["b"].pid, signal.SIGKILL)
        answers = [handle.result(120) for handle in handles]
        assert [node for _, node, _ in engine.status().losses] == ["b"]
        engine.restart("b")
        wait_for(lambda: all_up(engine), 60, "did not come back")
        later = engine.generate(texts, max_new_tokens=8, ignore_eos=True)
    expected = [greedy(plain, p, 24) for p in texts]
    assert [a.token_ids for a in answers] == expected
    assert [a.token_ids for a in later] == [tokens[:8] for tokens in expected]
    assert any(s.start > PLACEMENT[s.node][0] for a in [*answers, *later] for s in a.pipeline)


def test_a_restarted_worker_rejoins(engine: Engine, undisturbed) -> None:
    os.kill(engine.status().workers["d"].pid, signal.SIGKILL)
    wait_for(lambda: engine.status().workers["d"].state == "lost", 5, "the loss went unnoticed")
    engine.restart("d")
    wait_for(lambda: engine.status().workers["d"].state == "up", 60, "did not come back")
    assert engine.status().flow_tokens_per_s == engine.plan.flow_tokens_per_s
    texts = prompts(12)
    answers = engine.generate(texts, max_new_tokens=5, ignore_eos=True)
    assert any("d" in {s.node for s in a.pipeline} for a in answers)
    assert [a.token_ids for a in answers] == [undisturbed(p, 5) for p in texts]


def test_no_pipeline_left_fails_with_a_reason(engine: Engine) -> None:
    handles = [engine.submit([5, 6, n], max_new_tokens=200, ignore_eos=True) for n in range(3, 9)]
    wait_for(lambda: engine.status().running == 6, 20, "not started")
    for victim in ("a", "c"):
        os.kill(engine.status().workers[victim].pid, signal.SIGKILL)
    for handle in handles:
        with pytest.raises(RequestFailedError, match=r"no pipeline is left .* lost: a \(.*\), c \(.*\)"):
            handle.result(10)
        assert handle.record.outcome == "failed"
    with pytest.raises(RequestFailedError, match="no pipeline is left"):
        engine.submit([5]).result(10)
    # The nodes come back, and so does the service.
    engine.restart("a")
    wait_for(lambda: engine.status().workers["a"].state == "up", 60, "did not come back")
    assert len(engine.generate([5], max_new_tokens=3, ignore_eos=True).token_ids) == 3


def test_a_new_worker_has_counters_before_it_reports(engine: Engine) -> None:
    """Whoever looks at a worker between its start and its first heartbeat finds the same fields."""
    os.kill(engine.status().workers["d"].pid, signal.SIGKILL)
    wait_for(lambda: engine.status().workers["d"].state == "lost", 5, "the loss went unnoticed")
    coordinator = engine._coordinator
    # In one go: it may be up before another question is asked.
    worker = coordinator.call(lambda: (coordinator.workers.restart("d"), coordinator.status())[1]).workers["d"]
    assert (worker.state, worker.report_age_s) == ("starting", None)
    counters = WorkerCounters.__struct_fields__
    assert {name: getattr(worker, name) for name in counters} == dict.fromkeys(counters, 0)
    wait_for(lambda: engine.status().workers["d"].state == "up", 60, "did not come back")
    asked_s = time.monotonic()
    workers = engine.status(fresh=True).workers.values()
    assert all(worker.report_age_s < time.monotonic() - asked_s for worker in workers)


def test_workers_can_be_restarted_by_themselves(plan, tiny_llama: Path, undisturbed) -> None:
    with serve(plan, tiny_llama, pace=True, restart_workers=True) as engine:
        texts = prompts(6)
        handles = [engine.submit(p, max_new_tokens=30, ignore_eos=True) for p in texts]
        wait_for(lambda: engine.status().tokens_out > 10, 20, "no tokens")
        for worker in engine.status().workers.values():  # all of them: nothing is left for a moment
            os.kill(worker.pid, signal.SIGKILL)
        assert [h.result(90).token_ids for h in handles] == [undisturbed(p, 30) for p in texts]
        assert len(engine.status().losses) == len(PLACEMENT)


def test_another_plan_takes_over_without_losing_a_request(plan, tiny_llama: Path, undisturbed) -> None:
    other = tiny_plan(tiny_llama, {"a": (0, 2), "b": (2, 6), "c": (0, 3), "d": (3, 6)}, step_ms=STEP_MS)
    without = tiny_plan(tiny_llama, {"a": (0, 6)}, step_ms=STEP_MS)
    with serve(plan, tiny_llama, policy="random", pace=True) as engine:
        texts = prompts(10)
        handles = [engine.submit(p, max_new_tokens=60, ignore_eos=True) for p in texts]
        wait_for(lambda: engine.status().tokens_out > 40, 20, "no tokens")
        before = engine.status().workers
        engine.swap(other)
        after = engine.status().workers
        # Only the node whose layers change gets a new worker.
        assert {n for n in after if after[n].pid != before[n].pid} == {"a"}
        assert after["a"].layers == (0, 2)
        assert [h.result(60).token_ids for h in handles] == [undisturbed(p, 60) for p in texts]
        with pytest.raises(InputError, match="same cluster"):
            engine.swap(without)
        smaller = solve_rest(other, {"c": (0, 3), "d": (3, 6)})
        handle = engine.submit(texts[0], max_new_tokens=60, ignore_eos=True)
        engine.swap(smaller)
        assert handle.result(60).token_ids == undisturbed(texts[0], 60)
        assert set(engine.status().workers) == {"c", "d"}
        assert engine.status().losses == ()
        wait_until_idle(engine)


def test_a_request_that_ends_every_worker_is_given_up(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever computes token 13 dies; workers come back, others' requests are answered, and one is told no."""
    run = ModelLayers.embed

    def embed(self: ModelLayers, token_ids: torch.Tensor) -> torch.Tensor:
        if (token_ids == 13).any():
            raise MemoryError("poison")
        return run(self, token_ids)

    monkeypatch.setattr(ModelLayers, "embed", embed)
    alone = tiny_plan(tiny_llama, {"a": (0, 6)})
    with serve(alone, tiny_llama, launcher="inproc", pace=False, restart_workers=True) as engine:
        poisonous = engine.submit([5, 13], max_new_tokens=4)
        with pytest.raises(RequestFailedError, match="6 workers were lost while they had this request"):
            poisonous.result(60)
        assert poisonous.record.outcome == "failed" and poisonous.record.restarts == 5
        assert len(engine.status().losses) == 6
        assert len(engine.generate([5, 6], max_new_tokens=4, ignore_eos=True).token_ids) == 4


def test_a_swap_is_refused_where_pages_do_not_fit(
    plan, tiny_llama: Path, undisturbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new worker of a shared GPU finds little room beside the one that it replaces."""
    other = tiny_plan(tiny_llama, {"a": (0, 2), "b": (2, 6), "c": (0, 3), "d": (3, 6)}, step_ms=STEP_MS)
    with serve(plan, tiny_llama, launcher="inproc", pace=False) as engine:
        before = engine.status().workers
        for share, taken in ((0.4, False), (0.6, True)):
            monkeypatch.setattr(device_memory, "num_pages", lambda spec, _, share=share: int(share * spec.num_pages))
            if taken:
                engine.swap(other)
                assert engine.status().workers["a"].layers == (0, 2)
            else:
                with pytest.raises(SwapError, match=r"worker a: only \d+ of its \d+ KV pages fit"):
                    engine.swap(other)
                assert engine.status().workers["a"].layers == before["a"].layers
            assert engine.generate([5, 6], max_new_tokens=9, ignore_eos=True).token_ids == undisturbed([5, 6], 9)


def test_a_plan_whose_worker_does_not_come_up_is_not_taken(plan, tiny_llama: Path, undisturbed) -> None:
    other = tiny_plan(tiny_llama, {"a": (0, 2), "b": (2, 6), "c": (0, 3), "d": (3, 6)}, step_ms=STEP_MS)
    with serve(plan, tiny_llama, launcher="inproc", pace=True, timeouts=Timeouts(start_s=30)) as engine:
        handle = engine.submit([5, 6], max_new_tokens=40, ignore_eos=True)
        factory = engine._coordinator.workers.factory
        make_spec = factory.make_spec
        factory.make_spec = lambda *a: make_spec(*a).model_copy(update={"end": 99})
        with pytest.raises(SwapError, match="worker a"):
            engine.swap(other)
        factory.make_spec = make_spec
        assert handle.result(30).token_ids == undisturbed([5, 6], 40)
        engine.swap(other)  # and later it can be
        assert engine.generate([5, 6], max_new_tokens=9, ignore_eos=True).token_ids == undisturbed([5, 6], 9)


def chaos(engine: Engine, seed: int, requests: int, undisturbed) -> dict[str, int]:
    """Random kills, freezes, thaws and restarts while `requests` run; returns what happened."""
    rng = random.Random(seed)
    counts = dict.fromkeys(("killed", "frozen", "finished", "failed", "restarts"), 0)
    stop = threading.Event()

    def disturb() -> None:
        while not stop.wait(rng.uniform(0.2, 0.9)):
            workers = engine.status().workers
            up = [node for node, worker in workers.items() if worker.state == "up"]
            for node, worker in workers.items():
                if worker.state == "lost" and rng.random() < 0.7:
                    engine.restart(node)
            if len(up) <= rng.choice([0, 1, 1, 2, 2]):
                continue
            node = rng.choice(up)
            pid = workers[node].pid
            how = rng.choice(["killed", "killed", "frozen", "pause"])
            try:
                os.kill(pid, signal.SIGKILL if how == "killed" else signal.SIGSTOP)
                if how == "pause":  # shorter than the silence that counts as death: a delayed link
                    time.sleep(rng.uniform(0.1, 0.8))
                    os.kill(pid, signal.SIGCONT)
                else:
                    counts[how] += 1
            except ProcessLookupError:
                pass

    thread = threading.Thread(target=disturb)
    thread.start()
    handles = []
    for _ in range(requests):
        prompt = [rng.randrange(3, 250) for _ in range(rng.randrange(1, 60))]
        options = rng.choice([{}, SAMPLED])
        n = rng.randrange(1, 30)
        handles.append((engine.submit(prompt, max_new_tokens=n, ignore_eos=True, **options), prompt, n, options))
        time.sleep(rng.expovariate(40))
    for handle, _, _, _ in handles:
        end = time.monotonic() + 120
        while not handle.done:
            assert time.monotonic() < end, f"a request hangs: {engine.status()}"
            time.sleep(0.01)
    stop.set()
    thread.join()
    for handle, prompt, n, options in handles:
        record = handle.record
        counts["restarts"] += record.restarts
        counts[record.outcome] += 1
        if record.outcome == "finished":
            assert handle.result().token_ids == undisturbed(prompt, n, **options)
        else:
            assert record.outcome == "failed"
            assert re.search("no pipeline is left|workers were lost while", record.reason)
    assert counts["finished"] + counts["failed"] == requests
    for node, worker in engine.status().workers.items():
        if worker.state == "lost":
            engine.restart(node)
    wait_for(lambda: all_up(engine), 60, "the engine does not recover")
    wait_until_idle(engine)
    return counts


@pytest.mark.parametrize("seed", [0, *(pytest.param(s, marks=pytest.mark.slow) for s in range(1, 10))])
def test_chaos(plan, tiny_llama: Path, undisturbed, seed: int) -> None:
    requests = 60 if seed == 0 else 200
    with serve(plan, tiny_llama, policy="random", seed=seed, pace=True, time_scale=0.3) as engine:
        counts = chaos(engine, seed, requests, undisturbed)
    assert counts["killed"] + counts["frozen"] > 0 and counts["finished"] > 0
    print(counts)


def one_way_plan(plan):
    """`plan` with a flow of two separate lanes, a -> b and c -> d, though links lead across."""
    lanes = [("coordinator", "a", "b", "coordinator"), ("coordinator", "c", "d", "coordinator")]
    fields = {name: getattr(plan, name) for name in type(plan).model_fields}
    half = plan.flow_tokens_per_s / 2
    return type(plan)(**(fields | {"flow": tuple((*edge, half) for lane in lanes for edge in pairwise(lane))}))


def test_requests_of_a_machine_with_a_single_way_on_go_round_the_dead_one(tiny_llama: Path) -> None:
    """Under Helix c knows the way to d alone. When d is lost, the flow is solved again over a, b and c: c goes to b."""
    whole = tiny_plan(tiny_llama, {"a": (0, 3), "b": (3, 6), "c": (0, 3), "d": (3, 6)}, step_ms=STEP_MS)
    lanes = {("a", "b"), ("c", "d")}
    with serve(one_way_plan(whole), tiny_llama, policy="helix", pace=True) as engine:
        handles = [engine.submit(p, max_new_tokens=40, ignore_eos=True) for p in prompts(8)]
        wait_for(lambda: engine.status().tokens_out > 40, 60, "no tokens")
        os.kill(engine.status().workers["d"].pid, signal.SIGKILL)
        answers = [handle.result(120) for handle in handles]
        later = [engine.submit(p, max_new_tokens=4, ignore_eos=True) for p in prompts(8)]
        ways = [tuple(s.node for s in handle.result(60).pipeline) for handle in later]
        flow = engine.status().flow_tokens_per_s
    assert [a.token_ids for a in answers] == [greedy(tiny_llama, p, 40) for p in prompts(8)]
    moved = {tuple(s.node for s in a.pipeline) for a in answers if a.record.restarts}
    assert moved and moved <= {("a", "b"), ("c", "b")}, "those of d go on by b"
    assert {tuple(s.node for s in a.pipeline) for a in answers if not a.record.restarts} <= lanes
    # New weights: what b serves is shared by its two neighbours, as in the flow of the three that are left.
    assert set(ways) == {("a", "b"), ("c", "b")}
    assert 0 < flow < whole.flow_tokens_per_s


def test_a_request_whose_scores_are_not_numbers_fails_alone(tmp_path: Path) -> None:
    """Token 8 has no embedding: requests with it fail, and leave nothing behind that others meet."""
    folder = tiny_checkpoint(tmp_path / "broken", num_hidden_layers=4)
    sound = greedy(folder, [5, 6, 7] * 8, 6)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.embed_tokens.weight"][8] = float("nan")
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    assert 8 not in sound
    plan = tiny_plan(folder, {"a": (0, 3), "b": (2, 4)})
    with serve(plan, folder, launcher="inproc", pace=False, kv_pages=30) as engine:
        for sampling in ({}, {"temperature": 0.7, "seed": 3}, {"repetition_penalty": 1.2}, {"logprobs": 1}):
            broken = engine.submit([5, 8] * 10, max_new_tokens=6, ignore_eos=True, **sampling)
            other = engine.submit([5, 6, 7] * 8, max_new_tokens=6, ignore_eos=True)
            with pytest.raises(
                RequestFailedError, match=r"scores of token 20 are not numbers \(NaN\): the weights"
            ) as caught:
                broken.result()
            assert caught.value.code == "not_numbers"
            assert other.result().token_ids == sound
        wait_until_idle(engine)
