"""The folder of an evaluation: settings, plans, requests, and one JSON file for each finished run.

What is there is not computed again. A folder belongs to one evaluation: its settings must be those that are asked for
now, except that methods and modes may be added.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from helix_kit import __version__, _files
from helix_kit.cluster import Cluster
from helix_kit.errors import InputError
from helix_kit.experiments.evaluate.intervals import Samples
from helix_kit.experiments.evaluate.load import Load
from helix_kit.experiments.evaluate.options import EvaluationOptions
from helix_kit.model import Model
from helix_kit.placement.plan import Plan
from helix_kit.profiles import Profile
from helix_kit.report import Run
from helix_kit.workload.workload import Workload

Record = dict[str, Any]
"""A finished run as plain data: method, mode, source, metrics, facts, attempts."""


class Folder:
    """The files of one evaluation; without a path everything is kept in memory alone."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._plans: dict[str, Plan] = {}
        self._samples: dict[str, Samples] = {}

    def open(self, settings: Mapping[str, Any]) -> None:
        """Make the folder, or check that it belongs to an evaluation with these settings."""
        if self.path is None:
            return
        for name in ("plans", "requests", "runs"):
            (self.path / name).mkdir(parents=True, exist_ok=True)
        file = self.path / "settings.json"
        if not file.exists():
            write_json(file, settings)
            return
        before = _files.read_json(file)
        for key, value in settings.items():
            if before.get(key) != value:
                raise InputError(
                    f"the folder holds an evaluation with {before.get(key)!r}: expected the same, or another folder",
                    where=file, field=key, value=value,
                )  # fmt: skip

    def plan(self, name: str) -> Plan | None:
        """The plan of that name, if it has been made."""
        file = self._file("plans", name, "json")
        if name not in self._plans and file is not None and file.exists():
            self._plans[name] = Plan.load(file)
        return self._plans.get(name)

    def keep_plan(self, name: str, plan: Plan) -> None:
        """Keep a plan."""
        self._plans[name] = plan
        if (file := self._file("plans", name, "json")) is not None:
            plan.save(file)

    def load(self, mode: str) -> Load | None:
        """What is served in a mode, if it has been chosen."""
        file = self._file("requests", mode, "json")
        if file is None or not file.exists():
            return None
        kept = _files.read_json(file)
        requests = Workload.from_csv(file.with_suffix(".csv"))
        window = (float(kept["window_s"][0]), float(kept["window_s"][1]))
        return Load(
            Workload(requests.requests, kept["source"]), window, kept["max_in_flight"], tuple(kept["notes"])
        )  # fmt: skip

    def keep_load(self, mode: str, load: Load) -> None:
        """Keep what is served in a mode."""
        file = self._file("requests", mode, "json")
        if file is None:
            return
        load.requests.to_csv(file.with_suffix(".csv"))
        write_json(file, {"source": load.requests.source, "requests": len(load.requests), "window_s": list(load.window),
                      "max_in_flight": load.max_in_flight, "notes": list(load.notes)})  # fmt: skip

    def run(self, method: str, mode: str, source: str) -> Record | None:
        """The record of a finished run, if there is one."""
        file = self._file("runs", _run_name(method, mode, source), "json")
        return _files.read_json(file) if file is not None and file.exists() else None

    def samples(self, method: str, mode: str, source: str) -> Samples | None:
        """The tokens of a finished run, if there is one."""
        name = _run_name(method, mode, source)
        file = self._file("runs", name, "npz")
        if name not in self._samples and file is not None and file.exists():
            self._samples[name] = Samples.read(file.read_bytes())
        return self._samples.get(name)

    def keep_run(self, record: Record, run: Run) -> None:
        """Keep a finished run: its record, a table of its requests, and the times of its tokens."""
        name = _run_name(record["method"], record["mode"], record["source"])
        samples = self._samples[name] = Samples.of(run)
        file = self._file("runs", name, "json")
        if file is not None:
            run.to_csv(file.with_suffix(".csv"))
            file.with_suffix(".npz").write_bytes(samples.to_bytes())
            write_json(file, record)

    def _file(self, kind: str, name: str, ending: str) -> Path | None:
        safe = "".join(c if c.isalnum() or c in "+-._" else "_" for c in name)
        return None if self.path is None else self.path / kind / f"{safe}.{ending}"


def _run_name(method: str, mode: str, source: str) -> str:
    return f"{method}-{mode}-{source.replace(' ', '-')}"


def settings_of(
    cluster: Cluster, model: Model, profiles: Mapping[str, Profile] | None, options: EvaluationOptions
) -> dict[str, Any]:
    """What must be the same for two runs to stand in one table, as plain data."""
    given = options.workload
    speeds = {kind: profile.model_dump(mode="json") for kind, profile in (profiles or {}).items()}
    return {
        "cluster": cluster.name,
        "cluster_digest": _digest(cluster.model_dump(mode="json")),
        "model": model.name,
        "model_digest": _digest(model.model_dump(mode="json")),
        "profiles_digest": _digest(speeds),
        "workers": options.workers,
        "time_scale": options.time_scale,
        "serve": {name: str(value) for name, value in sorted(options.serve.items())},
        "workload": given if isinstance(given, str) else given.source,
        "workload_digest": _digest([] if isinstance(given, str) else [repr(r) for r in given]),
        "rate_per_s": options.rate_per_s,
        "warmup_s": options.warmup_s,
        "duration_s": options.duration_s,
        "minutes": options.minutes,
        "time_limit_s": options.time_limit_s,
        "seed": options.seed,
        **({} if options.slo is None else {"slo": str(options.slo)}),
        "helix_kit": __version__,
    }


def _digest(data: Any) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]


def write_json(file: Path, data: Mapping[str, Any]) -> None:
    """Write in one step, so that a run that is stopped leaves no half file."""
    _files.write_whole(file, f"{json.dumps(data, indent=2)}\n".encode())
