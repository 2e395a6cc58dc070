"""Baseline placements to compare with, one file a method, each from its own paper's description.

Each file has ``place(task)``, the method as `helix_kit.placement.methods` lists it, and a function from a problem to a
placement. Swarm, Petals and separate pipelines give the placements that the Helix artifact published.
"""

from helix_kit.placement.baselines.parallax import parallax_placement
from helix_kit.placement.baselines.petals import petals_placement
from helix_kit.placement.baselines.proportional import proportional_placement
from helix_kit.placement.baselines.separate import separate_pipelines
from helix_kit.placement.baselines.swarm import swarm_placement

__all__ = [
    "parallax_placement",
    "petals_placement",
    "proportional_placement",
    "separate_pipelines",
    "swarm_placement",
]
