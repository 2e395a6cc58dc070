"""A worker: it holds the layers of one node and runs steps over the rows that have arrived.

`worker` is the loop. `requests` keeps the requests that the worker knows, `batching` chooses the rows of a step, and
`step` runs it on `model_layers`. Attention reads keys and values from pages (`kv_cache`, `attention`, `step_kernels`).
`sampling` chooses the tokens, `pacing` pads steps to a profile's time. Nothing is imported here: several of these
modules load torch.
"""
