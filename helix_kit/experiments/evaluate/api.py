"""`evaluate`: methods planned, simulated and served on the same requests, in one table."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from helix_kit import __version__
from helix_kit._wording import join_names
from helix_kit.cluster import Cluster, load_cluster
from helix_kit.errors import HelixKitError, InputError
from helix_kit.experiments.evaluate.intervals import Samples, differences, unsettled_medians
from helix_kit.experiments.evaluate.keeping import Folder, Record, settings_of
from helix_kit.experiments.evaluate.load import Load, choose_loads
from helix_kit.experiments.evaluate.methods import DEFAULT_METHODS, Method, MethodChoice, chosen_methods, policy_label
from helix_kit.experiments.evaluate.options import SIMULATED, EvaluationOptions, Mode, Workers
from helix_kit.experiments.evaluate.result import Evaluation, evaluation_of
from helix_kit.experiments.evaluate.serving import Job, JobRunner, Watch
from helix_kit.metrics import SLO
from helix_kit.model import Model, load_model
from helix_kit.placement.plan import Plan
from helix_kit.profiles import Profile
from helix_kit.report import Run
from helix_kit.workload.named import SYNTHETIC
from helix_kit.workload.workload import Workload

if TYPE_CHECKING:
    from pydantic import BaseModel

Progress = Callable[[int, int, str], None]
"""Called with (runs done, runs in all, what is done now and how long the rest takes)."""


def evaluate(
    cluster: Cluster | str | Path,
    model: Model | str | Path,
    *,
    methods: str | Iterable[MethodChoice] | Mapping[str, MethodChoice] = DEFAULT_METHODS,
    modes: str | Iterable[str] = ("offline", "online"),
    workers: str = "simulated",
    weights: str | Path | None = None,
    workload: str | Workload = "azure-conversation",
    rate_per_s: float | None = None,
    duration_s: float | None = None,
    warmup_s: float | None = None,
    minutes: float | None = None,
    time_limit_s: float = 60.0,
    time_scale: float | None = None,
    profiles: Mapping[str, Profile] | None = None,
    seed: int = 0,
    slo: SLO | None = None,
    folder: str | Path | None = None,
    progress: Progress | None = None,
    watch: Watch | None = None,
    **serve_options: Any,
) -> Evaluation:
    """Plan by each method, simulate and serve the same requests, and put the results side by side.

    Ctrl-C ends it and returns what is done. With a `folder`, the same call goes on where it was stopped.

    Parameters
    ----------
    cluster, model
        Descriptions, or what `load_cluster` and `load_model` accept: names of presets, or files.
    methods
        Names of `METHODS`, also as one text with commas; PLACEMENT+POLICY, such as ``petals+random``; files with plans;
        plans; or a mapping, name -> one of these.
    modes
        ``offline`` (the cluster is kept full), ``online`` (requests arrive over time), or both.
    workers
        What serves beside the simulation. ``simulated``: nothing. ``real``: workers on the devices of this machine, or
        of several through ``launcher="ray"``. ``emulated``: a process for each node with a stand-in for the model,
        paced to the profiles of cluster and model.
    weights
        Hugging Face folder for real workers. None: SmolLM2-135M, fetched once.
    workload
        azure-conversation, azure-code, poisson, constant, or requests, which are repeated for as long as needed. Plans
        are made for the lengths of given requests.
    rate_per_s
        Requests/s online. None: those of given requests, else three quarters of the largest flow (paper, section 6.2).
    duration_s, warmup_s
        Seconds that are measured, and seconds before. None: chosen from how long a request stays.
    minutes
        Minutes in which all workers together serve, without their starts; 3 for real and 60 for emulated workers unless
        given. Requests are made shorter where they would not get through in time, and the notes say so.
    time_limit_s
        Seconds for each plan.
    time_scale
        Factor on all times of paced workers; 1 for real ones and 2 for emulated ones unless given. It is doubled when
        this machine is too slow for an emulation.
    profiles
        Measured profiles by kind of machine, in place of the shipped ones.
    seed
        Of plans, requests, prompts and policies.
    slo
        Limits of a request: adds `goodput_per_s` and `attainment` to the metrics of each run.
    folder
        Where plans, requests and finished runs are kept. None: nowhere.
    progress
        Called with (runs done, runs in all, what is done now).
    watch
        Called about once a second while workers serve, with the name of the run and an `EngineStatus`.
    serve_options
        Further keywords of `helix_kit.serve`, such as ``launcher``, ``dtype``, ``devices`` or ``kv_pages``.

    Returns
    -------
    Evaluation
        The table; `.plot()` draws the picture. What could not be planned or measured is in its `problems`.

    Raises
    ------
    InputError
        For a wrong option, or a folder that holds another evaluation.
    HelixKitError
        When no method has a plan.

    Examples
    --------
    >>> import helix_kit as hk
    >>> found = hk.evaluate("laptop", "SmolLM2-135M", methods="helix,swarm", modes="online",
    ...                     duration_s=60)                                                     # doctest: +SKIP
    >>> found.value("helix", "online", "simulated", "decode_tokens_per_s")                     # doctest: +SKIP
    """
    named_modes = tuple(mode.strip() for mode in (modes.split(",") if isinstance(modes, str) else modes))
    options = EvaluationOptions(
        modes=cast(tuple[Mode, ...], named_modes),
        workers=cast(Workers, workers), workload=workload, rate_per_s=rate_per_s, duration_s=duration_s,
        warmup_s=warmup_s, minutes=minutes, time_limit_s=time_limit_s, time_scale=time_scale, seed=seed,
        slo=slo, serve=serve_options,
    )  # fmt: skip
    chosen = chosen_methods(methods)
    cluster = cluster if isinstance(cluster, Cluster) else load_cluster(cluster)
    model = model if isinstance(model, Model) else load_model(model)
    kept = Folder(Path(folder) if folder is not None else None)
    kept.open(settings_of(cluster, model, profiles, options))
    study = _Study(cluster, model, profiles, options, kept, progress or (lambda *_: None))
    study.watch = watch
    return study.run(chosen, Path(weights) if weights is not None else None)


class _Study:
    """The steps of one evaluation, and what they have found so far."""

    def __init__(
        self,
        cluster: Cluster,
        model: Model,
        profiles: Mapping[str, Profile] | None,
        options: EvaluationOptions,
        kept: Folder,
        progress: Progress,
    ) -> None:
        self.cluster, self.model, self.profiles = cluster, model, profiles
        self.options, self.kept, self.progress = options, kept, progress
        self.plans: dict[str, Plan] = {}
        """Method -> plan."""
        self.loads: dict[str, Load] = {}
        self.records: list[Record] = []
        self.problems: list[str] = []
        self.watch: Watch | None = None

    def run(self, methods: list[Method], weights: Path | None) -> Evaluation:
        """Plan, choose requests, and run everything that is not in the folder yet."""
        sources = [SIMULATED, *([self.options.source] if self.options.source else [])]
        total = len(methods) * len(self.options.modes) * len(sources)
        stopped = False
        try:
            for method in methods:
                self.progress(0, total, f"planning, {method.label}")
                self._plan(method)
            if not self.plans:
                raise HelixKitError("no method has a plan: " + "; ".join(self.problems))
            self.progress(0, total, "choosing requests")
            self._choose_loads(len(self.plans) * len(self.options.modes))
            weights = self._weights(weights)
            # Simulations take seconds, so they come first: the table is of use before the workers are done.
            jobs = [
                Job(method, self.plans[method.name], mode, self.loads[mode], source)
                for source in sources for method in methods for mode in self.options.modes if method.name in self.plans
            ]  # fmt: skip
            self._run(jobs, weights)
        except KeyboardInterrupt:
            stopped = True
        return self._found(methods, stopped)

    def _plan(self, method: Method) -> None:
        plan = self.kept.plan(method.plan_name)
        if plan is None:
            try:
                plan = self._planned(method)
            except InputError:
                raise
            except HelixKitError as error:
                self.problems.append(f"{method.label}: no plan: {error}")
                return
            self.kept.keep_plan(method.plan_name, plan)
        self.plans[method.name] = plan

    def _planned(self, method: Method) -> Plan:
        from helix_kit.planning import plan as solve

        placement = method.placement
        if isinstance(placement, Plan | Path):
            plan = placement if isinstance(placement, Plan) else Plan.load(placement)
            if plan.cluster != self.cluster or plan.model != self.model:
                place = f"{plan.model.name} on {plan.cluster.name}"
                expected = f"expected a plan for {self.model.name} on {self.cluster.name}"
                expected += _difference("cluster", plan.cluster, self.cluster)
                expected += _difference("model", plan.model, self.model)
                raise InputError(expected, where=method.name, field="methods", value=place)
            return plan
        given = self.options.workload
        # Without a workload plans are for the conversation trace, or as published; the synthetic ones have its lengths.
        is_usual = isinstance(given, str) and given in {"azure-conversation", *SYNTHETIC}
        options: dict[str, Any] = {
            "profiles": self.profiles, "time_limit_s": self.options.time_limit_s, "seed": self.options.seed,
            "workload": None if is_usual else given,
        }  # fmt: skip
        if placement == "served":
            return solve(self.cluster, self.model, objective="served", **options)
        return solve(self.cluster, self.model, method=placement, **options)

    def _choose_loads(self, runs: int) -> None:
        self.loads = {mode: load for mode in self.options.modes if (load := self.kept.load(mode)) is not None}
        if len(self.loads) == len(self.options.modes):
            return
        for mode, load in choose_loads(self.plans, runs, self.options).items():
            if mode not in self.loads:
                self.loads[mode] = load
                self.kept.keep_load(mode, load)

    def _weights(self, weights: Path | None) -> Path | None:
        """The folder of weights for real workers; those of the demo model are fetched before anything is measured."""
        if self.options.workers != "real" or weights is not None:
            return weights
        from helix_kit.runtime.weights.demo import DEMO_MODEL, demo_weights

        if self.model.name != DEMO_MODEL:
            raise InputError(f"real workers need the weights of {self.model.name}: expected a folder", field="weights")
        return demo_weights(progress=None)

    def _run(self, jobs: list[Job], weights: Path | None) -> None:
        records = [self.kept.run(job.method.name, job.mode, job.source) for job in jobs]
        missing = [job for job, record in zip(jobs, records, strict=True) if record is None]
        runner = JobRunner(self.options, weights, self.watch)
        clock = _TimeLeft(missing, self.options.first_time_scale)
        for done, (job, kept) in enumerate(zip(jobs, records, strict=True)):
            record = kept
            if record is None:

                def say(what: str, done: int = done, job: Job = job) -> None:
                    self.progress(done, len(jobs), f"{job.name}: {what}{clock.left()}")

                try:
                    record, run = runner.run(job, say)
                except InputError:
                    raise
                except HelixKitError as error:
                    self.problems.append(f"{job.name}: {error}")
                    continue
                finally:
                    clock.ended(job)
                self._compare(record, run)
                self.kept.keep_run(record, run)
            self.records.append(record)
        self.progress(len(jobs), len(jobs), "done")

    def _compare(self, record: Record, run: Run) -> None:
        """Put into the record of what workers served how far it is from the simulation."""
        simulated = self.kept.samples(record["method"], record["mode"], SIMULATED)
        if record["source"] != SIMULATED and simulated is not None:
            served = Samples.of(run)
            record["differences"] = [d._asdict() for d in differences(simulated, served)]
            record["notes"] = [*record["notes"], *unsettled_medians(simulated, served)]

    def _found(self, methods: list[Method], stopped: bool) -> Evaluation:
        plan_rows = [
            (name, metric, value)
            for name, plan in self.plans.items()
            for metric, value in (("flow_tokens_per_s", plan.flow_tokens_per_s), ("gap", plan.gap),
                                  ("nodes_in_use", float(len(plan.placement))))
        ]  # fmt: skip
        notes = [f"{mode}: {note}" for mode, load in self.loads.items() for note in load.notes]
        for record in self.records:
            notes += [f"{record['label']}, {record['mode']}, {record['source']}: {note}" for note in record["notes"]]
        facts = {
            "cluster": self.cluster.name,
            "model": self.model.name,
            "workers": self.options.workers,
            "workload": {mode: load.requests.source for mode, load in self.loads.items()},
            "window_s": {mode: list(load.window) for mode, load in self.loads.items()},
            "policies": {method.name: policy_label(method) for method in methods},
            "seed": self.options.seed,
            "helix_kit": __version__,
        }
        labels = {method.name: method.label for method in methods}
        return evaluation_of(
            plan_rows, self.records, labels, facts, notes=tuple(notes), problems=tuple(self.problems), stopped=stopped
        )


def _difference(what: str, found: BaseModel, wanted: BaseModel) -> str:
    """Which fields of two descriptions of one name differ; empty where their names tell them apart."""
    names = [name for name in type(wanted).model_fields if getattr(found, name) != getattr(wanted, name)]
    if not names or "name" in names:
        return ""
    return f"; the plan's {what} has the same name and differs in {join_names(names)}"


class _TimeLeft:
    """How long the rest takes: runs of a source take as long as those before, or as their windows say."""

    def __init__(self, jobs: list[Job], time_scale: float) -> None:
        self._jobs, self._scale = list(jobs), time_scale
        self._taken: dict[str, list[float]] = {}
        self._began_s = time.monotonic()

    def ended(self, job: Job) -> None:
        """The first of the jobs that are left has ended."""
        self._taken.setdefault(job.source, []).append(time.monotonic() - self._began_s)
        self._jobs.pop(0)
        self._began_s = time.monotonic()

    def left(self) -> str:
        """Text on the time that is left; empty where nothing is known of it."""
        left_s = self._began_s - time.monotonic()
        for job in self._jobs:
            taken = self._taken.get(job.source)
            if not taken and job.source == SIMULATED:
                return ""
            left_s += sum(taken) / len(taken) if taken else job.load.window[1] * self._scale
        left_s = max(left_s, 1.0)
        return f", about {left_s:.0f} s left" if left_s < 90 else f", about {left_s / 60:.0f} min left"


__all__ = ["evaluate"]
