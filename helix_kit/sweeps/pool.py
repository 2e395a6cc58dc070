"""Points of a sweep in a few worker processes, or in this one; what is computed is kept in a file as it comes.

The workers run `helix_kit.sweeps.worker` and exchange lines of JSON with this process.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any

from helix_kit import _files
from helix_kit._line_workers import LineWorkers
from helix_kit.errors import HelixKitError, InputError
from helix_kit.placement.plan import Plan
from helix_kit.sweeps.load import SweepOptions
from helix_kit.sweeps.messages import header_line
from helix_kit.sweeps.point import Point, measure
from helix_kit.workload.workload import Workload

Row = dict[str, Any]
Tell = Callable[[int, int, str], None]
"""Called with (points done, points in all, which one was done)."""


class Kept:
    """The rows of a file of JSON lines, by the key of their point; new ones are added as they come."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.rows: dict[str, Row] = {}
        if path is not None and path.exists():
            text = _files.read_text(path)
            whole = text.splitlines()[: text.count("\n")]  # a last line without an end was cut off: computed again
            for number, line in enumerate(whole, start=1):
                try:
                    entry = json.loads(line)
                    self.rows[entry["key"]] = entry["row"]
                except (json.JSONDecodeError, KeyError, TypeError):
                    message = "expected lines that a sweep has written, or a new file"
                    raise InputError(message, where=f"{path}:{number}", field="resume") from None
            if text and not text.endswith("\n"):
                path.write_text("".join(f"{line}\n" for line in whole), encoding="utf-8")

    def add(self, key: str, row: Row) -> None:
        """Keep a row, on disk at once."""
        self.rows[key] = row
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"key": key, "row": row}) + "\n")


def rows_of(
    points: Sequence[Point], plans: Mapping[str, Plan], options: SweepOptions, *, jobs: int, kept: Kept, tell: Tell
) -> list[Row]:
    """The rows of all points, in their order."""
    keys = [point.key(plans[point.plan], options) for point in points]
    missing = {key: point for key, point in zip(keys, points, strict=True) if key not in kept.rows}
    done = len(points) - len(missing)
    for key, row in _computed(missing, plans, options, min(jobs, len(missing))):
        kept.add(key, row)
        done += 1
        load = f"{row['rate_per_s']:g}/s" if row["concurrency"] is None else f"{row['concurrency']} at once"
        tell(done, len(points), f"{row['plan']}, {load}, seed {row['seed']}")
    # The name under which a plan was simulated before may be another one.
    return [{**kept.rows[key], "plan": point.plan} for key, point in zip(keys, points, strict=True)]


def _computed(
    points: Mapping[str, Point], plans: Mapping[str, Plan], options: SweepOptions, jobs: int
) -> Iterator[tuple[str, Row]]:
    if jobs <= 1 or not isinstance(options.policy, str):
        for key, point in points.items():
            yield key, measure(plans[point.plan], point, options)
        return
    with tempfile.TemporaryDirectory(prefix="helix-kit-sweep-") as folder:
        header = _header_in(Path(folder), plans, options)
        with LineWorkers("helix_kit.sweeps.worker", header, jobs) as workers, ThreadPoolExecutor(jobs) as threads:
            asked = {threads.submit(_ask, workers, point): key for key, point in points.items()}
            try:
                for answer in as_completed(asked):
                    yield asked[answer], answer.result()
            except BaseException:
                for future in asked:
                    future.cancel()
                workers.kill()
                raise


def _header_in(folder: Path, plans: Mapping[str, Plan], options: SweepOptions) -> str:
    """Write plans and requests into a folder; the line that tells a worker of them."""
    files = {}
    for index, (name, plan) in enumerate(plans.items()):
        files[name] = str(folder / f"plan-{index}.json")
        plan.save(files[name])
    workload_file = None
    if isinstance(options.workload, Workload):
        workload_file = str(folder / "workload.csv")
        options.workload.to_csv(workload_file)
    return header_line(files, options, workload_file)


def _ask(workers: LineWorkers, point: Point) -> Row:
    """The row of a point that a worker answers."""
    line = workers.ask(json.dumps(asdict(point)))
    if line is None:
        raise HelixKitError("the sweep was ended")
    row: Row = json.loads(line)
    return row
