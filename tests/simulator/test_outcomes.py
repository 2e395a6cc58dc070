"""What a run says about bad input, overload, interruption; and that the engines' options do what they say."""

from __future__ import annotations

import signal

import pytest

from helix_kit.errors import InputError
from helix_kit.scheduling import Policy, make_policy
from helix_kit.simulator import BatchingOptions, Feed, SimulationOptions, make_engine, score, scoring, simulate
from helix_kit.workload import Workload
from helix_kit.workload.request import Request

QUIET = Workload.poisson(rate_per_s=0.3, duration_s=60, input_tokens=300, output_tokens=20, seed=0)


@pytest.mark.parametrize("execution", ["range", "layerwise"])
def test_a_request_longer_than_any_kv_is_rejected_with_the_reason(plan, execution):
    workload = Workload.of([(0.0, 100, 5), (1.0, 3000, 10**7), (2.0, 100, 5)])
    run = simulate(plan, workload, execution=execution)
    assert [r.outcome for r in run.records] == ["finished", "rejected", "finished"]
    assert "KV cache" in run.records[1].reason
    assert run.summary()["reasons"] == {run.records[1].reason: 1}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"workload": Workload.of([])}, "workload is empty"),
        ({"mode": "nearline"}, "online or offline"),
        ({"execution": "batch"}, "range or layerwise"),
        ({"policy": "best"}, "unknown policy"),
        ({"duration_s": 0}, "duration_s"),
        ({"duration_s": float("nan")}, "duration_s"),
        ({"warmup_s": -1}, "warmup_s"),
        ({"kv_capacity": {"T4-77": 5}}, "T4-77"),
        ({"links": [("A100-40G-0", "T4-77")]}, "links between nodes of the plan"),
    ],
)
def test_bad_arguments_are_named(plan, arguments, words):
    with pytest.raises(InputError) as error:
        simulate(plan, **{"workload": QUIET, **arguments})
    assert words in str(error.value)


def test_a_plan_without_a_pipeline_is_refused(plan):
    broken = plan.model_copy(update={"flow_tokens_per_s": 0.0, "flow": ()})
    with pytest.raises(InputError, match="carries flow"):
        simulate(broken, QUIET)
    assert score(broken).decode_tokens_per_s == 0.0


def test_overload_ends_and_reports_a_growing_queue(plan):
    run = simulate(plan, Workload.azure_conversation(rate_per_s=60.0, duration_s=60), duration_s=60)
    assert "overload" in run.notes[0]
    assert run.summary()["waiting"] > 1000


def test_ctrl_c_returns_what_there_is(plan):
    seen, before = [], signal.getsignal(signal.SIGINT)

    def press(now_s, end_s):
        seen.append((now_s, end_s))
        if now_s >= 20.0:
            signal.raise_signal(signal.SIGINT)

    run = simulate(plan, QUIET, duration_s=60, progress=press)
    assert run.partial and run.summary()["partial"]
    assert 20.0 <= run.window[1] < 25.0
    assert seen == sorted(seen) and {end for _, end in seen} == {60.0}
    assert all(r.request.arrival_s <= 25.0 for r in run.records)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_policy_of_ones_own_decides(plan):
    class Always(Policy):
        name = "always"

        def __init__(self):
            self.pipeline = plan.pipelines[0][0]
            self.tokens, self.left = 0, 0

        def route(self, request, view):
            assert all(view.is_alive(stage.node) for stage in self.pipeline)
            return self.pipeline

        def on_token(self, request):
            self.tokens += 1

        def on_finished(self, request):
            self.left += 1

    policy = Always()
    run = simulate(plan, QUIET, policy=policy, duration_s=400)
    assert {r.pipeline for r in run.records} == {policy.pipeline}
    assert policy.left == len(QUIET)
    assert policy.tokens == sum(r.output_tokens - 1 for r in QUIET)
    used = {stage.node for stage in policy.pipeline}
    assert all((run.nodes[n].busy > 0) == (n in used) for n in plan.placement)


def test_compiled_token_loads_equal_those_of_on_token(plan):
    """Helix counts decode tokens in compiled code here and in `on_token` in the runtime: the same loads in the end."""

    class Slow(Policy):
        name = "slow"

        def __init__(self):
            self.inner = make_policy("helix", plan)
            self.topology = self.inner.topology

        def route(self, request, view):
            return self.inner.route(request, view)

        def on_refused(self, request, pipeline):
            self.inner.on_refused(request, pipeline)

        def on_finished(self, request):
            self.inner.on_finished(request)

        def on_token(self, request):
            self.inner.on_token(request)

    fast, slow = make_policy("helix", plan), Slow()
    runs = [simulate(plan, QUIET, policy=p, duration_s=400, record_tokens=True) for p in (fast, slow)]
    assert runs[0].records == runs[1].records
    assert fast.token_loads()[0] == pytest.approx(slow.inner.token_loads()[0], rel=1e-12)


def test_chunked_prefill_spares_decodes(plan):
    """The point of chunks: with whole prompts in one step, decode latency's tail is longer."""
    workload = Workload.azure_conversation(rate_per_s=1.5, duration_s=200, seed=2)
    chunked = simulate(plan, workload).summary()
    whole = simulate(plan, workload, options=BatchingOptions(step_tokens=4096, chunk_tokens=4096)).summary()
    assert chunked["decode_latency_s"]["p95"] < whole["decode_latency_s"]["p95"]


def test_a_step_joins_pieces_in_the_middle_of_a_range(plan):
    """L4x2-1 holds [15, 35) and is entered at 20 from nodes that end there: the step pays only for layers 20 to 35."""
    inner = [p for p, _ in plan.pipelines if any(s.node == "L4x2-1" and s.start > 15 for s in p)]
    if not inner:
        pytest.skip("the flow enters at the first layer only")
    profile = plan.profiles["L4x2"]
    stage = next(s for s in inner[0] if s.node == "L4x2-1")

    class Only(Policy):
        def route(self, request, view):
            return inner[0]

    run = simulate(plan, Workload.of([(0.0, 200, 1)]), policy=Only(), record_batches=True)
    batch = next(b for b in run.batches if b.node == "L4x2-1")
    expected = (stage.end - stage.start) * profile.prefill_ms_per_layer(200) / 1e3
    copying = 200 * plan.model.activation_bytes_per_token * (1 / 4e9 + 1 / 5e9)
    assert batch.end_s - batch.start_s == pytest.approx(expected + copying, rel=1e-9)


def test_offline_feeds(plan):
    backlog = Workload.offline(400, seed=1)
    fixed = simulate(plan, backlog, mode="offline", policy="swarm", execution="layerwise", feed=Feed(7, kv_mark=None))
    starts = sorted(
        [(r.started_s, 1) for r in fixed.records] + [(r.finished_s, -1) for r in fixed.records if r.finished_s]
    )
    level = peak = 0
    for _, step in starts:
        level += step
        peak = max(peak, level)
    assert peak <= 7
    assert fixed.summary()["in_flight"] <= 7
    limited = simulate(plan, backlog, mode="offline", options=BatchingOptions(max_in_flight=3), duration_s=100)
    assert sum(r.started_s is not None and r.finished_s is None for r in limited.records) <= 3


def test_score_is_the_simulation(plan):
    backlog = Workload.offline(2000, seed=0)
    for execution in ("range", "layerwise"):
        run = simulate(plan, backlog, mode="offline", execution=execution, warmup_s=20, duration_s=60).summary()
        quick = score(plan, backlog, execution=execution, warmup_s=20, duration_s=60)
        assert quick.decode_tokens_per_s == pytest.approx(run["decode_tokens_per_s"], rel=1e-12)
        assert quick.prompt_latency_s == pytest.approx(run["prompt_latency_s"]["avg"], rel=1e-9)
        assert quick.decode_latency_s == pytest.approx(run["decode_latency_s"]["avg"], rel=1e-9)
    tuple_form = score((plan.problem, plan.placement, plan.max_flow), backlog, warmup_s=20, duration_s=60)
    assert tuple_form == score(plan, backlog, warmup_s=20, duration_s=60)


def test_a_score_is_still_read_as_the_dict_it_was(plan):
    quick = score(plan, duration_s=10, warmup_s=5)
    with pytest.warns(DeprecationWarning, match=r"score\.prompts"):
        assert quick["prompts"] == quick.prompts > 0
    with pytest.warns(DeprecationWarning):
        assert dict(quick) == quick.to_dict()


@pytest.mark.parametrize("execution", ["range", "layerwise"])
def test_a_backlog_lasts_for_the_run(plan, monkeypatch, execution):
    """Sixteen requests are served long before the end: more are taken until some are left."""
    options = {"execution": execution, "warmup_s": 20, "duration_s": 60}
    served = score(plan, **options).decode_tokens_per_s
    monkeypatch.setattr(scoring, "BACKLOG", 16)
    assert score(plan, **options).decode_tokens_per_s == pytest.approx(served, rel=0.2)
    assert score(plan, Workload.offline(16, seed=0), **options).decode_tokens_per_s < served / 2


@pytest.mark.parametrize("execution", ["range", "layerwise"])
def test_engines_say_when_nobody_waits(plan, execution):
    """A handful is soon let in; of many more than the cluster holds some still wait; too long ones wait for nothing."""
    long = Workload.of([(0.0, 3000, 10**7)] * 3)
    for workload, said in ((Workload.offline(5, seed=0), True), (Workload.offline(4000, seed=0), False), (long, True)):
        engine = make_engine(
            plan,
            workload,
            SimulationOptions(
                mode="offline", policy="helix", execution=execution, warmup_s=0.0, duration_s=30.0, seed=0
            ),
        )
        engine.run(30.0, lambda now_s: None, 10.0)
        assert engine.all_admitted is said
        waiting = len(workload) - len(engine.log.started_s.keys() | engine.log.rejected.keys())
        assert (waiting == 0) is said


@pytest.mark.parametrize("execution", ["range", "layerwise"])
def test_a_backlog_that_nobody_can_serve_is_not_made_longer(plan, monkeypatch, execution):
    """With room for ten tokens in a layer every request is turned away, of however many."""
    asked = []
    make = scoring._backlog
    monkeypatch.setattr(scoring, "_backlog", lambda seed, requests: asked.append(requests) or make(seed, requests))
    room = {node: 10 * (end - start) for node, (start, end) in plan.placement.items()}
    assert score(plan, execution=execution, warmup_s=5, duration_s=10, kv_capacity=room).decode_tokens_per_s == 0
    assert len(asked) == 1


def test_online_scores_need_arrivals(plan):
    with pytest.raises(InputError, match="workload"):
        score(plan, mode="online", duration_s=10)


def test_requests_keep_their_ids(plan):
    run = simulate(plan, QUIET[3:6], duration_s=100)
    assert [r.request.id for r in run.records] == [3, 4, 5]
    assert isinstance(run.records[0].request, Request)
