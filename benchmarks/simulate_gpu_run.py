"""The closed loop of a GPU run again, on any machine: simulates what `gpu_check.py` served, from what it profiled.

    python benchmarks/simulate_gpu_run.py [docs/gpu-check.json]

The file holds the profile that was measured on the card, and throughput and latencies of the open loads that it served.
The loads are made again from their seeds. So a change of the simulator's rules is compared with a real GPU
without one.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

DEFAULT = ROOT / "docs" / "gpu-check.json"


def compare(path: Path) -> dict[str, tuple[float, float]]:
    """Name of a figure -> simulated, served."""
    from gpu_sections import serving
    from gpu_sections.sizes import FULL

    import helix_kit as hk
    from helix_kit.runtime.profile import Measurement, Point

    data = json.loads(path.read_text(encoding="utf-8"))["sections"]["closed_loop"]["data"]
    shape = FULL.large
    model = hk.Model(
        name="large", dtype_bytes=2, num_layers=shape["num_hidden_layers"], num_heads=shape["num_attention_heads"],
        num_kv_heads=shape["num_key_value_heads"],
        **{name: shape[name] for name in ("hidden_size", "intermediate_size", "head_dim", "vocab_size")},
    )  # fmt: skip
    points = []
    for name, ms in data["profile"].items():
        phase, tokens = name.split()
        points.append(Point(phase, int(tokens), ms, ms, ms))
    measured = Measurement("gpu", model, tuple(points), data["head_ms"], 0.0, 80e9)
    check: Any = SimpleNamespace(sizes=replace(FULL, chunk_tokens=data["chunk_tokens"]))
    link: Any = SimpleNamespace(bandwidth_gbps=(10.0,) * 3, latency_ms=(data["link_ms"],) * 3)
    found: dict[str, tuple[float, float]] = {}
    for rate_per_s in FULL.open_rates:
        load = serving.open_load(check, rate_per_s)
        run = serving.simulate(check, measured, link, serving.steady(measured.profile()), load)
        simulated = {
            "output tokens/s": serving.tokens_per_s(run),
            "TTFT mean, ms": 1e3 * float(run.latencies("prompt").mean()),
            "ITL mean, ms": 1e3 * float(run.latencies("decode").mean()),
        }
        for name, value in simulated.items():
            title = f"{rate_per_s:g}: {name}"
            found[title] = (value, data[title]["served"])
    return found


if __name__ == "__main__":
    print(f"{'requests/s':28} {'simulated':>10} {'served':>10} {'ratio':>7}")
    for title, (ours, served) in compare(Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT).items():
        print(f"{title:28} {ours:10.1f} {served:10.1f} {ours / served:7.3f}")
