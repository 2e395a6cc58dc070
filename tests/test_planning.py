"""The verb `plan`: wrong options are refused by name, for each objective and method."""

import pytest

import helix_kit as hk
from helix_kit.errors import InfeasibleError, InputError


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"method": "magic"}, "method"),
        ({"objective": "beauty"}, "objective"),
        ({"solver": "cplex"}, "solver"),
        ({"time_limit_s": 0}, "time_limit_s"),
        ({"time_limit_s": "5"}, "time_limit_s"),
        ({"max_stages": 0}, "max_stages"),
        ({"max_stages": 5, "method": "swarm"}, "max_stages"),
        ({"pins": {"T4-0": (0, 4)}, "method": "petals"}, "pins"),
    ],
)
def test_wrong_options_name_the_field(options, field):
    with pytest.raises(InputError) as error:
        hk.plan("single24", "llama2-70b", **options)
    assert error.value.field == field


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"max_stage": 9}, "unknown option of method 'pattern'"),
        ({"degree": 4}, "expected only with method 'paper-milp', not 'pattern'"),
        ({"method": "paper-milp", "degre": 4}, "did you mean 'degree'?"),
        ({"objective": "served", "max_simulation": 4}, "did you mean 'max_simulations'?"),
        ({"objective": "served", "degree": 4}, "unknown option of objective 'served'"),
    ],
)
def test_unknown_options_are_refused(options, text):
    with pytest.raises(InputError) as error:
        hk.plan("single24", "llama2-70b", **options)
    assert text in str(error.value)
    assert error.value.field == list(options)[-1]


def test_better_placements_are_told_while_the_solve_goes_on():
    seen = []
    cluster, model = hk.Cluster.preset("single24"), hk.Model.preset("llama2-70b")
    plan = hk.plan(cluster, model, time_limit_s=20, incumbent=seen.append)
    problem = hk.Problem.of(cluster, model)
    flows = [problem.max_flow(placement).tokens_per_s for placement in seen]
    assert flows == sorted(flows) and len(set(flows)) == len(flows) >= 1
    assert flows[-1] == pytest.approx(plan.flow_tokens_per_s)


@pytest.mark.parametrize("method", ["proportional", "petals"])
def test_a_plan_is_for_the_lengths_of_its_workload(method):
    cluster = hk.Cluster.model_validate({"name": "six", "nodes": [{"gpu": "L4", "count": 6}]})
    usual = hk.plan(cluster, "llama-30b", method=method, prove=False)
    rows = [(0.0, 2000, 100), (1.0, 1000, 300)]
    mine = hk.plan(cluster, "llama-30b", method=method, prove=False, workload=hk.Workload.of(rows, "two"))
    assert (usual.lengths.input_tokens, usual.lengths.output_tokens) == (763, 232)
    assert str(mine.lengths) == "1,500 tokens in and 200 out (two)"
    assert mine.problem.throughput("L4-0", 5) != usual.problem.throughput("L4-0", 5)
    assert mine.flow_tokens_per_s == pytest.approx(
        mine.problem.max_flow(mine.placement, split="balanced").tokens_per_s, rel=1e-6
    )


def test_requests_that_no_placement_has_room_for_are_refused():
    cluster = hk.Cluster.model_validate({"name": "pair", "nodes": [{"gpu": "T4", "count": 15}]})
    with pytest.raises(hk.InfeasibleError, match="room for the KV cache of one request of 900,000 tokens in"):
        hk.plan(cluster, "llama-30b", method="petals", workload=(900_000, 10))


def test_a_plan_for_rounded_weights_holds_more_layers_and_says_so(tmp_path):
    cluster = hk.Cluster.model_validate({"name": "home", "nodes": [{"gpu": "L4", "count": 2}]})
    options = {"objective": "flow", "time_limit_s": 5}
    with pytest.raises(InfeasibleError):
        hk.plan(cluster, "qwen3-32b", **options)
    found = hk.plan(cluster, "qwen3-32b", quantize="int4", **options)
    assert found.placement and found.model.quantize == "int4"
    found.save(tmp_path / "plan.json")
    again = hk.Plan.load(tmp_path / "plan.json")
    assert again.model == found.model == hk.Model.preset("qwen3-32b").quantized("int4")
    # As a config says that is stored in four bits, whose scales take 20 bits a group in place of 40.
    assert again.model.layer_gb == pytest.approx(0.97519616 * (4 + 40 / 128) / 16, rel=1e-3)
    faster = hk.plan(cluster, "qwen3-8b", quantize="int4", **options).flow_tokens_per_s
    assert faster > 1.2 * hk.plan(cluster, "qwen3-8b", **options).flow_tokens_per_s
    with pytest.raises(InputError, match="quantize = 'int3'"):
        hk.plan(cluster, "qwen3-8b", quantize="int3")


def test_goodput_is_refused_for_an_engine_of_replicas():
    """Its candidates would share machines, which such an engine cannot serve."""
    cluster = hk.Cluster.model_validate({"name": "two", "nodes": [{"gpu": "H100-80G"}, {"gpu": "L4", "count": 4}]})
    with pytest.raises(InputError, match=r"objective = 'goodput': expected flow or served with engine vllm-0.15"):
        hk.plan(cluster, "llama3.1-8b", engine="vllm-0.15", objective="goodput", slo="ttft:2")
