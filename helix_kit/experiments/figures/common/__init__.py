"""What several figures share: published runs, settings, simulations that are kept, rows of tables, limits of searches."""
