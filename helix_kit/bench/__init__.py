"""Measuring any server with OpenAI's API: a workload is replayed over HTTP with streaming, and reported as a `Run`.

Low to high: ``http`` (a small HTTP/1.1 client), ``events`` (what a stream says), ``prompts`` (texts of the right
length), ``options``, ``client`` (one request as a record), ``api`` (`bench`). The client is our own and needs asyncio
alone: a general HTTP library takes longer for each event of a stream, and would be one more dependency.
"""

from helix_kit.bench.api import bench
from helix_kit.bench.options import BenchOptions

__all__ = ["BenchOptions", "bench"]
