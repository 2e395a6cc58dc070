"""The cheapest fleet that serves a load within an SLO: kinds and numbers of machines, chosen by an integer program.

Low to high: ``offers`` (machines on offer), ``patterns`` (pipelines that can be built of them, with an estimate),
``program`` (the integer program), ``check`` (what a pipeline or a fleet serves in simulation), ``search`` (programs and
simulations in turn), ``result``, ``api`` (`fleet`).
"""

from helix_kit.fleets.api import fleet
from helix_kit.fleets.result import Checked, Fleet

__all__ = ["Checked", "Fleet", "fleet"]
