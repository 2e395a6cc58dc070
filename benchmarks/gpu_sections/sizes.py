"""How large everything is: as measured on a GPU, or so tiny that all of it runs on a CPU within a minute."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

LLAMA_8B: dict[str, Any] = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 128256,
    "tie_word_embeddings": False,
}
"""The shape of Llama-3.1-8B."""
LLAMA_1B: dict[str, Any] = {
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "vocab_size": 128256,
    "tie_word_embeddings": True,
}
"""The shape of Llama-3.2-1B."""
TINY: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 256,
    "tie_word_embeddings": False,
}


@dataclass(frozen=True)
class Sizes:
    """Shapes, batches, lengths and loads."""

    large: dict[str, Any]
    small: dict[str, Any]
    dtype: str
    equality_batches: tuple[int, ...]
    families: tuple[str, ...]
    step_batches: tuple[int, ...]
    context: int
    long_context: int
    prefills: tuple[int, ...]
    repeats: int
    profiler_steps: int
    attention_layers: int
    bench_batches: tuple[int, ...]
    prompt: int
    long_prompt: int
    new_tokens: int
    hf_new_tokens: int
    mixed_requests: int
    mixed_new_tokens: int
    mixed_prompts: tuple[float, float, int, int]
    """Mean and deviation of the logarithm, shortest and longest prompt."""
    open_rates: tuple[float, ...]
    open_seconds: float
    open_mean_tokens: tuple[float, float]
    """Mean tokens of a request, in and out."""
    open_longest: tuple[int, int]
    kv_tokens: int
    """KV tokens in each layer of an engine."""
    chunk_tokens: int
    profile_layers: int
    profile_repeats: int
    copy_bytes: int
    matmul: int


FULL = Sizes(
    large=LLAMA_8B,
    small=LLAMA_1B,
    dtype="bfloat16",
    equality_batches=(1, 2, 3, 7, 8, 9, 33),
    families=("llama", "mistral", "qwen2", "qwen3", "olmo2", "phi3"),
    step_batches=(1, 8, 32, 64),
    context=512,
    long_context=4096,
    prefills=(512, 2048),
    repeats=20,
    profiler_steps=3,
    attention_layers=8,
    bench_batches=(1, 8, 32),
    prompt=512,
    long_prompt=2048,
    new_tokens=96,
    hf_new_tokens=24,
    mixed_requests=64,
    mixed_new_tokens=96,
    mixed_prompts=(5.6, 0.9, 16, 2000),
    open_rates=(5.0, 10.0),
    open_seconds=30.0,
    open_mean_tokens=(566.0, 247.0),
    open_longest=(4096, 1200),
    kv_tokens=120_000,
    chunk_tokens=512,
    profile_layers=32,
    profile_repeats=9,
    copy_bytes=4 << 30,
    matmul=8192,
)
ON_CPU = Sizes(
    large=TINY,
    small=TINY | {"tie_word_embeddings": True},
    dtype="float32",
    equality_batches=(1, 3),
    families=("qwen2",),
    step_batches=(1, 3),
    context=20,
    long_context=40,
    prefills=(16,),
    repeats=2,
    profiler_steps=1,
    attention_layers=2,
    bench_batches=(1, 3),
    prompt=16,
    long_prompt=40,
    new_tokens=4,
    hf_new_tokens=3,
    mixed_requests=5,
    mixed_new_tokens=4,
    mixed_prompts=(2.5, 0.5, 4, 40),
    open_rates=(8.0,),
    open_seconds=1.0,
    open_mean_tokens=(12.0, 5.0),
    open_longest=(60, 20),
    kv_tokens=4000,
    chunk_tokens=16,
    profile_layers=2,
    profile_repeats=1,
    copy_bytes=1 << 20,
    matmul=64,
)
