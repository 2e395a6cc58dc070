"""The runs that constants are fitted on: what was measured, and what is predicted of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from helix_kit.experiments.exam.predictions import Figures, predict
from helix_kit.experiments.exam.runs import ExamRun
from helix_kit.experiments.exam.scores import errors_of
from helix_kit.profiles.engines import EngineRecord
from helix_kit.profiles.step import step_costs

TOLERANCES = {"tpot_server_mean": 0.025, "ttft_mean": 0.05, "ttft_p90": 0.1, "ttft_p99": 0.2, "e2e_p99": 0.05}
"""Metric -> relative error that counts as one: about the root mean square of what the best constants leave. With less,
runs would be believed more than the model can explain, and would move constants that they do not decide."""


@dataclass
class Training:
    """Training runs with what was measured, and the predictions made of them so far.

    Examples
    --------
    >>> Training([], {}, engine).without("Qwen/Qwen3-14B").runs    # doctest: +SKIP
    []
    """

    runs: Sequence[ExamRun]
    """Workloads and settings."""
    measured: Mapping[str, Figures]
    """By name of the run."""
    seed: int = 0
    """Of arrivals."""
    known: dict[tuple[object, ...], Figures] = field(default_factory=dict)
    """Predictions by run and step costs: a constant that does not touch a run does not run it again."""

    def without(self, model: str) -> Training:
        """The runs of all other models."""
        return replace(self, runs=[run for run in self.runs if run.facts["model"] != model])

    def only(self, model: str) -> Training:
        """The runs of one model."""
        return replace(self, runs=[run for run in self.runs if run.facts["model"] == model])

    @property
    def models(self) -> list[str]:
        """In file order."""
        return list(dict.fromkeys(run.facts["model"] for run in self.runs))

    def predicted(self, run: ExamRun, engine: EngineRecord) -> Figures:
        """A run's figures, from memory where its steps cost the same as before."""
        assert run.work is not None and run.machine is not None
        costs = step_costs(engine.with_rules(**run.rules), run.work, run.machine)
        key = (
            run.name, self.seed, engine.receive_s, engine.answer_s, costs.linear_s.tobytes(), costs.fixed_s,
            costs.mixed_s, costs.eager_s, costs.graph_tokens, costs.context_s, costs.pair_s, costs.sampled_s,
        )  # fmt: skip
        if key not in self.known:
            self.known[key] = predict(run, engine, seed=self.seed).figures
        return self.known[key]

    def errors(self, engine: EngineRecord) -> list[dict[str, float]]:
        """Errors of the whole runs, in per cent."""
        return [errors_of(self.predicted(run, engine), self.measured[run.name]) for run in self.runs]

    def wanted(self, run: ExamRun) -> list[tuple[int, str]]:
        """The stages and metrics that a fit looks at; of the whole run only where its stages were not measured."""
        given = self.measured[run.name]
        stages = sorted({stage for stage, _ in given if stage >= 0}) or [-1]
        return [(s, m) for s in stages for m in TOLERANCES if given.get((s, m))]
