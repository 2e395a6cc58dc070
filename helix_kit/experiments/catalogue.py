"""Importing this module registers every experiment, in the order of the paper."""

from helix_kit.experiments import planning, trace

__all__ = ["planning", "trace"]
