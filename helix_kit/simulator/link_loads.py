"""What a policy counts for each link, as arrays that compiled code keeps up to date."""

from __future__ import annotations

import numpy as np

from helix_kit.scheduling import Policy
from helix_kit.simulator.setup import Setup
from helix_kit.simulator.state import LinkLoads

NO_LOADS = LinkLoads(np.zeros(0), np.zeros(0), np.zeros(0, dtype=np.int64))


def link_loads(policy: Policy | None, setup: Setup, *, always: bool = False) -> LinkLoads:
    """The policy's loads and flows, and which of the policy's links each simulated link is.

    Empty for a policy that keeps no loads; with `always` the links are listed even then.
    """
    if policy is None or policy.topology is None:
        return NO_LOADS
    given = policy.token_loads()
    if given is None and not always:
        return NO_LOADS
    index = {edge: i for i, edge in enumerate(policy.topology.links)}
    load, flow = given or (np.zeros(0), np.zeros(0))
    return LinkLoads(load, flow, np.array([index.get(edge, -1) for edge in setup.edges], dtype=np.int64))
