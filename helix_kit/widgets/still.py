"""Widgets in pages that outlive their kernel: what a program executes is shown as a picture.

nbconvert, papermill and `jupyter execute` run a notebook and end its kernel. They put the state of widgets into the
file, and the page then asks a server on the internet for the code that draws it; offline it stays blank. So a widget
shows only its PNG there.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

WIDGET_MIME = "application/vnd.jupyter.widget-view+json"
Bundle = tuple[dict[str, Any], dict[str, Any]]
"""Data and metadata, as ``_repr_mimebundle_`` returns them."""


def is_live() -> bool:
    """Whether a reader may use widgets: False in a kernel that a program drives.

    A program cannot answer `input()`, and says so with each request to the kernel. Voila is a program too, but its
    pages stay connected to the kernel. It sets the variables of a web server.
    """
    if _is_voila():
        return True
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    kernel = getattr(shell, "kernel", None)
    if kernel is None:
        return True
    request = kernel.get_parent("shell") or {}
    return bool(request.get("content", {}).get("allow_stdin", True))


def _is_voila() -> bool:
    return os.environ.get("SERVER_SOFTWARE", "").startswith("voila")


def with_still(live: Any, still: Callable[[], Bundle | None], wait: Callable[[], Any] | None = None) -> Bundle:
    """The bundle of a widget with a picture, or the picture alone where the kernel will end.

    Parameters
    ----------
    live
        What the widget's own ``_repr_mimebundle_`` returned.
    still
        Draws the picture; None when there is nothing to draw.
    wait
        Waits for the widget's background work, which a picture alone would not show later.
    """
    data, metadata = live if isinstance(live, tuple) else (live or {}, {})
    if _is_voila():
        # Its page is never read without the kernel, and drawing the picture takes a second of every visit.
        return data, metadata
    lives = is_live()
    if not lives and wait is not None:
        wait()
    picture = still()
    if picture is None:
        return data, metadata
    data, metadata = {**data, **picture[0]}, {**metadata, **picture[1]}
    if not lives:
        data.pop(WIDGET_MIME, None)
    return data, metadata
