"""Baseline placements: Swarm, Petals, separate pipelines, proportional, Parallax."""
