"""One function for each picture: from a table to a matplotlib Figure, 7 inches wide, readable in colour and in grey."""

__all__: list[str] = []
