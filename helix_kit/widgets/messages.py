"""Lines of text in the editors: progress, results and errors."""

from __future__ import annotations

import html
from typing import ClassVar

import ipywidgets as W

from helix_kit.errors import HelixKitError
from helix_kit.plots.formatting import format_number, format_percent


class Message(W.HTML):
    """One or more lines of plain text. The colour tells information, success and errors apart."""

    COLOURS: ClassVar[dict[str, str]] = {"info": "var(--jp-ui-font-color1, #333)", "good": "#00755a", "bad": "#b34a00"}

    role = "status"
    """ARIA role: a screen reader announces every change of a status."""

    def say(self, text: str, tone: str = "info") -> None:
        """Show `text`. HTML in it is escaped and line breaks are kept."""
        self.text = text
        lines = html.escape(text).replace("\n", "<br>")
        self.value = f'<div role="{self.role}" style="color:{self.COLOURS[tone]};line-height:1.45">{lines}</div>'

    text = ""


class Note(Message):
    """A message that a screen reader does not announce when it changes."""

    role = "note"


def progress_text(seconds: float, value: float, bound: float, message: str = "") -> str:
    """Value, bound and gap of a running solve in one line; `value` and `bound` in tokens/s."""
    known = f"bound {format_number(bound)} tokens/s" if bound < float("inf") else "no bound yet"
    gap = f", gap {format_percent((bound - value) / value)}" if value > 0 and bound < float("inf") else ""
    return f"{seconds:.1f} s: value {format_number(value)} tokens/s, {known}{gap}{f' ({message})' if message else ''}"


def error_text(error: Exception) -> str:
    """Text of an error. An error that is not ours is shown with its type."""
    return str(error) if isinstance(error, HelixKitError) else f"{type(error).__name__}: {error}"
