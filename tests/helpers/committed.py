"""The committed results of the experiments, as tests read them."""

from pathlib import Path

from helix_kit.experiments.machinery.files import load

ROOT = Path(__file__).resolve().parents[2]
FIGURES = ROOT / "figures"
EVALUATIONS = ("single-cluster", "geo-distributed", "high-heterogeneity")
DEEP_DIVES = ("placement-deep-dive", "scheduling-deep-dive")
SPEED = "decode_tokens_per_s"


def speeds(name, source="ours"):
    """(setup, model, mode) -> method -> decode tokens/s."""
    table = load(name, FIGURES)
    table = table[(table["metric"] == SPEED) & (table["source"] == source)]
    cases = table.groupby(["setup", "model", "mode"], sort=False)
    return {key: part.set_index("method")["value"].to_dict() for key, part in cases}
