"""A small process that has torch and the model's code loaded, and forks a worker whenever it is asked to.

Loading torch and transformers takes seconds of CPU time per process; forked from here, workers start at once. It is
started by `helix_kit.runtime.launch.process` as ``python -m helix_kit.runtime.launch.nursery MODEL_TYPE``, reads one
JSON object a line ({"spawn": spec}) and writes one ({"pid": n} or {"exit": pid}). When its input ends, because its
parent closed it or died, it kills its workers and leaves. It never touches CUDA, which does not survive a fork.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import sys
import threading
from typing import Any

GRACE_S = 3.0


def main() -> None:
    """Serve until the input ends."""
    # Answers go to a private copy of stdout; whatever a library prints goes to stderr.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    # Ctrl-C in a terminal reaches the whole process group; the user's process decides what happens then.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _preload(sys.argv[1])
    # A collection in a worker would write into the header of every object it inherits, and so copy all their pages
    # (97 MB each, in one jump, after some ten thousand requests); frozen objects are passed over.
    gc.collect()
    gc.freeze()
    wake_in, wake_out = os.pipe()
    os.set_blocking(wake_in, False)
    os.set_blocking(wake_out, False)
    signal.set_wakeup_fd(wake_out, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    # Held open by this process alone: its end tells the workers that the nursery is gone.
    lifeline_in, lifeline_out = os.pipe()
    children: set[int] = set()
    buffer = b""
    print(json.dumps({"ready": os.getpid()}), file=answers)
    while True:
        readable, _, _ = select.select([0, wake_in], [], [])
        if wake_in in readable:
            with contextlib.suppress(BlockingIOError):
                while os.read(wake_in, 4096):
                    pass
            for pid in _reap(children):
                print(json.dumps({"exit": pid}), file=answers)
        if 0 in readable:
            data = os.read(0, 1 << 16)
            if not data:
                break
            buffer += data
            while b"\n" in buffer:
                line, buffer = buffer.split(b"\n", 1)
                pid = os.fork()
                if pid == 0:
                    os.close(lifeline_out)
                    answers.close()
                    _child(json.loads(line)["spawn"], lifeline_in)
                children.add(pid)
                print(json.dumps({"pid": pid}), file=answers)
    _end(children)


def _preload(model_type: str) -> None:
    import importlib

    import torch  # noqa: F401

    importlib.import_module(f"transformers.models.{model_type}.modeling_{model_type}")
    from transformers import AutoConfig, AutoModelForCausalLM  # noqa: F401

    from helix_kit.runtime.worker import loop as worker  # noqa: F401


def _child(spec: dict[str, Any], lifeline: int) -> None:
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        threading.Thread(target=_die_with_nursery, args=(lifeline,), daemon=True).start()
        from helix_kit.runtime.spec import WorkerSpec
        from helix_kit.runtime.worker.loop import run_worker

        run_worker(WorkerSpec.model_validate(spec))
        status = 0
    except BaseException as error:
        print(f"worker {spec.get('node')}: {type(error).__name__}: {error}", file=sys.stderr)
    finally:
        sys.stderr.flush()
        os._exit(status)


def _die_with_nursery(lifeline: int) -> None:
    os.read(lifeline, 1)
    os._exit(1)


def _reap(children: set[int]) -> list[int]:
    gone = []
    for pid in list(children):
        with contextlib.suppress(ChildProcessError):
            if os.waitpid(pid, os.WNOHANG)[0] == pid:
                children.discard(pid)
                gone.append(pid)
    return gone


def _end(children: set[int]) -> None:
    for pid in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for pid in children:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
