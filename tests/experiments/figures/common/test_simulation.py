"""A run of the figures: what ran dry is refused, since its figures are not those of a full cluster."""

import pytest

from helix_kit import Cluster, Model, Workload, plan
from helix_kit.errors import InputError
from helix_kit.experiments.figures.common.simulation import Simulation, run_together


@pytest.mark.parametrize("execution", ["layerwise", "range"])
def test_an_offline_stream_that_ends_within_the_run_is_refused(execution):
    petals = plan(Cluster.preset("cluster10"), Model.preset("llama-30b"), method="petals")
    few = Simulation(petals, Workload.offline(10), "offline", 5.0, 30.0, execution=execution)
    with pytest.raises(InputError, match="'10 requests': expected requests that last for 35 s; they ran dry at"):
        run_together([few])
    assert run_together([Simulation(petals, Workload.offline(2000), "offline", 5.0, 30.0)]).window == (5.0, 35.0)
