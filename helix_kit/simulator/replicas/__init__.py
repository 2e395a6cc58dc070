"""The rules of engines that keep a whole model on one chain of nodes, such as vLLM: replicas."""
