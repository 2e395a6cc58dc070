"""The table of benchmarks that hold rules for T(k) against simulations: predicted flow over saturation, by rule."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr


@dataclass(frozen=True)
class Row:
    """One plan: what it serves at saturation, and the flow that each rule predicts, in tokens/s."""

    case: str
    model: str
    plan: str
    nodes: int
    saturation: float
    flows: dict[str, float]

    def ratio(self, rule: str) -> float:
        """Predicted flow over saturation."""
        return self.flows[rule] / self.saturation

    def text(self) -> str:
        """The row of the table; the rules in the order of `flows`."""
        ratios = " | ".join(f"{self.ratio(rule):.2f}" for rule in self.flows)
        return f"| {self.case} | {self.model} | {self.plan} | {self.nodes} | {self.saturation:,.0f} | {ratios} |"


def summary(rows: Sequence[Row]) -> str:
    """Spread of the ratios and rank correlation of each rule."""
    by_case: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        by_case.setdefault((row.case, row.model), []).append(row)
    lines = []
    for rule in rows[0].flows if rows else ():
        ratios = [row.ratio(rule) for row in rows]
        spread = statistics.pstdev([float(np.log(max(r, 1e-9))) for r in ratios])
        ranks = [
            float(spearmanr([r.flows[rule] for r in part], [r.saturation for r in part]).statistic)
            for part in by_case.values()
            if len(part) >= 3 and len({r.flows[rule] for r in part}) > 1
        ]
        best = [
            max(part, key=lambda r: r.flows[rule]).saturation / max(r.saturation for r in part)
            for part in by_case.values()
        ]
        rank = ""
        if ranks:
            rank = f"Spearman within a case {statistics.mean(ranks):.2f} on average, {min(ranks):.2f} at worst; "
        lines.append(
            f"{rule}: predicted over served {min(ratios):.2f} to {max(ratios):.2f}, median "
            f"{statistics.median(ratios):.2f}, spread a factor of {np.exp(spread):.2f}; {rank}the plan of the largest "
            f"flow serves {statistics.mean(best):.0%} of the best, {min(best):.0%} at worst."
        )
    return "\n".join(lines)


def report(head: Sequence[str], rows: Iterable[Row], output: Path | None) -> None:
    """Print the table row by row as it comes, then its summary; write both to `output`."""
    print("\n".join(head), flush=True)
    kept = []
    for row in rows:
        kept.append(row)
        print(row.text(), flush=True)
    text = summary(kept)
    print("\n" + text)
    if output:
        output.write_text("\n".join([*head, *(row.text() for row in kept)]) + "\n\n" + text + "\n")
