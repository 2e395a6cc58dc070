"""What the first simulation of an installation needs: numba compiles the rules, which takes about ten seconds, once.

A search for a served plan simulates in processes that end with its time limit. They would compile side by side, and
within a short limit none would come to an end, now or the next time. So the rules are compiled before the search.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from types import ModuleType

from helix_kit._line_workers import start_child
from helix_kit._numba_cache import can_be_called_at_once
from helix_kit.cluster import Cluster
from helix_kit.model import Model
from helix_kit.placement.plan import Plan
from helix_kit.placement.problem import Problem
from helix_kit.profiles.engines import EngineRecord, engine_names, load_engine
from helix_kit.simulator.layerwise import rules as layerwise
from helix_kit.simulator.ranged import rules as ranged
from helix_kit.simulator.replicas import rules as replicas

POLL_S = 0.1
"""Seconds between two looks at a stop while another process compiles."""


def rules_of(execution: str, engine: EngineRecord | None = None) -> ModuleType:
    """The compiled rules that a simulation needs."""
    if engine is not None and engine.execution == "replicas":
        return replicas
    return ranged if execution == "range" else layerwise


def is_compiled(rules: ModuleType) -> bool:
    """Whether rules can be called at once.

    >>> is_compiled(ranged) in (True, False)
    True
    """
    return can_be_called_at_once(rules.advance)


def say_if_compiling(rules: ModuleType) -> None:
    """Tell the user why the first simulation takes longer."""
    if not is_compiled(rules):
        print("helix_kit: compiling the simulator (about 10 s, once)", file=sys.stderr, flush=True)


def compile_once(execution: str, engine: EngineRecord | None = None, stop: Callable[[], bool] = lambda: False) -> bool:
    """Compile the rules that a simulation needs, unless they are compiled; whether they had to be.

    Another process compiles, so that Ctrl-C and `stop` are heard at once. The result is in numba's cache.
    """
    rules = rules_of(execution, engine)
    if is_compiled(rules):
        return False
    say_if_compiling(rules)
    with start_child(f"from {__name__} import compile_rules; compile_rules({rules.__name__!r})") as compiling:
        try:
            while compiling.poll() is None and not stop():
                with suppress(subprocess.TimeoutExpired):
                    compiling.wait(POLL_S)
        finally:
            compiling.kill()
    if not is_compiled(rules) and not stop():
        # No folder for a cache can be written.
        compile_rules(rules.__name__)
    return True


def compile_rules(name: str) -> None:
    """Compile the rules of a module in this process, by a simulation of one machine."""
    cluster = Cluster.model_validate({"name": "one", "nodes": [{"gpu": "A100-40G"}]})
    engine = None
    if name == replicas.__name__:
        engine = next(found for each in engine_names() if (found := load_engine(each)).execution == "replicas")
    problem = Problem.of(cluster, Model.preset("SmolLM2-135M"), engine=engine)
    plan = Plan.from_placement(problem, {"A100-40G-0": (0, problem.num_layers)}, method="compile")
    if name == ranged.__name__:
        from helix_kit.simulator.steady import Window, steady_score

        steady_score(plan, window=Window(requests=1, warmup_lives=0.0, lives=0.0))
        return
    from helix_kit.simulator.scoring import score

    score(plan, execution="layerwise" if name == layerwise.__name__ else "range", warmup_s=0.0, duration_s=1.0)
