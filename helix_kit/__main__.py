"""``helix-kit`` and ``python -m helix_kit``: the command line.

Loading the commands takes a second or more. Ctrl-C ends the program in that time, too, without a traceback.
"""

from __future__ import annotations

import atexit
import os
import sys
from contextlib import suppress


def main() -> None:
    """Entry point of the ``helix-kit`` program, which ends the process.

    Python's own end would take apart what is in memory, half a second with compiled code, and wait for a solver that
    does not hear a stop. Functions that are registered for the end are called all the same.
    """
    try:
        run()
    except SystemExit as end:
        if not isinstance(end.code, int | None):
            raise  # A message, which Python prints.
        with suppress(OSError):  # A full disk or a closed pipe: Python's own end tells of it.
            _flush()
            solver = sys.modules.get("helix_kit.placement.solvers.highs")
            if solver is None or not solver.is_running():
                atexit._run_exitfuncs()
            _flush()  # What they printed.
            os._exit(end.code or 0)
        raise


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()


def run() -> None:
    """Run the command that the arguments name, and raise SystemExit."""
    try:
        from helix_kit.cli import main as commands  # within the try block, since Ctrl-C may come while this loads

        commands()
    except KeyboardInterrupt:
        sys.stderr.write("helix-kit: stopped\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
