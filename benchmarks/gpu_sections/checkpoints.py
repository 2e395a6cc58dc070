"""Random checkpoints of a given shape: made on the device, written as safetensors shards that several threads fill."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

SHARD_BYTES = 2 << 30
ALIGNMENT = 64
THREADS = 4
FILE_DTYPES = {torch.bfloat16: "BF16", torch.float16: "F16", torch.float32: "F32"}

Shapes = dict[str, tuple[int, ...]]


def random_checkpoint(folder: Path, shape: Mapping[str, Any], *, dtype: str, device: str, seed: int = 0) -> Path:
    """Write config, tokenizer and random weights of a Llama of this shape; returns the folder."""
    from transformers import LlamaConfig

    from helix_kit.model import Model
    from helix_kit.runtime.weights.expected_tensors import expected_tensors

    folder.mkdir(parents=True, exist_ok=True)
    config = LlamaConfig(
        max_position_embeddings=8192,
        rope_theta=500000.0,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        architectures=["LlamaForCausalLM"],
        dtype=dtype,
        **shape,
    )
    config.save_pretrained(folder)
    stored = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    shapes = expected_tensors(stored, Model.from_hf(folder), with_head=not shape["tie_word_embeddings"])
    write_weights(folder, shapes, getattr(torch, dtype), torch.device(device), seed)
    write_tokenizer(folder, shape["vocab_size"])
    return folder


def write_weights(folder: Path, shapes: Shapes, dtype: torch.dtype, device: torch.device, seed: int) -> None:
    """Random matrices of deviation 0.02 and norms of ones, in shards of about 2 GiB."""
    shards = list(into_shards(shapes, dtype.itemsize))
    names = [f"model-{index:05}-of-{len(shards):05}.safetensors" for index in range(1, len(shards) + 1)]

    def write(index: int) -> None:
        generator = torch.Generator(device).manual_seed(seed + index)
        write_shard(folder / names[index], shards[index], dtype, generator)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(write, range(len(shards))))
    place = {tensor: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
    total = sum(math.prod(shape) for shape in shapes.values()) * dtype.itemsize
    index = {"metadata": {"total_size": total}, "weight_map": place}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


def into_shards(shapes: Shapes, item_bytes: int) -> Iterable[Shapes]:
    """The tensors in order, in groups of at least `SHARD_BYTES`, but for the last."""
    shard: Shapes = {}
    size = 0
    for name, shape in shapes.items():
        shard[name] = shape
        size += math.prod(shape) * item_bytes
        if size >= SHARD_BYTES:
            yield shard
            shard, size = {}, 0
    if shard:
        yield shard


def write_shard(path: Path, shapes: Shapes, dtype: torch.dtype, generator: torch.Generator) -> None:
    """One safetensors file: the length of the header, the header, the bytes of the tensors."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, shape in shapes.items():
        size = math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": FILE_DTYPES[dtype], "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    start = 8 + len(text)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        file.truncate(start + at)
    mapped = torch.from_file(str(path), shared=True, size=start + at, dtype=torch.uint8)
    for name, shape in shapes.items():
        first, stop = header[name]["data_offsets"]
        if len(shape) == 1:
            values = torch.ones(shape, dtype=dtype, device=generator.device)
        else:
            values = torch.empty(shape, dtype=dtype, device=generator.device).normal_(0, 0.02, generator=generator)
        mapped[start + first : start + stop].view(dtype).view(shape).copy_(values)


def write_tokenizer(folder: Path, vocabulary: int) -> None:
    """Each token is a word: w3, w4, ..."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    words = {"<pad>": 0, "<s>": 1, "</s>": 2} | {f"w{i}": i for i in range(3, vocabulary)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w3"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    tokenizer.add_special_tokens(["<pad>", "<s>", "</s>"])
    tokenizer.save(str(folder / "tokenizer.json"))
