"""Annealing: single nodes take other layer ranges at random, and better placements are kept.

`moves` holds the compiled steps, `search` the search that calls them, `compiled` makes them ready beside other work.
`crossing_moves` and `crossing_search` are for many nodes in several regions: they count what links between them carry.
"""

from helix_kit.placement.annealing.compiled import Compilation
from helix_kit.placement.annealing.crossing_search import CrossingAnnealing
from helix_kit.placement.annealing.search import Annealing

__all__ = ["Annealing", "Compilation", "CrossingAnnealing"]
