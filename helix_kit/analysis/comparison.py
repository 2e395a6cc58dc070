"""The table that `compare` returns: a pandas frame that prints as a table which fits a page."""

from __future__ import annotations

from typing import Any

import pandas as pd

from helix_kit._summary import html_table, number, percent


class Comparison(pd.DataFrame):
    """One row a run, with the columns that `compare` describes. What is cut out of it is a plain frame.

    `print` and notebooks show the rounded numbers, and only columns in which something is told.

    Examples
    --------
    >>> row = {"plan": "mine", "policy": "helix", "workload": "steady", "flow_tokens_per_s": 2045.6, "gap": 0.0,
    ...        "decode_tokens_per_s": 101.53, "prompt_s": 1.0, "prompt_p95_s": 2.0, "decode_s": 0.61234,
    ...        "decode_p95_s": 0.9, "finished": 9, "of": 10, "problem": None}
    >>> print(Comparison([row]))
    plan policy workload flow tokens/s gap decode tokens/s prompt s (p95) decode s (p95) finished
    mine  helix   steady       2,045.6 0 %           101.5          1 (2)    0.612 (0.9)  9 of 10
    """

    @property
    def _constructor(self) -> Any:
        return pd.DataFrame

    def as_text(self) -> pd.DataFrame:
        """The rows as texts, as they are printed."""

        def with_p95(row: Any, mean: str) -> str:
            if pd.isna(row[mean]):
                return "-"
            p95 = row[mean.replace("_s", "_p95_s")]
            return number(row[mean]) if pd.isna(p95) else f"{number(row[mean])} ({number(p95)})"

        rows = []
        for _, row in self.iterrows():
            ran = not pd.isna(row["decode_tokens_per_s"])
            rows.append(
                {
                    "plan": str(row["plan"]),
                    "policy": str(row["policy"]),
                    "workload": str(row["workload"]),
                    "flow tokens/s": "-" if pd.isna(row["flow_tokens_per_s"]) else number(row["flow_tokens_per_s"]),
                    "gap": "-" if pd.isna(row["gap"]) else percent(row["gap"]),
                    "decode tokens/s": number(row["decode_tokens_per_s"]) if ran else "-",
                    "prompt s (p95)": with_p95(row, "prompt_s"),
                    "decode s (p95)": with_p95(row, "decode_s"),
                    "$/M tokens": _optional(row, "usd_per_million_tokens"),
                    "J/token": _optional(row, "joules_per_token"),
                    **self._under_slo(row, ran),
                    "finished": f"{int(row['finished']):,} of {int(row['of']):,}" if ran else "-",
                    "problem": "" if pd.isna(row["problem"]) else " ".join(str(row["problem"]).split()),
                }
            )
        shown = pd.DataFrame(rows)
        for column in ("$/M tokens", "J/token"):
            if not shown.empty and (shown[column] == "-").all():
                shown = shown.drop(columns=column)
        return shown if shown.empty or shown["problem"].any() else shown.drop(columns="problem")

    def _under_slo(self, row: Any, ran: bool) -> dict[str, str]:
        """Goodput and attainment, where an SLO was given."""
        if "attainment" not in self.columns:
            return {}
        share = "-" if not ran or pd.isna(row["attainment"]) else percent(row["attainment"])
        return {"goodput/s": number(row["goodput_per_s"]) if ran else "-", "attainment": share}

    def _is_whole(self) -> bool:
        return {"plan", "policy", "workload", "problem", "of"} <= set(self.columns)

    def __repr__(self) -> str:
        if not self._is_whole():
            return super().__repr__()
        return self.as_text().to_string(index=False)

    def __str__(self) -> str:
        return repr(self)

    def _repr_html_(self) -> str | None:
        if not self._is_whole():
            html: str | None = super()._repr_html_()  # type: ignore[misc]
            return html
        shown = self.as_text()
        return html_table(shown.itertuples(index=False), head=list(shown.columns))


def _optional(row: Any, name: str) -> str:
    """A number as text, a dash where it is unknown or the table is from before the column."""
    value = row.get(name)
    return "-" if value is None or pd.isna(value) else number(value)


__all__ = ["Comparison"]
