"""The cheapest fleets for Llama-2-7B in the setting of Mélange (Griggs et al., 2024): the table of docs/fleet-bench.md.

    python benchmarks/bench_fleet.py                      # about ten minutes; writes docs/fleet-bench.json
    python benchmarks/bench_fleet.py --table              # the table of what was written

L4, A10G, A100-80G and H100-80G; short chat, long documents, and four of five chats; TPOT of 120 and 40 ms.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

import helix_kit as hk

MODEL = Path(__file__).parent.parent / "examples" / "llama2-7b.yaml"
RESULT = Path(__file__).parent.parent / "docs" / "fleet-bench.json"
GPUS = ("L4", "A10G", "A100-80G", "H100-80G")
PRICES = {
    "catalogue": None,
    # Azure, East US: an A100 of 80 GB (the price in Mélange's published example, too), and the H100 NVL of 94 GB.
    "large cloud": {"A100-80G": 3.67, "H100-80G": 6.98},
}
RATES = (1, 4, 16)
LIMITS_S = (0.12, 0.04)
MEANS = {"chat": (70, 215), "documents": (4000, 270)}
"""Mean tokens in and out of the stand-ins for Mélange's data sets."""
SIGMA = {"chat": (1.0, 0.8), "documents": (0.5, 0.4)}
"""Standard deviation of the logarithm of the lengths."""
CHAT_SHARE = 0.8
REPORTED = {
    ("chat", 0.12): "15-77", ("chat", 0.04): "9-68", ("documents", 0.12): "15-33", ("documents", 0.04): "2-22",
    ("mixed", 0.12): "13-51", ("mixed", 0.04): "4-51",
}  # fmt: skip
"""Savings in % against one kind alone, from the authors' summary of their results (tyler-griggs.github.io)."""


def requests(name: str, count: int = 4000, seed: int = 1) -> hk.Workload:
    """Poisson arrivals with lognormal lengths."""
    rng = np.random.default_rng(seed)
    is_chat = {"chat": np.ones(count), "documents": np.zeros(count), "mixed": rng.random(count) < CHAT_SHARE}[name]
    columns = []
    for at in (0, 1):
        both = []
        for kind in ("documents", "chat"):
            mean, sigma = MEANS[kind][at], SIGMA[kind][at]
            both.append(rng.lognormal(np.log(mean) - sigma**2 / 2, sigma, count))
        columns.append(np.clip(np.where(is_chat, both[1], both[0]), 2, 12_000).astype(int))
    arrivals = np.cumsum(rng.exponential(1.0, count))
    return hk.Workload.of(zip(arrivals, *columns, strict=True), name)


def measure(time_limit_s: float, chosen: list[str]) -> list[dict]:
    """A row for each setting; rows of other prices in the file are kept."""
    rows = json.loads(RESULT.read_text()) if RESULT.exists() else []
    rows = [row for row in rows if row["prices"] not in chosen]
    for prices in chosen:
        for name in ("chat", "documents", "mixed"):
            for tpot_s in LIMITS_S:
                for rate in RATES:
                    row = {"prices": prices, "requests": name, "tpot_s": tpot_s, "rate_per_s": rate}
                    try:
                        found = hk.fleet(
                            MODEL, rate, slo=hk.SLO(tpot_s=tpot_s), gpus=GPUS, workload=requests(name),
                            prices=PRICES[prices], engine="vllm-0.15", time_limit_s=time_limit_s,
                        )  # fmt: skip
                        row |= {
                            "fleet": found.best.text, "usd_per_hour": found.usd_per_hour,
                            "pipelines": [f"{p['count']} x {p['pipeline']}" for p in found.best.pipelines],
                            "bound_usd_per_hour": found.bound_usd_per_hour, "attainment": found.best.attainment,
                            "alone": {kind: one.usd_per_hour for kind, one in found.of_one_kind.items()},
                            "seconds": found.facts["seconds"],
                        }  # fmt: skip
                    except hk.InfeasibleError as error:
                        row |= {"error": str(error)}
                    rows.append(row)
                    print(json.dumps(row), flush=True)
                    RESULT.write_text(json.dumps(rows, indent=1) + "\n")
    return rows


def table(rows: list[dict]) -> str:
    """Markdown: a line for each setting, savings against the kinds alone beside those reported."""
    lines = ["| prices | requests | TPOT | rate/s | cheapest fleet | USD/h | bound | saved, best kind | "
             "saved, each kind | Mélange |", "|---|---|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for row in rows:
        if "error" in row:
            continue
        price, alone = row["usd_per_hour"], row["alone"]
        saved = {kind: 1 - price / alone[kind] for kind in GPUS if kind in alone}
        each = ", ".join(f"{kind} {saved[kind]:.0%}" if kind in saved else f"{kind} never" for kind in GPUS)
        lines.append(
            f"| {row['prices']} | {row['requests']} | {1e3 * row['tpot_s']:.0f} ms | {row['rate_per_s']} | "
            f"{row['fleet']} | {price:.2f} | {row['bound_usd_per_hour']:.2f} | "
            f"{min(saved.values(), default=0):.0%} | {each} | {REPORTED[row['requests'], row['tpot_s']]} % |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", action="store_true", help="print the table of the last run")
    parser.add_argument("--prices", nargs="+", choices=list(PRICES), default=list(PRICES))
    parser.add_argument("--time-limit", type=float, default=40.0, help="seconds a setting")
    given = parser.parse_args()
    print(table(json.loads(RESULT.read_text()) if given.table else measure(given.time_limit, given.prices)))
