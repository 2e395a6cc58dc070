"""One drawing function a figure, from a table to a matplotlib Figure: 7 inches wide, for colour, grey and print."""
