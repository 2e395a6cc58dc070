"""A matplotlib figure that shows its picture in any notebook kernel.

IPython draws a plain `matplotlib.figure.Figure` only after pyplot's inline backend has been loaded. In a fresh kernel a
notebook would show the text ``<Figure size 1100x700 with 4 Axes>`` instead. This class needs no backend.
"""

from __future__ import annotations

import io
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


class NotebookFigure(Figure):
    """A figure with a PNG for notebooks.

    It has no connection to pyplot: no window opens, and no list of open figures keeps it alive.

    Examples
    --------
    >>> figure = NotebookFigure(figsize=(2, 1))
    >>> axes = figure.subplots()
    >>> figure._repr_png_()[:4]
    b'\\x89PNG'
    """

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        FigureCanvasAgg(self)

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        # No metadata, since matplotlib's version would change the bytes.
        self.savefig(buffer, format="png", bbox_inches="tight", metadata={"Software": None})
        return buffer.getvalue()
