"""One module a figure or table: how it is computed and how it is drawn."""
