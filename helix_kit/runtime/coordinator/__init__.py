"""The coordinator: it admits requests, routes them over the workers and hands out their tokens."""
