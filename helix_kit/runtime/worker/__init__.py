"""A worker: it holds the layers of one node and runs steps over the rows that have arrived."""
