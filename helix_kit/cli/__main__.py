"""``python -m helix_kit.cli``."""

from helix_kit.cli import main

main()
