"""The verb `plan`: wrong options are refused by name, for each objective and method."""

import pytest

import helix_kit as hk
from helix_kit.errors import InputError


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"method": "magic"}, "method"),
        ({"objective": "beauty"}, "objective"),
        ({"solver": "cplex"}, "solver"),
        ({"time_limit_s": 0}, "time_limit_s"),
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
