"""Measure this machine's CPU with SmolLM2-135M, and write the tables of the emulated kinds of the `laptop` preset.

    python examples/measure_laptop_profile.py [FOLDER]

FOLDER defaults to data/profiles/SmolLM2-135M. One torch thread is measured, as each worker has. The three kinds are
that machine slowed down by FACTORS: enough that four workers on two cores seldom need longer than their table says.
"""

from __future__ import annotations

import sys
from pathlib import Path

from helix_kit import Model
from helix_kit.runtime.profile import emulated, measure, write_tables
from helix_kit.runtime.weights.demo import DEMO_MODEL, demo_weights

FACTORS = {"CPU-fast": 2.5, "CPU-medium": 3.75, "CPU-slow": 6.0}
# 58 layers on the four nodes together: each of the 30 layers can be held almost twice.
MAX_LAYERS = {"CPU-fast": 20, "CPU-medium": 14, "CPU-slow": 12}
MEMORY_GB = 2.0  # as data/gpus.csv says of the CPU-* kinds
MEMORY_SHARE = 0.85  # of the shipped tables; the default of `measure` is higher


def main() -> None:
    """Measure and write."""
    default = Path(__file__).resolve().parent.parent / "data" / "profiles" / DEMO_MODEL
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else default
    base = measure(
        demo_weights(),
        kind="CPU",
        model=Model.preset(DEMO_MODEL),
        layers=15,
        repeats=25,
        memory_gb=MEMORY_GB,
        memory_share=MEMORY_SHARE,
        progress=lambda what, share: print(f"{share:4.0%} {what}", flush=True),
    )
    for point in base.points:
        print(f"{point.phase:8}{point.tokens:4} tokens  {point.ms_per_layer:7.2f} ms/layer", end="  ")
        print(f"(10th to 90th percentile {point.low_ms:.2f} to {point.high_ms:.2f})")
    print(f"final norm and output projection: {base.head_ms:.1f} ms")
    write_tables(emulated(base, FACTORS, MAX_LAYERS), folder)
    print(f"wrote {folder}")


if __name__ == "__main__":
    main()
