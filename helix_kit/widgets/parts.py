"""What the editors share: a solve in a thread with Stop, messages, and boxes that keep a still picture."""

from __future__ import annotations

import html
import threading
from collections.abc import Callable
from typing import Any, ClassVar

import ipywidgets as W

from helix_kit.errors import HelixKitError
from helix_kit.placement.plan import Plan
from helix_kit.plots import png_bundle
from helix_kit.plots.words import number, percent


class Background:
    """One piece of work at a time in a thread; newer work makes the results of older work void."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._turn = 0

    @property
    def running(self) -> bool:
        """Whether work is going on."""
        return self._thread is not None and self._thread.is_alive()

    def start(
        self, work: Callable[[threading.Event], Any], done: Callable[[Any], None], failed: Callable[[Exception], None]
    ) -> None:
        """Run `work(stop)` and hand its result to `done`, or its error to `failed`; earlier work is stopped."""
        self.stop.set()
        self.stop = stop = threading.Event()
        self._turn += 1
        turn = self._turn

        def run() -> None:
            try:
                result = work(stop)
            except Exception as error:  # shown to the reader, who has no terminal to look at
                if turn == self._turn:
                    failed(error)
                return
            if turn == self._turn:
                done(result)

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()

    def cancel(self) -> None:
        """Stop what runs and forget its result."""
        self.stop.set()
        self._turn += 1

    def wait(self, timeout_s: float = 60.0) -> bool:
        """Wait until the work is done; False when it was not within `timeout_s`."""
        if self._thread is not None:
            self._thread.join(timeout_s)
        return not self.running


class Message(W.HTML):
    """A line or several of plain text, coloured by what they are: news, success or trouble."""

    COLOURS: ClassVar[dict[str, str]] = {"info": "var(--jp-ui-font-color1, #333)", "good": "#00755a", "bad": "#b34a00"}

    role = "status"
    """For screen readers: what is announced when it changes."""

    def say(self, text: str, tone: str = "info") -> None:
        """Show `text` (it is escaped; line breaks are kept)."""
        self.text = text
        lines = html.escape(text).replace("\n", "<br>")
        self.value = f'<div role="{self.role}" style="color:{self.COLOURS[tone]};line-height:1.45">{lines}</div>'

    text = ""


class Note(Message):
    """A message that is read where it stands and not announced."""

    role = "note"


class PictureBox(W.VBox):
    """A box of widgets around a flow graph that shows the graph as a PNG where there is no kernel."""

    def shown_plan(self) -> Plan | None:
        """The plan on show, if there is one."""
        raise NotImplementedError

    def _repr_mimebundle_(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        made = super()._repr_mimebundle_(**options)
        live, metadata = made if isinstance(made, tuple) else (made or {}, {})
        plan = self.shown_plan()
        if plan is None:
            return live, metadata
        from helix_kit.plots import flow_graph

        picture = flow_graph(plan)
        still, size = png_bundle(picture.to_png(), picture.scene.title, picture.scene.width)
        return {**live, **still}, {**metadata, **size}


def progress_words(seconds: float, value: float, bound: float, message: str = "") -> str:
    """Value, bound and gap of a running solve, in a line."""
    known = f"bound {number(bound)} tokens/s" if bound < float("inf") else "no bound yet"
    gap = f", gap {percent((bound - value) / value)}" if value > 0 and bound < float("inf") else ""
    return f"{seconds:.1f} s: value {number(value)} tokens/s, {known}{gap}{f' ({message})' if message else ''}"


def error_words(error: Exception) -> str:
    """An error for the reader: our own as they are, others with their type."""
    return str(error) if isinstance(error, HelixKitError) else f"{type(error).__name__}: {error}"
