"""What only a GPU can show, in one run: is it right, how fast is it, and how near is the simulator.

    python benchmarks/gpu_check.py [--only NAME,NAME] [--seconds 330] [-o DIR] [--weights FOLDER] [--attention auto]
    python benchmarks/gpu_check.py --tiny            the same sections with tiny shapes, on a CPU, in about a minute

It needs one GPU and no network, and takes less than six minutes. Random checkpoints are made on the GPU. The layers
are compared with those on the CPU, steps are timed beside the time that their memory traffic takes at least, the engine
serves batches, mixed and open loads, transformers runs the same, and the simulator predicts what was served from a
profile of the card. A section that fails does not stop the others. Results are written after each section:
docs/gpu-bench.md, and with -o also gpu-check.json. Exit code: 0 if all is right, 1 if a section failed, 2 if it cannot
run here.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpu_sections.report import Outcome
    from gpu_sections.shared import Check, Found

NEEDED = (
    "numpy", "pandas", "networkx", "numba", "pydantic", "zmq", "msgspec", "torch", "safetensors", "tokenizers",
    "transformers",
)  # fmt: skip
SECTIONS = (
    "machine", "equality", "steps", "batches", "mixed", "open", "closed_loop", "two_workers", "generate",
    "generate_batch", "attention", "small_steps", "flashinfer", "flashinfer_steps",
)  # fmt: skip
"""In this order: the most valuable first, so that what a deadline cuts off is missed least."""
OPTIONAL = ("flashinfer", "flashinfer_steps")
"""Run by default only where FlashInfer is installed."""
SECTION_LIMIT_S = 150.0
GRACE_S = 45.0
"""So long after the deadline, whatever hangs is cut off and the results are written."""
ROOT = Path(__file__).resolve().parent.parent


class TookTooLongError(Exception):
    """A section ran longer than it may."""


def missing_modules() -> list[str]:
    """What cannot be imported, with the reason."""
    found = []
    for name in NEEDED:
        try:
            importlib.import_module(name)
        except Exception as error:
            found.append(f"{name} ({error})")
    return found


def section(name: str) -> Callable[[Check], Found]:
    from gpu_sections import baselines, equality, serving, timing

    for module in (timing, equality, serving, baselines):
        if hasattr(module, f"section_{name}"):
            return getattr(module, f"section_{name}")
    raise KeyError(name)


def run_section(check: Check, name: str, limit_s: float) -> Outcome:
    """Run one section. Whatever it raises becomes its outcome."""
    from gpu_sections.report import Outcome

    outcome = Outcome(name)
    check.say(f"== {name}")
    began = time.monotonic()

    def too_long(*_: Any) -> None:
        raise TookTooLongError(f"not done after {limit_s:.0f} s")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.setitimer(signal.ITIMER_REAL, limit_s)
    try:
        outcome.found = section(name)(check)
        outcome.status = "failed" if outcome.found.wrong else "ok"
        outcome.error = "; ".join(outcome.found.wrong)
        check.found[name] = outcome.found
    except Exception as error:
        outcome.status, outcome.error = "failed", f"{type(error).__name__}: {error}"
        traceback.print_exc()
        check.close_engine()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    try:
        check.free()
    except Exception as error:
        check.say("memory could not be freed:", error)
    outcome.seconds = time.monotonic() - began
    check.say(f"== {name}: {outcome.status} in {outcome.seconds:.1f} s {outcome.error}")
    return outcome


def run_all(
    check: Check, outcomes: list[Outcome], seconds: float, write: Callable[[list[Outcome]], None]
) -> list[Outcome]:
    """Run the sections that have not been run. Those that the deadline leaves no time to begin are named as not run."""

    def left_s() -> float:
        return seconds - (time.time() - check.began)

    def give_up() -> None:
        check.say(f"cut off {GRACE_S:.0f} s after the deadline")
        write(outcomes)
        os._exit(1)

    guard = threading.Timer(max(1.0, left_s() + GRACE_S), give_up)
    guard.daemon = True
    guard.start()
    try:
        for index, outcome in enumerate(outcomes):
            if outcome.status != "not run":
                continue
            if left_s() <= 0:
                outcome.error = f"the {seconds:.0f} s were over"
                continue
            outcomes[index] = run_section(check, outcome.name, min(SECTION_LIMIT_S, left_s() + GRACE_S / 2))
            write(outcomes)
            if outcomes[index].status == "failed" and not check.works():
                check.close_engine()
                start_again(check, outcomes)
    finally:
        guard.cancel()
        check.close_engine()
    write(outcomes)
    return outcomes


def start_again(check: Check, outcomes: list[Outcome]) -> None:
    """Go on in a fresh process image, because the device no longer computes in this one."""
    check.say("the device does not compute any more in this process: going on in a fresh one")
    state = check.folder / "state.pickle"
    state.write_bytes(pickle.dumps((check.began, outcomes)))
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, __file__, *own_arguments(), "--resume", str(state)])


def own_arguments() -> list[str]:
    """What the user typed."""
    typed = sys.argv[1:]
    return typed[: typed.index("--resume")] if "--resume" in typed else typed


def warm_simulator() -> None:
    """Compile the simulator, in a process of its own, so that its cache is there when the closed loop needs it."""
    import helix_kit as hk

    cluster = hk.Cluster.model_validate({"name": "one", "nodes": [{"gpu": "A100-40G"}]})
    problem = hk.Problem.of(cluster, hk.Model.preset("SmolLM2-135M"))
    plan = hk.Plan.from_placement(problem, {cluster.nodes[0].name: (0, 30)}, method="all layers on one node")
    hk.simulate(plan, hk.Workload.constant(1.0, 3.0, input_tokens=20, output_tokens=4), duration_s=30.0)


def start_warming() -> subprocess.Popen[bytes]:
    command = [sys.executable, __file__, "--warm-simulator"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def print_summary(check: Check, outcomes: list[Outcome]) -> None:
    from gpu_sections.report import targets

    print("\nsection            status     s")
    for outcome in outcomes:
        print(f"{outcome.name:18} {outcome.status:8} {outcome.seconds:5.0f}  {outcome.error[:150]}")
    print()
    for what, value, target, met in targets(check.found):
        print(f"{what:62} {value:>10}  {target:>12}  {met}")
    sys.stdout.flush()


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", help=f"sections to run, in this order: {','.join(SECTIONS)}")
    parser.add_argument("--skip", default="", help="sections to leave out")
    parser.add_argument("--seconds", type=float, default=330.0, help="no section is begun after so many seconds")
    parser.add_argument("--tiny", "--quick", action="store_true", help="tiny shapes, on a CPU where there is no GPU")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--attention", default="auto", help="backend of all sections but those that compare them")
    parser.add_argument("--weights", type=Path, help="Hugging Face folder in place of random weights of the 8B shape")
    parser.add_argument("--open-seconds", type=float, help="length of each open load")
    parser.add_argument("--chunk-tokens", type=int, help="tokens of a prefill chunk")
    parser.add_argument(
        "--folder", type=Path, help="where checkpoints are made; default: memory, else a temporary folder"
    )
    parser.add_argument("-o", "--output", type=Path, help="folder for gpu-check.json and a copy of the document")
    parser.add_argument("--document", type=Path, help="default: docs/gpu-bench.md, but none with --tiny")
    parser.add_argument("--warm-simulator", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--resume", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def chosen_sections(options: argparse.Namespace) -> list[str]:
    """The sections to run; exits with 2 for an unknown name."""
    if options.only:
        names = options.only.split(",")
    else:
        has_flashinfer = importlib.util.find_spec("flashinfer") is not None
        names = [name for name in SECTIONS if has_flashinfer or name not in OPTIONAL]
    skipped = [name for name in options.skip.split(",") if name]
    if unknown := [name for name in (*names, *skipped) if name not in SECTIONS]:
        print(f"unknown section {', '.join(unknown)}: expected some of {', '.join(SECTIONS)}", file=sys.stderr)
        raise SystemExit(2)
    return [name for name in names if name not in skipped]


def scratch_folder(given: Path | None) -> Path:
    """A new folder for checkpoints: in memory where there is room for the large one."""
    memory = Path("/dev/shm")
    if given is None and memory.is_dir() and shutil.disk_usage(memory).free > 24e9:
        given = memory
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix="gpu-check-", dir=given))


def main() -> int:
    began = time.time()
    options = parse()
    sys.path.insert(0, str(ROOT))
    # The workers are started as `python -m helix_kit...`, from wherever this was started.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if options.warm_simulator:
        warm_simulator()
        return 0
    names = chosen_sections(options)
    if missing := missing_modules():
        print(f"gpu-check cannot run here; missing: {'; '.join(missing)}", file=sys.stderr)
        return 2
    import torch

    if not torch.cuda.is_available() and not options.tiny:
        print(f"gpu-check needs a CUDA device, and torch {torch.__version__} finds none here", file=sys.stderr)
        return 2
    from dataclasses import replace

    from gpu_sections import report
    from gpu_sections.shared import Check
    from gpu_sections.sizes import FULL, ON_CPU
    from transformers.utils import logging

    logging.disable_progress_bar()
    warming = start_warming() if "closed_loop" in names and not options.resume else None
    sizes = ON_CPU if options.tiny else FULL
    if options.open_seconds:
        sizes = replace(sizes, open_seconds=options.open_seconds)
    if options.chunk_tokens:
        sizes = replace(sizes, chunk_tokens=options.chunk_tokens)
    device = options.device if torch.cuda.is_available() else "cpu"
    outcomes = [report.Outcome(name, error="not begun") for name in names]
    if options.resume:
        folder = options.resume.parent
        began, outcomes = pickle.loads(options.resume.read_bytes())
    else:
        folder = scratch_folder(options.folder)
    check = Check(sizes, device, folder, options.attention, options.weights)
    check.began = began
    check.found = {outcome.name: outcome.found for outcome in outcomes if outcome.found.data}
    page = options.document or (None if options.tiny else ROOT / "docs" / "gpu-bench.md")
    facts = report.machine_facts(device)
    check.say(", ".join(f"{name} {value}" for name, value in facts.items()))
    command = " ".join(["python benchmarks/gpu_check.py", *own_arguments()])

    def write(outcomes: list[Outcome]) -> None:
        report.write(options.output, page, facts, outcomes, command)

    try:
        run_all(check, outcomes, options.seconds, write)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if warming is not None:
            warming.kill()
            warming.wait()
    print_summary(check, outcomes)
    return 0 if all(outcome.status == "ok" for outcome in outcomes) else 1


if __name__ == "__main__":
    raise SystemExit(main())
