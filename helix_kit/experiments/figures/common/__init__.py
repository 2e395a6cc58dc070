"""What several figures share: published runs, settings, simulations and their store, metrics, rows and limits."""

__all__: list[str] = []
