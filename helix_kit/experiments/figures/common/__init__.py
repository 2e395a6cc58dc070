"""What several figures share: published runs, settings, simulations and their store, metrics, rows, limits of searches."""
