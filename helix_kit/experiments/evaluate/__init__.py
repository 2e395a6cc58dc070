"""Methods side by side on any cluster and model: planned, simulated, and served by real workers on the same requests.

>>> import helix_kit as hk
>>> found = hk.evaluate("laptop", "SmolLM2-135M", methods="helix,swarm,separate", workers="real")     # doctest: +SKIP
>>> found.plot().savefig("laptop.png")                                                                # doctest: +SKIP

``methods`` says what each name plans and schedules, ``load`` chooses requests and window, ``serving`` starts workers
and measures, ``keeping`` holds finished runs in a folder, ``result`` and ``picture`` show them.
"""

from __future__ import annotations

from helix_kit.experiments.evaluate.api import evaluate
from helix_kit.experiments.evaluate.methods import DEFAULT_METHODS, METHODS, Method
from helix_kit.experiments.evaluate.options import EvaluationOptions
from helix_kit.experiments.evaluate.result import Evaluation

__all__ = ["DEFAULT_METHODS", "METHODS", "Evaluation", "EvaluationOptions", "Method", "evaluate"]
