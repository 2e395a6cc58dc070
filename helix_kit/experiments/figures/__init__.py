"""One module for each figure or family of figures: how its table is computed. ``pictures`` draws the tables."""

__all__: list[str] = []
