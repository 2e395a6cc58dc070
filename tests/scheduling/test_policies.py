"""Policies of the user's own: a class, an object or a name of either, and a clear message for what is no policy."""

from __future__ import annotations

import abc
import re

import pytest

import helix_kit as hk
from helix_kit.errors import InputError
from helix_kit.flow import Stage, pipeline_of
from helix_kit.scheduling import POLICIES, Policy, Topology, make_policy, policy_name, resolve_policy
from helix_kit.scheduling.hop_by_hop import HopByHop
from helix_kit.scheduling.policy import valid_links
from helix_kit.workload.request import Request

WIDEST = """
from helix_kit.scheduling import Policy

class Widest(Policy):
    name = "widest"

    def __init__(self, pipelines):
        self.widest = pipelines[0][0]

    def route(self, request, view):
        return self.widest

widest = lambda: None
"""


@pytest.fixture(scope="module")
def plan() -> hk.Plan:
    cluster = hk.Cluster.model_validate({"name": "c", "nodes": [{"gpu": "H100-80G", "count": 2}, {"gpu": "L4"}]})
    problem = hk.Problem.of(cluster, hk.Model.preset("llama-30b"))
    return hk.Plan.from_placement(
        problem, {"H100-80G-0": (0, 30), "H100-80G-1": (30, 60), "L4-0": (20, 30)}, method="hand"
    )


@pytest.fixture(scope="module")
def workload() -> hk.Workload:
    return hk.Workload.constant(rate_per_s=1.0, duration_s=4.0, input_tokens=50, output_tokens=4)


class FirstWithPlan(Policy):
    def __init__(self, plan):
        self.pipeline = plan.pipelines[0][0]

    def route(self, request, view):
        return self.pipeline


class SeededHops(HopByHop):
    def __init__(self, topology, *, seed=0, width=3):
        super().__init__(topology)
        self.seed, self.width = seed, width

    def choose(self, source, candidates, request, view):
        return 0


class Inherited(FirstWithPlan):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)


class Bare(Policy):
    def route(self, request, view):
        return None


def test_a_class_gets_what_its_constructor_names(plan):
    assert make_policy(FirstWithPlan, plan).pipeline == plan.pipelines[0][0]
    assert make_policy(Inherited, plan).pipeline == plan.pipelines[0][0]
    assert isinstance(make_policy(Bare, plan), Bare)
    hops = make_policy(SeededHops, plan, seed=5, width=9)
    assert (hops.seed, hops.width) == (5, 9)
    assert set(hops.topology.links) == set(valid_links(plan)), "a policy that goes hop by hop may use all links"

    class OfFlow(Policy):
        def __init__(self, topology, /):
            self.topology = topology

        def route(self, request, view):
            return None

    assert set(make_policy(OfFlow, plan).topology.links) == set(plan.flow_edges)
    few = [("coordinator", "H100-80G-0"), ("H100-80G-0", "H100-80G-1"), ("H100-80G-1", "coordinator")]
    assert make_policy(OfFlow, plan, links=few).topology.links == tuple(few)


def test_the_package_s_own_are_made_from_the_same_table(plan):
    for name, cls in POLICIES.items():
        assert type(make_policy(name, plan)) is type(make_policy(cls, plan)) is cls


@pytest.mark.parametrize("execution", ["range", "layerwise"])
def test_class_object_and_file_simulate_alike(plan, workload, execution, own_folder):
    tmp_path = own_folder
    (tmp_path / "mine.py").write_text(WIDEST)
    name = f"{tmp_path / 'mine.py'}:Widest"
    cls = resolve_policy(name)
    tokens = []
    for policy in (name, cls, cls(plan.pipelines)):
        run = hk.simulate(plan, workload, policy=policy, execution=execution, duration_s=60)
        assert run.facts["policy"] in ("widest", name)
        assert {record.pipeline for record in run.records} == {plan.pipelines[0][0]}
        tokens.append(run.tokens.time_s.tolist())
    assert tokens[0] == tokens[1] == tokens[2]


def test_a_policy_on_the_command_line(helix_kit, plan, own_folder):
    tmp_path = own_folder
    plan.save("plan.json")
    (tmp_path / "mine.py").write_text(WIDEST)
    few = ("--rate", 1, "--duration", 20, "--warmup", 0, "--json")
    for name in ("./mine.py:Widest", "mine:Widest"):
        code, out, err = helix_kit("simulate", "plan.json", "--policy", name, *few)
        assert code == 0, err
        assert f'"policy": "{name}"' in out
    for wrong, message in [
        ("absent:Widest", "there is no module 'absent'"),
        ("./mine.py:Wider", "did you mean Widest"),
        ("mine:widest", "not a function"),
        ("widest", "unknown policy 'widest'"),
    ]:
        code, out, err = helix_kit("simulate", "plan.json", "--policy", wrong, *few)
        assert (code, out) == (2, "") and message in err and "Traceback" not in err
        code, _, err = helix_kit("serve", "plan.json", "--weights", "nowhere", "--prompt", "x", "--policy", wrong)
        assert code == 2 and "Traceback" not in err


def test_an_error_of_a_policy_is_one_message_with_its_line(helix_kit, plan, own_folder):
    tmp_path = own_folder
    plan.save(tmp_path / "plan.json")
    mine = tmp_path / "mine.py"
    mine.write_text(WIDEST.replace("return self.widest", "return {}[request.id]"))
    code, out, err = helix_kit(
        "simulate", tmp_path / "plan.json", "--policy", f"{mine}:Widest", "--rate", 1, "--duration", 20, "--warmup", 0
    )
    line = next(i for i, text in enumerate(mine.read_text().splitlines(), 1) if "{}[" in text)
    assert (code, out) == (1, "") and "Traceback" not in err
    assert f"policy 'widest': route raised KeyError: 0 ({mine}, line {line}) for request 0 (" in " ".join(err.split())


def test_help_lists_the_table(helix_kit):
    for command in ("simulate", "serve"):
        words = helix_kit(command, "--help")[1].replace("│", " ").split()
        assert ", ".join(name.replace("_", "-") for name in POLICIES) in " ".join(words)


class Duck:
    def route(self, request, view):
        return None


class NoRoute(Policy):
    pass


class ShortRoute(Policy):
    def route(self, request):
        return None


class AsyncRoute(Policy):
    async def route(self, request, view):
        return None


class LongHook(Bare):
    def on_finished(self, request, when):
        pass


class DataHook(Bare):
    on_token = 3


class Abstract(Policy, abc.ABC):
    @abc.abstractmethod
    def weight(self, node): ...

    def route(self, request, view):
        return None


class NoChoose(HopByHop):
    pass


class Greedy(Bare):
    def __init__(self, threshold):
        self.threshold = threshold


class Broken(Bare):
    def __init__(self):
        raise RuntimeError("no luck")


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        (Duck, "lacks on_admitted, on_refused, on_finished, on_token, on_hop_time, token_loads, hop_averages"),
        (Duck(), "no subclass of helix_kit.scheduling.Policy"),
        (NoRoute, "NoRoute lacks the method route(self, request, view)"),
        (NoRoute(), "NoRoute lacks the method route(self, request, view)"),
        (Policy, "lacks the method route"),
        (ShortRoute, "ShortRoute.route takes (self, request): expected route(self, request, view)"),
        (ShortRoute(), "expected route(self, request, view)"),
        (AsyncRoute, "expected a plain method route(self, request, view)"),
        (LongHook, "LongHook.on_finished takes (self, request, when): expected on_finished(self, request)"),
        (DataHook, "DataHook.on_token is no method"),
        (Abstract, "Abstract is abstract: it lacks weight"),
        (Greedy, "the constructor of Greedy needs threshold"),
        (Broken, "Broken cannot be made: RuntimeError: no luck"),
        (42, "not an object of int"),
        (None, "not an object of NoneType"),
        (NoChoose, "NoChoose lacks the method choose(self, source, candidates, request, view)"),
        (print, "not a function"),
        (dict, "dict lacks route"),
        ("helx", "did you mean helix"),
        ("json:dumps", "not a function"),
    ],
)
def test_what_is_no_policy_says_what_is_missing(plan, workload, choice, words):
    with pytest.raises(InputError, match=re.escape(words)) as caught:
        make_policy(choice, plan)
    assert "policy" in str(caught.value)
    with pytest.raises(InputError):
        hk.simulate(plan, workload, policy=choice, duration_s=10)


def test_a_class_is_also_chosen_by_its_own_name():
    assert policy_name(Bare) == policy_name(Bare()) == "Bare"
    assert policy_name(POLICIES["shortest_queue"]) == "shortest_queue"


def answering(answer):
    class Answering(Policy):
        def route(self, request, view):
            return answer

    return Answering


@pytest.mark.parametrize("execution", ["range", "layerwise"])
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (["H100-80G-0", "H100-80G-1"], "helix_kit.flow.pipeline_of"),
        ("H100-80G-0", "expected a tuple of stages"),
        (Stage("H100-80G-0", 0, 30), "expected a tuple of stages"),
        ((Stage("H100-80G-0", 0, 30),), "ends at layer 30: expected 60"),
        ((Stage("H100-80G-1", 30, 60),), "after layer 0"),
        ((Stage("H100-80G-0", 0, 60),), "within its range [0, 30)"),
        ((Stage("H100", 0, 60),), "'H100', which holds no layers"),
        ((), "ends at layer 0"),
    ],
)
def test_a_route_that_is_no_pipeline_is_told(plan, workload, execution, answer, words):
    with pytest.raises(InputError, match=re.escape(words)) as caught:
        hk.simulate(plan, workload, policy=answering(answer), execution=execution, duration_s=10)
    assert "Answering" in str(caught.value)


def test_a_list_of_stages_is_a_pipeline(plan, workload):
    route = list(pipeline_of(["H100-80G-0", "H100-80G-1"], plan.placement))
    run = hk.simulate(plan, workload, policy=answering(route), duration_s=60)
    assert run.summary()["finished"] == len(workload)


def test_after_a_loss_a_class_is_made_anew_for_the_nodes_that_are_left(plan):
    from helix_kit.simulator import NodeDies

    seen = []

    class Seeing(Policy):
        def __init__(self, topology: Topology, seed):
            seen.append((set(topology.placement), seed))
            self.inner = POLICIES["swarm"](topology)

        def route(self, request: Request, view):
            return self.inner.route(request, view)

    cluster = hk.Cluster.model_validate({"name": "pair", "nodes": [{"gpu": "A100-40G", "count": 2}]})
    problem = hk.Problem.of(cluster, hk.Model.preset("SmolLM2-135M"))
    both = hk.Plan.from_placement(problem, {"A100-40G-0": (0, 30), "A100-40G-1": (0, 30)}, method="hand")
    load = hk.Workload.constant(rate_per_s=5.0, duration_s=20.0, input_tokens=50, output_tokens=4)
    run = hk.simulate(both, load, policy=Seeing, seed=3, faults=[NodeDies("A100-40G-1", 5.0)], duration_s=40)
    assert seen[0] == ({"A100-40G-0", "A100-40G-1"}, 3) and seen[-1] == ({"A100-40G-0"}, 3)
    assert run.summary()["finished"] == len(load)
