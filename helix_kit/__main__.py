"""``python -m helix_kit``: the command line without the installed program."""

from helix_kit.cli import main

main()
