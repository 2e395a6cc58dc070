"""Messages between the coordinator and the workers.

`messages` declares them, `wire` turns them into bytes and checks what arrives, `sockets` sends and receives them,
`shaping` delays them as emulated links would, and `link_measurement` measures what this machine's sockets carry.
Nothing is imported here, so that a module that only needs the messages does not load the sockets.
"""
