"""Grammar of messages: counts with their noun, verbs that agree with a count, and lists of names.

>>> f"{count_text(1, 'node')} {agreeing(1, 'carries', 'carry')} no flow"
'1 node carries no flow'
"""

from __future__ import annotations

from collections.abc import Sequence


def count_text(count: int, noun: str, plural: str = "") -> str:
    """A count with its noun; `plural` is the noun's plural where it does not just end in s.

    >>> count_text(1, "pipeline"), count_text(5, "pipeline"), count_text(2, "set of replicas", "sets of replicas")
    ('1 pipeline', '5 pipelines', '2 sets of replicas')
    """
    return f"{count:,} {agreeing(count, noun, plural or f'{noun}s')}"


def agreeing(count: int, singular: str, plural: str) -> str:
    """The form of a word that agrees with a count.

    >>> agreeing(1, "is", "are"), agreeing(0, "is", "are")
    ('is', 'are')
    """
    return singular if count == 1 else plural


def join_names(names: Sequence[str], at_most: int = 4) -> str:
    """``a, b and c``; of more than `at_most` names the last ones are counted.

    >>> join_names(["a", "b", "c"]), join_names(["a", "b", "c", "d", "e"])
    ('a, b and c', 'a, b, c and 2 more')
    """
    shown = list(names)
    if len(shown) > at_most:
        shown = [*shown[: at_most - 1], f"{len(shown) - at_most + 1} more"]
    return f"{', '.join(shown[:-1])} and {shown[-1]}" if len(shown) > 1 else "".join(shown)
