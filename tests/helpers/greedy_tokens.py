"""The greedy answer of Hugging Face's own code, to compare the runtime's with."""

from __future__ import annotations

from pathlib import Path


def greedy(folder: Path, token_ids: list[int], new_tokens: int) -> list[int]:
    """The `new_tokens` tokens that `generate` adds to `token_ids`, also after an end-of-text token."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    out = model.generate(
        torch.tensor([token_ids]), max_new_tokens=new_tokens, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    return out[0, len(token_ids) :].tolist()
