"""Figures, tables and the demo: what the package computes end to end, with provenance."""
