"""How results show themselves: one line for `repr` and `print`, and a small table in notebooks.

A plan of 24 nodes has about 900 numbers and a workload thousands of requests. Python itself prints all fields of an
object. They would fill the screen, and hide the few that a reader looks for.

>>> class Shop(Summarised):
...     def _title(self):
...         return "fruit"
...     def _facts(self):
...         return {"apples": "3", "pears": "1"}
>>> Shop()
<Shop fruit: apples 3, pears 1>
>>> Shop()._repr_html_().count("<tr>")
2
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

MAX_LISTED = 6
"""Entries of a list that are named; of more, the rest is counted."""


class Summarised:
    """Base of results that show themselves by a title and a few facts.

    A subclass defines `_title` and `_facts`. Its fields stay as they are.
    """

    __slots__ = ()

    def _title(self) -> str:
        """What it is, such as "llama2-70b on single24"; may be empty."""
        raise NotImplementedError

    def _facts(self) -> dict[str, str]:
        """Name -> value of the few facts that tell it apart, most important first."""
        raise NotImplementedError

    def __repr__(self) -> str:
        try:
            title, facts = self._title(), self._facts()
        except Exception:  # a debugger looks at an object whose constructor has not ended, or has failed
            return object.__repr__(self)
        told = ", ".join(f"{name} {value}" for name, value in facts.items())
        title = f" {title}" if title else ""
        return one_line(f"<{type(self).__name__}{title}: {told}>")

    def __str__(self) -> str:
        return repr(self)

    def _repr_html_(self) -> str:
        rows = [(name, value) for name, value in self._facts().items()]
        return html_table(rows, caption=f"{type(self).__name__} {self._title()}".strip())


def one_line(text: str) -> str:
    """The text with line breaks and runs of spaces as single spaces: names of clusters and models are the user's."""
    return " ".join(text.split())


def html_table(rows: Iterable[Sequence[str]], *, head: Sequence[str] = (), caption: str = "") -> str:
    """A plain HTML table. The first cell of a row is its heading; a caption and a row of heads are optional."""
    lines = ["<table>"]
    if caption:
        lines.append(f"<caption>{escape(one_line(caption))}</caption>")
    if head:
        lines.append("<tr>" + "".join(f"<th>{escape(cell)}</th>" for cell in head) + "</tr>")
    for first, *cells in rows:
        tail = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        lines.append(f'<tr><th style="text-align: left">{escape(first)}</th>{tail}</tr>')
    return "\n".join([*lines, "</table>"])


def counted(counts: Mapping[str, int]) -> str:
    """Counts by name, such as "4 A100-40G, 8 L4"; beyond six names the rest is only counted.

    >>> counted({"L4": 8, "T4": 12})
    '8 L4, 12 T4'
    """
    shown = len(counts) if len(counts) <= MAX_LISTED + 1 else MAX_LISTED
    named = [f"{count} {name}" for name, count in list(counts.items())[:shown]]
    rest = list(counts.values())[shown:]
    return ", ".join([*named, f"{sum(rest)} of {len(rest)} other names"] if rest else named)


def number(value: float | None) -> str:
    """A number as people write it: 2,045.6 or 0.0312; "-" for None, "nan" and "inf" as they are.

    >>> number(2045.62), number(0.03125), number(3.0), number(None)
    ('2,045.6', '0.0312', '3', '-')
    """
    if value is None:
        return "-"
    if abs(value) >= 100:
        return f"{value:,.1f}"
    return f"{value:.3g}"


def percent(share: float) -> str:
    """A share in percent; one that two decimals would show as none reads "below 0.01 %".

    >>> percent(0.00012), percent(3.95), percent(0.0), percent(1e-7)
    ('0.01 %', '395 %', '0 %', 'below 0.01 %')
    """
    if 0 < share < 5e-5:
        return "below 0.01 %"
    decimals = 2 if 0 < abs(share) < 0.1 else 0 if share == 0 or abs(share) >= 1 else 1
    return f"{share * 100:,.{decimals}f} %"
