"""Messages between coordinator and workers: their format, the sockets that carry them, emulated links."""
