"""All policies alike: routes are pipelines of live nodes, and names are known."""

from __future__ import annotations

import pytest
from cluster_views import OpenView, equal_requests

from helix_kit.errors import InputError
from helix_kit.scheduling import POLICIES, make_policy


@pytest.mark.parametrize("name", POLICIES)
def test_every_route_is_a_pipeline_and_avoids_the_dead(plan, name):
    policy = make_policy(name, plan, seed=1)
    # The flow leaves each other machine a way on without it. (Where a loss does not, the flow has to be solved again.)
    victim = "A100-40G-0"
    for view in (OpenView(), OpenView(dead=[victim])):
        pipelines = [policy.route(request, view) for request in equal_requests(60)]
        assert None not in pipelines  # there is room, and live nodes hold every layer
        for pipeline in pipelines:
            done = 0
            for stage in pipeline:
                start, end = plan.placement[stage.node]
                assert stage.start == done and start <= stage.start < stage.end == end
                assert view.is_alive(stage.node)
                done = stage.end
            assert done == plan.model.num_layers


def test_unknown_policy_names_the_known(plan):
    with pytest.raises(InputError, match="did you mean helix"):
        make_policy("helx", plan)
