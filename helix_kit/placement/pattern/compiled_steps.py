"""The compiled steps of the rounds' searches, each loaded when first asked for: numba alone takes half a second."""

from __future__ import annotations

from contextlib import ExitStack
from functools import cached_property

from helix_kit.placement.annealing import Compilation


class CompiledSteps(ExitStack):
    """Compilations in other processes, which end with it.

    Examples
    --------
    >>> with CompiledSteps() as steps:
    ...     waits = steps.moves.is_pending()
    >>> waits in (True, False)
    True
    """

    @cached_property
    def moves(self) -> Compilation:
        """The steps of annealing."""
        from helix_kit.placement.annealing import moves

        return self.enter_context(Compilation(moves))

    @cached_property
    def crossing_moves(self) -> Compilation:
        """The steps of annealing that counts links between regions."""
        from helix_kit.placement.annealing import crossing_moves

        return self.enter_context(Compilation(crossing_moves))

    @cached_property
    def listing(self) -> Compilation:
        """The steps of the pattern program that list stages."""
        from helix_kit.placement.pattern import stage_kernel

        return self.enter_context(Compilation(stage_kernel))

    @cached_property
    def walking(self) -> Compilation:
        """The steps of bound B7."""
        from helix_kit.placement.bounds import linked_sweep

        return self.enter_context(Compilation(linked_sweep))


__all__ = ["CompiledSteps"]
