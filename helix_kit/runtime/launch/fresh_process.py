"""A worker in a process that was started, not forked: for GPUs, since CUDA does not work in a forked process.

Started by `helix_kit.runtime.launch.process` as ``python -m helix_kit.runtime.launch.fresh_process``. The first line of
its input is the worker's spec. The end of its input means that its parent has ended, and it ends, too.
"""

from __future__ import annotations

import os
import signal
import sys
import threading


def main() -> None:
    """Run the worker whose spec is the first line of the input."""
    # Ctrl-C in a terminal reaches the whole process group; the user's process decides what happens then.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    from helix_kit.runtime.spec import WorkerSpec
    from helix_kit.runtime.worker.worker import run_worker

    spec = WorkerSpec.model_validate_json(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    status = 1
    try:
        run_worker(spec)
        status = 0
    except BaseException as error:
        print(f"worker {spec.name}: {type(error).__name__}: {error}", file=sys.stderr)
    sys.stderr.flush()
    os._exit(status)


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    main()
