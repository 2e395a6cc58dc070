"""What a run says about bad input and interruption, and that a policy of one's own decides."""

from __future__ import annotations

import signal

import pytest

from helix_kit.errors import InputError
from helix_kit.scheduling import Policy
from helix_kit.simulator import score, simulate, whole_run
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
        ({"warmup_s": -1}, "warmup_s = -1: expected a finite number of seconds from 0"),
        ({"warmup_s": "a"}, "warmup_s = 'a': expected a finite number of seconds from 0"),
        ({"duration_s": "60"}, "duration_s = '60': expected a finite number of seconds above 0"),
        ({"workload": "azure-conversation"}, "expected requests, such as Workload.azure_conversation"),
        ({"kv_capacity": {"T4-77": 5}}, "T4-77"),
        ({"links": [("A100-40G-0", "T4-77")]}, "links between nodes of the plan"),
    ],
)
def test_bad_arguments_are_named(plan, arguments, words):
    with pytest.raises(InputError) as error:
        simulate(plan, **{"workload": QUIET, **arguments})
    assert words in str(error.value)


def test_the_name_of_a_file_is_no_plan():
    with pytest.raises(InputError, match=r"plan = 'str': expected a plan, such as Plan.load"):
        simulate("plan.json", QUIET)


def test_a_plan_without_a_pipeline_is_refused(plan):
    broken = plan.model_copy(update={"flow_tokens_per_s": 0.0, "flow": ()})
    with pytest.raises(InputError, match="carries flow"):
        simulate(broken, QUIET)
    assert score(broken).decode_tokens_per_s == 0.0


def test_ctrl_c_returns_what_there_is(plan):
    seen, before = [], signal.getsignal(signal.SIGINT)

    def press(now_s, end_s):
        seen.append((now_s, end_s))
        if now_s >= 20.0:
            signal.raise_signal(signal.SIGINT)

    run = simulate(plan, QUIET, duration_s=60, progress=press)
    assert run.partial and run.summary()["partial"]
    assert 20.0 <= run.window[1] < 25.0
    assert run.notes[-1] == (
        f"the simulation was stopped at {run.window[1]:.0f} s of 60 s: the figures are of the {run.window[1]:.0f} s "
        "that were measured until then"
    )
    early = simulate(plan, QUIET, warmup_s=40, duration_s=20, progress=press)
    assert early.notes[-1].endswith("of 60 s: before the measuring began, so there are no figures")
    seen = seen[: seen.index((0.0, 60.0), 1)]
    assert seen == sorted(seen) and {end for _, end in seen} == {60.0}
    assert all(r.request.arrival_s <= 25.0 for r in run.records)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_ctrl_c_ends_the_simulation_at_once(plan):
    def press_twice(*_):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        simulate(plan, QUIET, duration_s=60, progress=press_twice)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_whole_run_leaves_ctrl_c_to_its_caller(plan):
    def press(now_s, end_s):
        if now_s == 20.0:
            signal.raise_signal(signal.SIGINT)

    # Tests that a shell has started in the background ignore Ctrl-C.
    pressed, before = [], signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            whole_run(plan, QUIET, duration_s=60, progress=press)
        signal.signal(signal.SIGINT, lambda *_: pressed.append(1))
        run = whole_run(plan, QUIET, duration_s=60, progress=press)
    finally:
        signal.signal(signal.SIGINT, before)
    assert pressed == [1] and not run.partial
    assert simulate(plan, QUIET, duration_s=60, progress=press).partial  # as before


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


def test_requests_keep_their_ids(plan):
    run = simulate(plan, QUIET[3:6], duration_s=100)
    assert [r.request.id for r in run.records] == [3, 4, 5]
    assert isinstance(run.records[0].request, Request)
