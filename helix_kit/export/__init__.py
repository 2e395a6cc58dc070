"""Plans for other engines: launch scripts for vLLM, SGLang, llama.cpp and Ray Serve LLM, and a router with weights.

Low to high: ``replicas`` (a plan as pipelines that share no node), ``scripts`` (what each engine is started with),
``api`` (`export_plan`).
"""

from helix_kit.export.api import ENGINES, Exported, export_plan
from helix_kit.export.replicas import Rank, Replica, Replicas, ranks_of, replicas_of

__all__ = ["ENGINES", "Exported", "Rank", "Replica", "Replicas", "export_plan", "ranks_of", "replicas_of"]
