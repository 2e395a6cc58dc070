"""``helix-kit`` and ``python -m helix_kit``: the command line.

Loading the commands takes a second or more. Ctrl-C ends the program in that time, too, without a traceback.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point of the ``helix-kit`` program."""
    try:
        from helix_kit.cli import main as run  # within the try block, since Ctrl-C may come while this loads
    except KeyboardInterrupt:
        sys.stderr.write("helix-kit: stopped\n")
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
