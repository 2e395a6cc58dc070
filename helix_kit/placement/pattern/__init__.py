"""The default method: stages by column generation, over one region or several, around pins."""
