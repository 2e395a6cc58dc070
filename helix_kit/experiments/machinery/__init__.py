"""Runs experiments, records their provenance, and writes them into documents and notebooks.

Low to high: ``files`` and ``registry`` (which figures import), ``digests``, ``catalogue`` (which imports the figures),
``recording`` (one experiment), ``running`` (many), then ``showing``, ``document``, ``demo``, ``notebooks`` and
``fidelity``.
"""

__all__: list[str] = []
